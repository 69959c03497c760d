"""The checks that the schemas are made of.

A check's name is the code that a row breaking it is rejected with, its
description the rule as GetSchema gives it, its error what a reject's message
says behind the column and the value.
"""

from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData

from headrace_compute.kernels.text import Look

FAILURE_CASES = 1
"""Values pandera collects of a failing check; we read its row by row outcome instead."""


def max_bytes(limit: int) -> pa.Check:
    """At most `limit` bytes of UTF-8."""
    return _check(
        _within_bytes,
        name="TOO_LONG",
        description=f"At most {limit:,} bytes of UTF-8.",
        error=f"has more than {limit:,} bytes; shorten it.",
        statistics={"max_bytes": limit},
        max_bytes=limit,
    )


def no_control_characters() -> pa.Check:
    """No character of Unicode category Cc."""
    return _check(
        _without_control_characters,
        name="BAD_TEXT",
        description="No control characters (U+0000 to U+001F, U+007F to U+009F).",
        error="has control characters; remove them.",
    )


def one_of(values: tuple[str, ...]) -> pa.Check:
    """One of the values."""
    listed = ", ".join(values)
    return pa.Check.isin(
        list(values),
        name="NOT_IN_SET",
        description=f"One of {listed}; case-sensitive.",
        error=f"is not one of {listed}; map it to one of them or leave the row out.",
        n_failure_cases=FAILURE_CASES,
    )


def between(minimum: float, maximum: float) -> pa.Check:
    """From `minimum` to `maximum`, both included."""
    return pa.Check.in_range(
        minimum,
        maximum,
        name="OUT_OF_RANGE",
        description=f"From {minimum:g} to {maximum:g}.",
        error=f"is not from {minimum:g} to {maximum:g}; rescale it or leave it empty.",
        n_failure_cases=FAILURE_CASES,
    )


def at_least(minimum: float) -> pa.Check:
    """`minimum` or more."""
    return pa.Check.greater_than_or_equal_to(
        minimum,
        name="OUT_OF_RANGE",
        description=f"{minimum:g} or more.",
        error=f"is below {minimum:g}; correct it or leave it empty.",
        n_failure_cases=FAILURE_CASES,
    )


def not_after(latest_us: int, latest: str) -> pa.Check:
    """No later than `latest_us`, microseconds since the epoch, `latest` as text."""
    return _check(
        _not_after,
        name="FUTURE_TIMESTAMP",
        description="No later than the upload's start plus max_future_skew (default 1 day).",
        error=f"is later than {latest}; correct the clock or raise max_future_skew.",
        latest_us=latest_us,
    )


def surely_holds(check: pa.Check, texts: Look) -> np.ndarray:
    """Whether a scan of a text's bytes already shows that a check holds: bool.

    A fast path, never another rule: wherever it is true the check must hold too.
    """
    if check.name == "TOO_LONG":
        short: np.ndarray = texts.nbytes <= (check.statistics or {})["max_bytes"]
        return short
    return texts.printable if check.name == "BAD_TEXT" else np.zeros(texts.printable.size, np.bool_)


def _check(function: Any, **settings: Any) -> pa.Check:
    return pa.Check(function, n_failure_cases=FAILURE_CASES, **settings)


def _within_bytes(data: PolarsData, max_bytes: int) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col(data.key).str.len_bytes() <= max_bytes)


def _without_control_characters(data: PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(~pl.col(data.key).str.contains(r"\p{Cc}"))


def _not_after(data: PolarsData, latest_us: int) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col(data.key).to_physical() <= latest_us)
