"""Calls of attackers: made many at once, over and over for a time, and counted by how they ended."""

import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

SECONDS = 120
"""A call that takes longer is given up."""

PAUSE_SECONDS = 0.05
"""Between an attacker's refused call and its next one: it does not wait as long as it is told to."""


class Calls:
    """How calls ended.

    Args:
        allowed: Codes that they may end with, besides OK.
    """

    def __init__(self, *allowed: grpc.StatusCode) -> None:
        self._allowed = {grpc.StatusCode.OK, *allowed}
        self.codes: Counter[grpc.StatusCode] = Counter()
        self._faults: list[str] = []

    def make(self, call: Callable[[], Any]) -> grpc.StatusCode:
        """Makes a call, takes its responses if it streams any, and returns the code that it ended with."""
        try:
            answer = call()
            if isinstance(answer, grpc.RpcError):
                for _ in answer:  # type: ignore[attr-defined]  # a stream of responses
                    pass
            code = grpc.StatusCode.OK
        except grpc.RpcError as error:
            code = error.code()
            if code not in self._allowed:
                self._faults.append(f"{code.name}: {error.details()}")
        self.codes[code] += 1
        return code

    def at_once(self, count: int, call: Callable[[int], Any]) -> None:
        """Makes calls, all at once."""
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(lambda number: self.make(lambda: call(number)), range(count)))

    def flood(self, senders: int, seconds: float, call: Callable[[int], Any]) -> None:
        """Has each of so many senders make one call after the other for a time."""
        end = time.monotonic() + seconds

        def send(number: int) -> None:
            while time.monotonic() < end:
                if self.make(lambda: call(number)) is not grpc.StatusCode.OK:
                    time.sleep(PAUSE_SECONDS)

        with ThreadPoolExecutor(senders) as threads:
            list(threads.map(send, range(senders)))

    def count(self, needed: Collection[grpc.StatusCode] = ()) -> int:
        """How many there were.

        Raises:
            AssertionError: One ended as none may, or none as some must.
        """
        assert not self._faults, f"{len(self._faults)} calls ended wrongly, such as {self._faults[0]}"
        assert set(needed) <= set(self.codes), f"calls ended with {dict(self.codes)}"
        return self.codes.total()
