"""What is released: the built packages, and what they do in an environment that has nothing else."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness.server import start_server

from headrace import Client

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
SOURCES = {
    "headrace": ROOT / "clients" / "python" / "headrace",
    "headrace-compute": ROOT / "compute" / "headrace_compute",
    "headrace-server": ROOT / "server" / "headrace_server",
}
PACKAGES = pytest.mark.parametrize("name", SOURCES)


def uv(*arguments: str | Path) -> str:
    """Runs uv on what it has in its cache, and on the package index if that is not enough."""
    for offline in (["--offline"], []):
        done = subprocess.run(
            [UV, *offline, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=170
        )
        if done.returncode == 0:
            return done.stdout
    raise AssertionError(f"uv {' '.join(map(str, arguments))}:\n{done.stderr}")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels, each built from its sdist, and the sdists."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--all-packages", "--quiet", "--out-dir", folder)
    return folder


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def wheel_of(dist: Path, name: str) -> Path:
    (wheel,) = dist.glob(f"{name.replace('-', '_')}-[0-9]*.whl")
    return wheel


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def sources_of(name: str) -> set[str]:
    """The files of a package, as they stand in the checkout."""
    folder = SOURCES[name]
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder.parent)) for path in found}


@PACKAGES
def test_a_wheel_holds_the_package_and_nothing_else(dist: Path, name: str) -> None:
    files = {file for file in files_of(wheel_of(dist, name)) if ".dist-info/" not in file}
    assert files == sources_of(name)
    assert f"{SOURCES[name].name}/py.typed" in files


def test_stubs_and_queries_go_along(dist: Path) -> None:
    stubs = {f"headrace/v1/pipeline_service_pb2{end}" for end in (".py", ".pyi", "_grpc.py", "_grpc.pyi")}
    assert stubs <= files_of(wheel_of(dist, "headrace"))
    assert "headrace_compute/sql/current_catalog.sql" in files_of(wheel_of(dist, "headrace-compute"))


@PACKAGES
def test_an_sdist_holds_what_builds_the_wheel_and_no_tests(dist: Path, name: str) -> None:
    (archive,) = dist.glob(f"{name.replace('-', '_')}-[0-9]*.tar.gz")
    with tarfile.open(archive) as sdist:
        files = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    assert files >= {"LICENSE", "README.md", "pyproject.toml", *sources_of(name)}
    assert not [file for file in files if "test" in file]


@PACKAGES
def test_the_metadata_are_whole(dist: Path, name: str) -> None:
    wheel = wheel_of(dist, name)
    metadata = metadata_of(wheel)
    assert metadata["Name"] == name
    assert metadata["Summary"]
    assert metadata["License-Expression"] == "LicenseRef-Proprietary"
    assert metadata["Author"]
    assert metadata["Keywords"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Private :: Do Not Upload" in metadata.get_all("Classifier", [])
    assert str(metadata.get_payload()).strip()  # The README.
    (licence,) = (file for file in files_of(wheel) if file.endswith(".dist-info/licenses/LICENSE"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_all_have_one_version_and_the_server_wants_no_other(dist: Path) -> None:
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    metadata = {name: metadata_of(wheel_of(dist, name)) for name in SOURCES}
    assert {name: each["Version"] for name, each in metadata.items()} == dict.fromkeys(SOURCES, workspace)
    wanted = set(metadata["headrace-server"].get_all("Requires-Dist", []))
    assert wanted >= {f"headrace=={workspace}", f"headrace-compute=={workspace}"}
    assert f"image: headrace:{workspace}\n" in (ROOT / "docker-compose.yml").read_text()


def test_the_clients_for_node_and_java_have_it_too() -> None:
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    node = ROOT / "clients" / "typescript"
    lock = json.loads((node / "package-lock.json").read_text())
    assert {json.loads((node / "package.json").read_text())["version"], lock["version"]} == {workspace}
    assert lock["packages"][""]["version"] == workspace
    parent = "{*}parent/{*}version"
    java = ROOT / "clients" / "java"
    assert ElementTree.parse(java / "pom.xml").findtext("{*}version") == workspace
    assert {ElementTree.parse(pom).findtext(parent) for pom in java.glob("*/pom.xml")} == {workspace}
    for readme in (node / "README.md", java / "README.md"):
        assert workspace in readme.read_text()


def test_no_lock_file_names_a_registry() -> None:
    assert "resolved" not in (ROOT / "clients" / "typescript" / "package-lock.json").read_text()


@pytest.mark.parametrize("client", ["go", "typescript", "java"])
def test_every_client_has_the_licence(client: str) -> None:
    assert (ROOT / "clients" / client / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheels and what they require, in the locked versions."""

    folder: Path

    def run(self, program: str, *arguments: str) -> str:
        command = [str(self.folder / "bin" / program), *arguments]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=True, timeout=100
        ).stdout

    @property
    def packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))


@pytest.fixture(scope="module")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environment") / "env"
    locked = folder.parent / "locked.txt"
    options = ("--frozen", "--no-dev", "--no-emit-workspace", "--no-hashes", "--quiet")
    uv("export", *options, "--output-file", locked)
    uv("venv", "--quiet", "--python", sys.executable, folder)
    wheels = [f"{wheel_of(dist, name)}{'[arrow,cli]' if name == 'headrace' else ''}" for name in SOURCES]
    uv("pip", "install", "--quiet", "--python", folder, "--constraints", locked, *wheels)
    made = Environment(folder)
    _take_over_compiled(made)
    return made


def _take_over_compiled(environment: Environment) -> None:
    """Gives the environment what is compiled here already: else bytecode and kernels cost 80 s of a core.

    Both name the time of the source they were made from, so what differs is compiled again.
    """
    here = Path(pytest.__file__).parents[1]
    for cache in here.rglob("__pycache__"):
        target = environment.packages / cache.relative_to(here)
        if target.parent.is_dir():
            target.mkdir(exist_ok=True)
            for file in cache.iterdir():
                if not (target / file.name).exists():
                    os.link(file, target / file.name)
    for source in SOURCES.values():
        installed = environment.packages / source.name
        for path in source.rglob("*.py"):
            copy = installed / path.relative_to(source)
            assert copy.read_bytes() == path.read_bytes()
            copy.unlink()  # It may be a link into uv's cache.
            shutil.copy2(path, copy)
        for path in source.rglob("__pycache__/*.nb[ci]"):
            target = installed / path.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(path, target)


def test_the_environment_has_what_the_packages_require(environment: Environment) -> None:
    uv("pip", "check", "--quiet", "--python", environment.folder)
    installed = {path.name.partition("-")[0] for path in environment.packages.glob("*.dist-info")}
    assert not installed & {"pytest", "mypy", "ruff", "hypothesis"}


def test_the_programs_and_the_sdk_tell_their_version(environment: Environment, dist: Path) -> None:
    version = metadata_of(wheel_of(dist, "headrace"))["Version"]
    assert "upload" in environment.run("headrace", "--help")
    for program in ("headrace", "headrace-server"):
        assert environment.run(program, "--version").split() == [program, version]
    code = "import headrace; print(headrace.__version__)"
    assert environment.run("python", "-c", code).strip() == version


def test_the_installed_server_serves_and_commits_name_its_version(
    environment: Environment, dist: Path, tmp_path: Path
) -> None:
    server = start_server(
        tmp_path / "data",
        command=[str(environment.folder / "bin" / "headrace-server")],
        HEADRACE_WORKERS="1",
        VERSION="shown",
    )
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/health", timeout=30) as answer:
            assert json.load(answer)["version"] == "shown"
        with Client(server.address) as client:
            row = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2026-01-01"}
            assert client.ingest_interactions("acme", [row]).result.rows_accepted == 1
            client.compute_features("acme")
            assert client.read_table("acme", "user_features").num_rows == 1
    finally:
        assert server.stop() == 0
    log = tmp_path / "data" / "features" / "acme" / "user_features" / "_delta_log" / f"{1:020d}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    (info,) = (action["commitInfo"] for action in actions if "commitInfo" in action)
    assert info["headrace.code_version"] == metadata_of(wheel_of(dist, "headrace-server"))["Version"]
