"""Each language's client: tested, and its examples built, in a copy of what the repository has."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers.errors import BrokerUnavailableError
from brokers.fixtures import REQUIRE
from brokers.tools import find_tool

ROOT = Path(__file__).parents[2]
CLIENTS = ("go", "typescript", "java")
BUILT = ("node_modules", "dist", "dist-test", "target")
SECONDS = 120


def copy_checkout(folder: Path) -> Path:
    """Copies the contract and the clients, without what a developer has built among them."""
    shutil.copytree(ROOT / "protos", folder / "protos")
    shutil.copy(ROOT / "buf.yaml", folder)
    for name in CLIENTS:
        shutil.copytree(
            ROOT / "clients" / name, folder / "clients" / name, ignore=shutil.ignore_patterns(*BUILT)
        )
    return folder


@dataclass(frozen=True)
class Language:
    """The built examples of a client.

    Attributes:
        name: Its folder below clients/.
        command: What runs an example, by the example's name.
        folder: Where.
    """

    name: str
    command: Callable[[str], Sequence[str | Path]]
    folder: Path

    def start(
        self, address: str, example: str, *arguments: str | Path, **settings: str
    ) -> subprocess.Popen[str]:
        """Starts an example against the server at an address, with settings in its environment."""
        return subprocess.Popen(
            [*self.command(example), *arguments],
            cwd=self.folder,
            env={**os.environ, "HEADRACE_ADDRESS": address, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, address: str, example: str, *arguments: str | Path, **settings: str
    ) -> tuple[int, str, str]:
        """Runs an example to its end: its exit status, what it printed, and its complaints."""
        process = self.start(address, example, *arguments, **settings)
        try:
            output, complaints = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        return process.returncode, output, complaints


def build(name: str, checkout: Path) -> Language:
    """Runs a client's own tests and builds its examples; skips the test without its toolchain."""
    with toolchain(name):
        return {"go": _go, "typescript": _typescript, "java": _java}[name](checkout / "clients" / name)


@contextmanager
def toolchain(name: str) -> Iterator[None]:
    """Skips the test if this machine lacks a program that is wanted here; fails it where CI says so."""
    try:
        yield
    except BrokerUnavailableError as missing:
        reason = f"no client in {name}: {missing}"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{REQUIRE}=1, but {reason}", pytrace=False)
        pytest.skip(reason)


def install_node_packages(folder: Path) -> None:
    """Installs what package-lock.json names, the generator of stubs too."""
    npm = find_tool("npm", "Install Node 20 or newer, with npm (packages nodejs and npm).")
    _run([npm, "ci", "--no-audit", "--no-fund"], folder)


def _go(folder: Path) -> Language:
    go = find_tool("go", "Install Go 1.26 or newer (https://go.dev/dl).")
    examples = folder / "examples"
    assert _run([Path(go).with_name("gofmt"), "-l", "."], folder) == ""
    # From the examples' module, so that gRPC is compiled once, in the version that they choose.
    everything = ("./...", "headrace.internal/clients/go/...")
    _run([go, "vet", *everything], examples)
    _run([go, "test", *everything], examples)
    _run([go, "build", "-o", "bin/", "./..."], examples)
    return Language("go", lambda example: [examples / "bin" / example], folder)


def _typescript(folder: Path) -> Language:
    node = find_tool("node", "Install Node 20 or newer (package nodejs).")
    install_node_packages(folder)
    npm = find_tool("npm", "Install npm.")
    _run([npm, "run", "build"], folder)
    _run([npm, "test"], folder)
    return Language("typescript", lambda example: [node, f"examples/dist/{example}.js"], folder)


def _java(folder: Path) -> Language:
    java = find_tool("java", "Install a Java development kit, 17 or newer (package openjdk-17-jdk-headless).")
    maven = find_tool("mvn", "Install Maven (package maven).")
    _run([maven, "-q", "-B", "-Dstyle.color=never", "package"], folder)
    options = [java, "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp"]
    path = "examples/target/classes:examples/target/dependency/*"
    return Language(
        "java", lambda example: [*options, path, f"headrace.examples.{example.capitalize()}"], folder
    )


def _run(command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}"
    return done.stdout
