"""The client's state of a features or sampling run. No I/O happens here."""

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from headrace.backoff import Backoff
from headrace.errors import HeadraceError, InternalError, UnavailableError
from headrace.v1 import run_pb2

Result = TypeVar("Result", run_pb2.FeaturesResult, run_pb2.NegativesResult)

OnRunProgress: TypeAlias = Callable[[run_pb2.RunProgress], None]
"""Called with every progress of a run, on the thread (or loop) of the caller."""


class RunReader(Generic[Result]):
    """Reads the answers of a run, over as many calls as it takes.

    Args:
        kind: What the run's result is.
        on_progress: Called with every progress.
        backoff: How long to wait between calls, and when to give up; None for a run that ends with its call.
    """

    def __init__(
        self, kind: type[Result], on_progress: OnRunProgress | None, backoff: Backoff | None = None
    ) -> None:
        self._kind: type[Result] = kind
        self._on_progress = on_progress
        self._backoff = backoff
        self._result: Result | None = None

    def receive(self, response: run_pb2.ComputeFeaturesResponse | run_pb2.SampleNegativesResponse) -> None:
        """Takes an answer."""
        if self._backoff is not None:
            self._backoff.progressed()
        if response.HasField("progress") and self._on_progress:
            self._on_progress(response.progress)
        elif response.HasField("result") and isinstance(response.result, self._kind):
            self._result = response.result

    def pause_s(self, error: HeadraceError) -> float:
        """How many seconds to wait before the run is called for again.

        Raises:
            HeadraceError: `error`: that is not worth it.
        """
        if self._backoff is None or not isinstance(error, UnavailableError):
            raise error
        delay_s = self._backoff.failed()
        if delay_s is None:
            if self._backoff.patience_s:
                error.add_remark(
                    f"given up after {self._backoff.patience_s:g} s; the run may go on, and a call with the "
                    "same request_id follows it"
                )
            raise error
        return delay_s

    def outcome(self) -> Result:
        """The result, once the call has ended.

        Raises:
            InternalError: There was none.
        """
        if self._result is None:
            raise InternalError("The server ended the run without a result.")
        return self._result
