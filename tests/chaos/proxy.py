"""A TCP proxy that spoils connections: some of them, in one of three ways, after some bytes.

It knows no protocol. What it does to the n-th connection depends on its seed and n alone.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self

Way = Literal["reset", "stall", "truncate"]
WAYS: tuple[Way, ...] = ("reset", "stall", "truncate")

READ_BYTES = 64 << 10


@dataclass(frozen=True)
class Fault:
    """What happens to a connection.

    Attributes:
        way: `reset` ends it with RST both ways; `truncate` as if both sides had been done with it; `stall`
            leaves it open and says nothing more.
        after_bytes: How many bytes pass first, in the direction that counts.
        answers: Whether that is the server's; a cut answer is work done and not told.
    """

    way: Way
    after_bytes: int
    answers: bool


Plan = Callable[[int], Fault | None]
"""The fault of the n-th connection, counted from 0; None for a good one."""


def random_plan(
    seed: int, *, share: float, most_bytes: int, ways: tuple[Way, ...] = WAYS, faults: int = 1 << 30
) -> Plan:
    """Spoils a share of the connections after up to `most_bytes`; small numbers as likely as large ones."""
    left = faults

    def plan(number: int) -> Fault | None:
        nonlocal left
        dice = random.Random(f"{seed}/{number}")
        if left <= 0 or dice.random() >= share:
            return None
        left -= 1
        after = int(most_bytes ** dice.random())
        return Fault(dice.choice(ways), after, dice.random() < 0.5)

    return plan


@dataclass
class Proxy:
    """Listens on a loopback port, in a thread of its own, while its context lasts.

    Args:
        target: Host and port to pass connections on to, asked for each.
        plan: Says what happens to each connection.
    """

    target: Callable[[], str]
    plan: Plan = lambda _: None
    done: Counter[str] = field(default_factory=Counter)
    port: int = 0

    @property
    def address(self) -> str:
        """Where to connect to."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))
        self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        number = self.done["connections"]
        self.done["connections"] += 1
        with suppress(asyncio.CancelledError):
            await _Connection(self, self.plan(number)).run(reader, writer)


class _Connection:
    """One connection, and the fault that waits for it."""

    def __init__(self, proxy: Proxy, fault: Fault | None) -> None:
        self._proxy = proxy
        self._fault = fault
        self._stalled = asyncio.Event()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._proxy.target().rpartition(":")
        writers = [writer]
        try:
            try:
                onward, back = await asyncio.open_connection(host, int(port))
            except OSError:
                writer.transport.abort()  # Nobody is there: as without a proxy.
                return
            writers.append(back)
            pumps = [
                asyncio.create_task(self._pump(reader, back, answers=False)),
                asyncio.create_task(self._pump(onward, writer, answers=True)),
            ]
            try:
                await asyncio.gather(*pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
        except _SpoiltError as spoilt:
            if spoilt.way == "reset":
                for each in writers:
                    _reset(each)
        except OSError:
            pass
        finally:
            for each in writers:
                each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        fault = self._fault if self._fault is not None and self._fault.answers == answers else None
        passed = 0
        while data := await reader.read(READ_BYTES):
            if self._stalled.is_set():
                continue  # Swallowed: the line is dead and nobody knows.
            if fault is not None and passed + len(data) >= fault.after_bytes:
                writer.write(data[: fault.after_bytes - passed])
                await writer.drain()
                self._proxy.done[fault.way] += 1
                if fault.way != "stall":
                    raise _SpoiltError(fault.way)
                self._stalled.set()
                continue
            passed += len(data)
            writer.write(data)
            await writer.drain()
        if not self._stalled.is_set():
            with suppress(OSError, RuntimeError):
                writer.write_eof()


class _SpoiltError(Exception):
    """The fault has happened; the connection ends now."""

    def __init__(self, way: Way) -> None:
        self.way = way


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST, not FIN."""
    peer = writer.get_extra_info("socket")
    with suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
