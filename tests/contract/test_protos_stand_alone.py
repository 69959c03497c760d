"""Whoever has the repository and nothing else can compile the contract."""

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import google.api.annotations_pb2
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
THIRD_PARTY = ROOT / "protos" / "third_party"
BUF = Path(sys.executable).parent / "buf"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has of the contract, in a folder of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "protos", "buf.yaml"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture
def no_network(tmp_path: Path) -> dict[str, str]:
    """An environment for programs that may neither call anybody nor find what they called for before."""
    nowhere = "http://127.0.0.1:9"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "BUF_CACHE_DIR": str(tmp_path / "cache"),
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
    }


def _sources(folder: Path) -> list[str]:
    found = sorted(str(path.relative_to(folder)) for path in (folder / "headrace").rglob("*.proto"))
    assert len(found) > 10
    return found


def test_protoc_compiles_the_contract(checkout: Path, tmp_path: Path) -> None:
    protos, image = checkout / "protos", tmp_path / "image.binpb"
    well_known = files("grpc_tools") / "_proto"  # As every protoc has them beside it.
    arguments = [f"-I{protos}", f"-I{protos / 'third_party'}", f"-I{well_known}", "--include_imports"]
    assert protoc.main(["protoc", *arguments, f"--descriptor_set_out={image}", *_sources(protos)]) == 0
    compiled = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
    services = [each.name for file in compiled.file for each in file.service]
    assert services == ["PipelineService"]


@pytest.mark.parametrize("command", ["build", "lint"])
def test_buf_works_on_a_fresh_clone(checkout: Path, command: str, no_network: dict[str, str]) -> None:
    done = subprocess.run([BUF, command], cwd=checkout, env=no_network, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("path", sorted(THIRD_PARTY.rglob("*.proto")), ids=lambda path: path.name)
def test_files_of_others_are_as_the_package_has_them_that_stubs_import(path: Path) -> None:
    package = Path(google.api.annotations_pb2.__file__).parents[2]
    assert path.read_text() == (package / path.relative_to(THIRD_PARTY)).read_text()


def test_every_file_says_where_its_code_goes() -> None:
    for name in _sources(ROOT / "protos"):
        text = (ROOT / "protos" / name).read_text()
        for option in ("go_package", "java_multiple_files", "java_outer_classname", "java_package"):
            assert f"\noption {option} = " in text, f"{name} lacks option {option}"
