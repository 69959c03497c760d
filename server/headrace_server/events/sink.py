"""The interface of event sinks: Kafka, or a local log."""

from typing import Protocol

from headrace_server.events.batch import EventBatch


class UndeliveredError(Exception):
    """Events may not have arrived; publish them again. The message says what failed, without secrets."""


class EventSink(Protocol):
    """Takes events at least once, in order for each key.

    Sinks are used from one task: nothing is called while `publish` runs but `connected`.
    """

    async def publish(self, topic: str, events: EventBatch) -> None:
        """Returns once every event of the batch survives the loss of this process.

        Events of a batch that raised may or may not have arrived; a sink that raised
        is ready to be used again, however broken its connection was.

        Raises:
            UndeliveredError: Delivery failed, or took too long.
        """

    async def connected(self) -> bool:
        """Whether events can be delivered now; asks, and answers within two seconds."""

    async def close(self) -> None:
        """Gives up its connections."""
