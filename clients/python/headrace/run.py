"""The client's state of a features or sampling run. No I/O happens here."""

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from headrace.errors import InternalError
from headrace.v1 import run_pb2

Result = TypeVar("Result", run_pb2.FeaturesResult, run_pb2.NegativesResult)

OnRunProgress: TypeAlias = Callable[[run_pb2.RunProgress], None]
"""Called with every progress of a run, on the thread (or loop) of the caller."""


class RunReader(Generic[Result]):
    """Reads the answers of a run.

    Args:
        kind: What the run's result is.
        on_progress: Called with every progress.
    """

    def __init__(self, kind: type[Result], on_progress: OnRunProgress | None) -> None:
        self._kind: type[Result] = kind
        self._on_progress = on_progress
        self._result: Result | None = None

    def receive(self, response: run_pb2.ComputeFeaturesResponse | run_pb2.SampleNegativesResponse) -> None:
        """Takes an answer."""
        if response.HasField("progress") and self._on_progress:
            self._on_progress(response.progress)
        elif response.HasField("result") and isinstance(response.result, self._kind):
            self._result = response.result

    def outcome(self) -> Result:
        """The result, once the call has ended.

        Raises:
            InternalError: There was none.
        """
        if self._result is None:
            raise InternalError("The server ended the run without a result.")
        return self._result
