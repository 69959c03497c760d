"""The relay's process: `python -m headrace_server.events`, started by the server.

It reads what to do from standard input: its launch, then a line for each commit the
server made. It reports on standard output, a line a second. When standard input
ends, its server is gone, and so is the reason for it to be here.
"""

import asyncio
import json
import sys
from contextlib import suppress

from headrace_compute.heap import bound_heap
from headrace_server.events.cursors import Cursors
from headrace_server.events.kafka import KafkaSink
from headrace_server.events.launch import Launch, read_launch
from headrace_server.events.local import LocalSink
from headrace_server.events.relay import Relay
from headrace_server.events.sink import EventSink
from headrace_server.events.slots import AllSlots, LeasedSlots, Slots
from headrace_server.logs import configure_logs

REPORT_SECONDS = 1.0
STOP_SECONDS = 8.0
"""How long what is left may still be published once the server stops."""


def main() -> None:
    """Relays until standard input ends or asks to stop."""
    launch = read_launch(sys.stdin.fileno())
    configure_logs(launch.log_level, launch.service_name)
    bound_heap()
    with suppress(KeyboardInterrupt):  # Ctrl-C reaches the server too, which then stops us.
        asyncio.run(_relay(launch))


async def _relay(launch: Launch) -> None:
    sink: EventSink
    if launch.kafka is None:
        sink, name = LocalSink(launch.folder), "local"
    else:
        sink, name = KafkaSink(launch.kafka), "kafka"
    shared = launch.store.s3 is not None
    slots: Slots = LeasedSlots(launch.store, name, launch.owner) if shared else AllSlots()
    relay = Relay(launch.store, sink, Cursors(launch.store, name), slots, launch.style)
    working = asyncio.create_task(_work(relay, slots, sink))
    hearing = asyncio.create_task(_hear(relay))
    try:
        await asyncio.wait({working, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working  # It ends by an error only: the server starts another process.
        elif await hearing:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await relay.drain()
                    await slots.release()
    finally:
        working.cancel()
        hearing.cancel()
        await asyncio.gather(working, hearing, return_exceptions=True)
        await sink.close()


async def _work(relay: Relay, slots: Slots, sink: EventSink) -> bool:
    await asyncio.gather(relay.run(), slots.run(), _report(relay, sink))
    return False


async def _hear(relay: Relay) -> bool:
    """Passes commits on; True when asked to stop, False when the server is gone."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        told = json.loads(line)
        if told.get("stop"):
            return True
        relay.notify(told["tenant"], told["table"])
    return False


async def _report(relay: Relay, sink: EventSink) -> None:
    while True:
        connected = await sink.connected()
        counts = relay.counts
        report = {
            "connected": connected and not relay.failing,
            "published": counts.published,
            "retries": counts.retries,
            "lag_versions": counts.lag_versions,
            "lag_seconds": counts.lag_seconds,
        }
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
        await asyncio.sleep(REPORT_SECONDS)


if __name__ == "__main__":
    main()
