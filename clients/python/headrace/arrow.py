"""Reads tables sent as Arrow IPC streams, each complete in itself."""

from collections.abc import Iterator

import pyarrow as pa

from headrace.v1 import table_pb2


class ArrowReader:
    """Turns the answers of a read into record batches of one schema.

    Attributes:
        started: What is read; None before the first answer.
        schema: Of the rows; None before the first rows.
    """

    def __init__(self) -> None:
        self.started: table_pb2.ReadTableStarted | None = None
        self.schema: pa.Schema | None = None

    def receive(self, response: table_pb2.ReadTableResponse) -> Iterator[pa.RecordBatch]:
        """The batches of one answer; possibly none."""
        if response.WhichOneof("response") == "started":
            self.started = response.started
        elif response.WhichOneof("response") == "arrow_ipc":
            with pa.ipc.open_stream(response.arrow_ipc) as stream:
                self.schema = self.schema or stream.schema
                yield from stream

    def empty(self) -> pa.RecordBatch:
        """A batch of no rows, for a read that gave none."""
        columns = self.started.columns if self.started else []
        schema = self.schema or pa.schema([(column, pa.null()) for column in columns])
        return pa.RecordBatch.from_pylist([], schema=schema)
