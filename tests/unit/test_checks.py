"""The way round a check against the check itself."""

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandera.api.polars.types import PolarsData

from headrace_compute.kernels.text import look_at
from headrace_compute.model import DataType
from headrace_compute.schemas.checks import surely_holds
from headrace_compute.schemas.contract import schema_of

TEXTS = ("user_id", "item_id", "title", "category", "brand", "description")


@pytest.mark.parametrize("data_type", ["interactions", "items"])
@given(st.lists(st.text(max_size=5) | st.text("a~ \x1f\x7f\x80é", max_size=300) | st.none(), max_size=5))
@settings(max_examples=100, deadline=None)
def test_what_surely_holds_for_a_column_holds_for_each_text(
    data_type: DataType, values: list[str | None]
) -> None:
    array = pa.array(values, pa.string())
    texts = look_at(array)
    frame = pl.DataFrame({"text": pl.Series(values, dtype=pl.String)}).lazy()
    for name, column in schema_of(data_type, 0).columns.items():
        if name in TEXTS:
            for check in column.checks:
                outcome = check._check_fn(PolarsData(frame, "text"), **check._check_kwargs).collect()
                assert not surely_holds(check, texts) or outcome.to_series().fill_null(True).all()


def test_a_look_tells_the_longest_text_in_bytes_and_whether_all_is_printable() -> None:
    assert (look_at(pa.array(["ab", None, "~ "])).longest, look_at(pa.array(["ab", "~ "])).printable) == (
        2,
        True,
    )
    assert (look_at(pa.array(["é", "a"])).longest, look_at(pa.array(["é"])).printable) == (2, False)
    assert not look_at(pa.array(["a\x1f"])).printable
    assert not look_at(pa.array(["a\x7f"])).printable
    assert look_at(pa.array(["\x1fa", "b"]).slice(1)).printable
    assert look_at(pa.array([], pa.string())).longest == 0
