"""The proxy itself: it passes bytes on, and spoils connections as its plan says."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from chaos.proxy import Fault, Proxy, Way, random_plan

ANSWER = b"x" * 5_000


@pytest.fixture
def target() -> Iterator[str]:
    """Answers whatever it is sent, and ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, suppress(ConnectionError):
                if peer.recv(100):
                    peer.sendall(ANSWER)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def ask(proxy: Proxy) -> bytes:
    """What comes back until the end; TimeoutError if none comes."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.5) as line:
        line.sendall(b"hello")
        answer = b""
        while data := line.recv(65_536):
            answer += data
        return answer


def test_without_a_fault_bytes_pass(target: str) -> None:
    with Proxy(lambda: target) as proxy:
        assert [ask(proxy) for _ in range(3)] == [ANSWER] * 3
        assert proxy.done == {"connections": 3}


@pytest.mark.parametrize(
    ("way", "error"), [("reset", ConnectionResetError), ("stall", TimeoutError), ("truncate", None)]
)
@pytest.mark.parametrize("answers", [True, False])
def test_a_connection_is_spoilt_as_planned(
    target: str, way: Way, error: type[Exception] | None, answers: bool
) -> None:
    plan = {0: Fault(way, 3, answers)}
    with Proxy(lambda: target, plan.get) as proxy:
        if error is not None:
            with pytest.raises(error):
                ask(proxy)
        else:
            assert len(ask(proxy)) == (3 if answers else 0)
        assert proxy.done == {"connections": 1, way: 1}
        assert ask(proxy) == ANSWER


def test_a_plan_depends_on_its_seed_alone() -> None:
    def draw(seed: int) -> list[Fault | None]:
        plan = random_plan(seed, share=0.5, most_bytes=100_000)
        return [plan(number) for number in range(50)]

    assert draw(1) == draw(1) != draw(2)
    assert 10 < sum(fault is not None for fault in draw(1)) < 40
