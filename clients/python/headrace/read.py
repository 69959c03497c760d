"""The client's state of a read of a table, over as many calls as it takes. No I/O happens here."""

from collections.abc import Iterator

from headrace.arrow import pa
from headrace.backoff import PATIENCE_S, Backoff
from headrace.errors import HeadraceError, OverloadedError, UnavailableError
from headrace.v1 import table_pb2


class TableReader:
    """Turns the answers of a read, Arrow IPC streams each complete in itself, into batches of one schema.

    A read that breaks goes on behind the last row that came, in the version that it began with.

    Args:
        question: What is read.
        patience_s: Seconds without a row after which it is given up. 0 = it is not tried again.
        is_known: Whether the server has answered others. A read that nobody answers is not tried again
            otherwise: most often the address is wrong.

    Attributes:
        started: What is read; None before the first answer.
        schema: Of the rows; None before the first rows.
    """

    def __init__(
        self, question: table_pb2.ReadTableRequest, patience_s: float = PATIENCE_S, *, is_known: bool = False
    ) -> None:
        self.started: table_pb2.ReadTableStarted | None = None
        self.schema: pa.Schema | None = None
        self._question = table_pb2.ReadTableRequest()
        self._question.CopyFrom(question)
        self._left = question.limit or None
        self._is_known = is_known
        self._backoff = Backoff(patience_s)

    @property
    def is_whole(self) -> bool:
        """Whether all rows that there may be have come."""
        return self._left == 0

    def question(self) -> table_pb2.ReadTableRequest:
        """What to ask for: what has not come yet."""
        return self._question

    def receive(self, response: table_pb2.ReadTableResponse) -> Iterator[pa.RecordBatch]:
        """The batches of one answer; possibly none."""
        if response.WhichOneof("response") == "started":
            self.started = self.started or response.started
            self._question.version = response.started.version
        elif response.WhichOneof("response") == "arrow_ipc":
            with pa.ipc.open_stream(response.arrow_ipc) as stream:
                self.schema = self.schema or stream.schema
                for batch in stream:
                    self._advance(batch.num_rows)
                    yield batch

    def pause_s(self, error: HeadraceError) -> float:
        """How many seconds to wait before the rest is asked for.

        Raises:
            HeadraceError: `error`: that is not worth it.
        """
        is_known = self._is_known or self.started is not None
        if not is_known or not isinstance(error, UnavailableError | OverloadedError):
            raise error
        delay_s = self._backoff.failed()
        if delay_s is None:
            if self._backoff.patience_s:
                error.add_remark(
                    f"given up after {self._backoff.patience_s:g} s, at row {self._question.offset:,}"
                )
            raise error
        return delay_s

    def empty(self) -> pa.RecordBatch:
        """A batch of no rows, for a read that gave none."""
        columns = self.started.columns if self.started else []
        schema = self.schema or pa.schema([(column, pa.null()) for column in columns])
        return pa.RecordBatch.from_pylist([], schema=schema)

    def _advance(self, rows: int) -> None:
        self._backoff.progressed()
        self._question.offset += rows
        if self._left is not None:
            self._left = self._question.limit = self._left - rows
