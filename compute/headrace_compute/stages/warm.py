"""Loading, ahead of the first call, the libraries that stages load when they need them."""

from headrace_compute.schemas.contract import describe
from headrace_compute.stages.duck import Duck


def load() -> None:
    """Loads pandera with Polars, and DuckDB."""
    describe("interactions")
    describe("items")
    with Duck({}):
        pass
