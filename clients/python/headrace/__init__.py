"""Headrace's SDK: stream interactions and items in, get features and training data out.

    with headrace.Client("127.0.0.1:50051") as client:
        result = client.upload("acme", "interactions", "interactions.csv")
        client.compute_features("acme")
        client.sample_negatives("acme", negative_ratio=4, seed=1)
        table = client.read_table("acme", "training_data")   # a pyarrow.Table

`AsyncClient` has the same methods for asyncio. Every failed call raises a
`HeadraceError`; `headrace.errors` shows the tree. Messages are those of
`headrace.v1`; their fields are documented in the proto files.

What is named here is imported when it is first used, so that importing the package,
or the messages alone, costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.aio import AsyncClient
    from headrace.client import Client
    from headrace.connection import Tls
    from headrace.enums import (
        Compression,
        ErrorReason,
        Format,
        Outcome,
        Policy,
        RunState,
        UnknownColumns,
        UploadState,
    )
    from headrace.errors import (
        BadDataError,
        CommitContendedError,
        ComputeUnavailableError,
        DataLossError,
        DrainingError,
        ExhaustedError,
        FencedError,
        HeadraceError,
        IdInUseError,
        InputGoneError,
        InternalError,
        InvalidArgumentError,
        NoInteractionsError,
        NoPositivesError,
        NotDerivableError,
        NotFoundError,
        OffsetGapError,
        OverloadedError,
        PartLostError,
        PermissionDeniedError,
        PoisonBlockError,
        PreconditionError,
        RunCancelledError,
        RunFinishedError,
        RunNotFoundError,
        StatisticsNotFoundError,
        StoreDeniedError,
        StoreFullError,
        StoreUnavailableError,
        SuspendedError,
        TableNotFoundError,
        UnauthenticatedError,
        UnavailableError,
        UnsupportedError,
        UploadClosedError,
        UploadFinishedError,
        UploadNotFoundError,
        UploadOpenError,
        VersionNotFoundError,
        WrongTableKindError,
    )
    from headrace.extras import MissingExtraError
    from headrace.retry import Retry
    from headrace.transfer import Progress

    __version__: str

_HOMES = {
    "AsyncClient": "aio",
    "Client": "client",
    "Tls": "connection",
    "MissingExtraError": "extras",
    "Retry": "retry",
    "Progress": "transfer",
    **dict.fromkeys(
        (
            "Compression",
            "ErrorReason",
            "Format",
            "Outcome",
            "Policy",
            "RunState",
            "UnknownColumns",
            "UploadState",
        ),
        "enums",
    ),
}
"""The module of each name that is not an error of `headrace.errors`."""

__all__ = [
    "AsyncClient",
    "BadDataError",
    "Client",
    "CommitContendedError",
    "Compression",
    "ComputeUnavailableError",
    "DataLossError",
    "DrainingError",
    "ErrorReason",
    "ExhaustedError",
    "FencedError",
    "Format",
    "HeadraceError",
    "IdInUseError",
    "InputGoneError",
    "InternalError",
    "InvalidArgumentError",
    "MissingExtraError",
    "NoInteractionsError",
    "NoPositivesError",
    "NotDerivableError",
    "NotFoundError",
    "OffsetGapError",
    "Outcome",
    "OverloadedError",
    "PartLostError",
    "PermissionDeniedError",
    "PoisonBlockError",
    "Policy",
    "PreconditionError",
    "Progress",
    "Retry",
    "RunCancelledError",
    "RunFinishedError",
    "RunNotFoundError",
    "RunState",
    "StatisticsNotFoundError",
    "StoreDeniedError",
    "StoreFullError",
    "StoreUnavailableError",
    "SuspendedError",
    "TableNotFoundError",
    "Tls",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownColumns",
    "UnsupportedError",
    "UploadClosedError",
    "UploadFinishedError",
    "UploadNotFoundError",
    "UploadOpenError",
    "UploadState",
    "VersionNotFoundError",
    "WrongTableKindError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        found: Any = import_module("importlib.metadata").version(__name__)
    else:
        found = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
