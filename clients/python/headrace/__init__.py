"""Headrace's SDK: stream interactions and items in, get features and training data out.

    with headrace.Client("127.0.0.1:50051") as client:
        result = client.upload("acme", "interactions", "interactions.csv")
        client.compute_features("acme")
        client.sample_negatives("acme", negative_ratio=4, seed=1)
        table = client.read_table("acme", "training_data")   # a pyarrow.Table

`AsyncClient` has the same methods for asyncio. Every failed call raises a
`HeadraceError`; `headrace.errors` shows the tree. Messages are those of
`headrace.v1`; their fields are documented in the proto files.
"""

from importlib.metadata import version

from headrace.aio import AsyncClient
from headrace.client import Client
from headrace.errors import HeadraceError, UnavailableError
from headrace.transfer import Progress

__version__ = version("headrace")

__all__ = ["AsyncClient", "Client", "HeadraceError", "Progress", "UnavailableError", "__version__"]
