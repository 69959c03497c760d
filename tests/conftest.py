"""Of all tests: how many examples property tests try, and an end for runs that have only so much time."""

import time

import pytest
from hypothesis import HealthCheck, settings

# Of `make test`: the same examples in each run. Of `make test-all`: more, and others every time.
settings.register_profile(
    "short",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("short"), max_examples=300, derandomize=False)
settings.load_profile("short")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--end-by", type=float, metavar="SECONDS", help="skip tests that would begin later; a Unix time"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    end_by: float | None = item.config.getoption("--end-by")
    if end_by is not None and time.time() > end_by:
        pytest.skip("the time for this run is over")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first: workers that are short of time, or of work at the end, leave the quick ones."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
