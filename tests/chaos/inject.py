"""Makes faults happen inside a server and its workers, without a line of theirs.

`install` runs as Python starts (site/sitecustomize.py). It wraps the functions of `points.py`
as their modules are imported. A wrapped function that reaches a point looks for an order
`{folder}/{point}.armed`; whoever renames it to `{point}.hit-...` has it, and carries it out
once: no restart dies of it again.

This module is imported into every process under chaos: it knows the standard library only.
"""

import asyncio
import functools
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from chaos.points import POINTS, Point, Role, find

FOLDER = "CHAOS_FOLDER"
SKEW = "CHAOS_SKEW_SECONDS"

POLL_SECONDS = 0.02

Deed = Literal["kill server", "kill workers", "raise", "pause"]


@dataclass(frozen=True)
class Order:
    """What is to happen at a point.

    Attributes:
        nth: At which call of a process, counted from 1.
        error: For `raise`: `module:Class`, made of one message.
    """

    point: str
    deed: Deed
    nth: int = 1
    error: str = "builtins:OSError"

    def arm(self, folder: Path) -> None:
        """Lets it happen from now on, once."""
        if self.point not in POINTS:
            raise KeyError(f"there is no point {self.point!r}; points are {', '.join(POINTS)}")
        draft = folder / f"{self.point}.draft"
        draft.write_text(json.dumps(asdict(self)))
        draft.rename(folder / f"{self.point}.armed")


def install() -> None:
    """Prepares this process, if it is a server or a worker under chaos."""
    folder, role = os.environ.get(FOLDER), _role()
    if not folder or role is None:
        return
    Path(folder, f"{role}-{os.getpid()}.pid").touch()
    if role == "server" and (skew := float(os.environ.get(SKEW, 0))):
        _shift_clock(skew)
    modules: dict[str, list[str]] = {}
    for name, point in POINTS.items():
        if point.role == role:
            modules.setdefault(point.module, []).append(name)
    sys.meta_path.insert(0, _Finder(Path(folder), modules))


def _role() -> Role | None:
    words = sys.orig_argv
    if "headrace_server.main" in words:
        return "server"
    return "worker" if any(word.endswith("default_worker.py") for word in words) else None


def _shift_clock(seconds: float) -> None:
    """Makes Python's wall clock wrong; files and the other processes keep the right one."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules as the others do, and has the named ones wrapped."""

    def __init__(self, folder: Path, modules: dict[str, list[str]]) -> None:
        self._folder = folder
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._modules:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)):
                assert spec.loader is not None
                spec.loader = _Loader(spec.loader, self._folder, self._modules[fullname])
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Loads a module and wraps what it defines."""

    def __init__(self, loader: Any, folder: Path, points: list[str]) -> None:
        self._loader = loader
        self._folder = folder
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for function in {POINTS[name].function for name in self._points}:
            watch = _Watch(self._folder, [name for name in self._points if POINTS[name].function == function])
            owner, _, name = function.rpartition(".")
            holder = find(module, owner) if owner else module
            # An AttributeError here ends the server at its start, which is meant.
            setattr(holder, name, watch.wrap(getattr(holder, name)))


class _Watch:
    """The points of one function."""

    def __init__(self, folder: Path, points: list[str]) -> None:
        self._folder = folder
        self._points = points
        self._calls: Counter[tuple[str, int]] = Counter()

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its points."""
        signature = inspect.signature(function)

        def due(when: str, args: Any, kwargs: Any) -> list[Order]:
            points = [name for name in self._points if POINTS[name].when == when]
            orders = [self._take(name, POINTS[name], signature, args, kwargs) for name in points]
            return [order for order in orders if order is not None]

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def reached_async(*args: Any, **kwargs: Any) -> Any:
                for order in due("before", args, kwargs):
                    await self._carry_out_async(order)
                value = await function(*args, **kwargs)
                for order in due("after", args, kwargs):
                    await self._carry_out_async(order)
                return value

            return reached_async

        @functools.wraps(function)
        def reached(*args: Any, **kwargs: Any) -> Any:
            for order in due("before", args, kwargs):
                self._carry_out(order)
            value = function(*args, **kwargs)
            for order in due("after", args, kwargs):
                self._carry_out(order)
            return value

        return reached

    def _take(
        self, name: str, point: Point, signature: inspect.Signature, args: Any, kwargs: Any
    ) -> Order | None:
        """The order for a point, if there is one and this call is the one it means."""
        armed = self._folder / f"{name}.armed"
        try:
            text, written = armed.read_text(), armed.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if point.only is not None:
            argument, value = point.only
            if signature.bind(*args, **kwargs).arguments[argument] != value:
                return None
        order = Order(**json.loads(text))
        self._calls[name, written] += 1
        if self._calls[name, written] < order.nth:
            return None
        try:
            armed.rename(self._folder / f"{name}.hit-{time.monotonic_ns()}")
        except FileNotFoundError:
            return None  # Another process has it.
        return order

    def _carry_out(self, order: Order) -> None:
        if order.deed == "pause":
            while not self._released(order):
                time.sleep(POLL_SECONDS)
        self._strike(order)

    async def _carry_out_async(self, order: Order) -> None:
        if order.deed == "pause":
            while not self._released(order):
                await asyncio.sleep(POLL_SECONDS)
        self._strike(order)

    def _released(self, order: Order) -> bool:
        return (self._folder / f"{order.point}.release").exists()

    def _strike(self, order: Order) -> None:
        if order.deed == "raise":
            module, _, name = order.error.partition(":")
            raise getattr(import_module(module), name)(f"chaos at {order.point}")
        if order.deed.startswith("kill"):
            role: Role = "server" if order.deed == "kill server" else "worker"
            # Itself last: the others must not outlive it.
            for pid in sorted(living(self._folder, role), key=lambda pid: pid == os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def living(folder: Path, role: Role) -> list[int]:
    """Processes of a role under chaos in this folder that are alive."""
    pids = [int(path.stem.partition("-")[2]) for path in folder.glob(f"{role}-*.pid")]
    return [pid for pid in pids if _is_ours(pid, folder)]


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether a process has this folder in its environment: a pid may have gone to somebody else's."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{FOLDER}={folder}".encode() in environment
