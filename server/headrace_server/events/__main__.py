"""The relay's process: `python -m headrace_server.events`, started by the server.

It reads its configuration from standard input, then a line for each commit of the
server. It reports on standard output, one line a second. It exits when standard input
ends, since its server is gone then.
"""

import asyncio
import json
import sys
from contextlib import suppress

from headrace_compute.heap import bound_heap
from headrace_server.events.cursors import Cursors
from headrace_server.events.kafka import KafkaSink
from headrace_server.events.local import LocalSink
from headrace_server.events.relay import Relay
from headrace_server.events.relay_config import RelayConfig, read_relay_config
from headrace_server.events.sink import EventSink
from headrace_server.events.slots import AllSlots, LeasedSlots, Slots
from headrace_server.logs import configure_logs

REPORT_SECONDS = 1.0
STOP_SECONDS = 8.0
"""How long publishing may go on after the server stops."""


def main() -> None:
    """Relays until standard input ends or asks to stop."""
    config = read_relay_config(sys.stdin.fileno())
    configure_logs(config.log_level, config.service_name)
    bound_heap()
    with suppress(KeyboardInterrupt):  # Ctrl-C reaches the server too, which then stops us.
        asyncio.run(_relay(config))


async def _relay(config: RelayConfig) -> None:
    sink: EventSink
    if config.kafka is None:
        sink, name = LocalSink(config.folder), "local"
    else:
        sink, name = KafkaSink(config.kafka), "kafka"
    shared = config.store.s3 is not None
    slots: Slots = LeasedSlots(config.store, name, config.owner) if shared else AllSlots()
    relay = Relay(config.store, sink, Cursors(config.store, name), slots, config.options)
    working = asyncio.create_task(_work(relay, slots, sink))
    listening = asyncio.create_task(_listen(relay))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working  # It ends by an error only: the server starts another process.
        elif await listening:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await relay.drain()
                    await slots.release()
    finally:
        working.cancel()
        listening.cancel()
        await asyncio.gather(working, listening, return_exceptions=True)
        await sink.close()


async def _work(relay: Relay, slots: Slots, sink: EventSink) -> bool:
    await asyncio.gather(relay.run(), _report(relay, slots, sink))
    return False


async def _listen(relay: Relay) -> bool:
    """Passes commits on; True when asked to stop, False when the server is gone."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        message = json.loads(line)
        if message.get("stop"):
            return True
        relay.notify(message["tenant"], message["table"])
    return False


async def _report(relay: Relay, slots: Slots, sink: EventSink) -> None:
    while True:
        connected = await sink.connected()
        counts = relay.counts
        report = {
            "connected": connected and not relay.failing,
            "published": counts.published,
            "retries": counts.retries,
            "lag_versions": counts.lag_versions,
            "lag_seconds": counts.lag_seconds,
            "slots_owned": slots.owned,
            "slots_unowned": slots.unowned,
        }
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
        await asyncio.sleep(REPORT_SECONDS)


if __name__ == "__main__":
    main()
