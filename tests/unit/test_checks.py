"""The way round a check against the check itself."""

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandera.api.polars.types import PolarsData

from headrace_compute.kernels.text import look_at
from headrace_compute.model import DataType
from headrace_compute.schemas.checks import surely_holds
from headrace_compute.schemas.contract import schema_of

TEXTS = ("user_id", "item_id", "title", "category", "brand", "description")


@pytest.mark.parametrize("data_type", ["interactions", "items"])
@given(st.lists(st.text(max_size=5) | st.text("a~ \x1f\x7f\x80é", max_size=300) | st.none(), max_size=5))
def test_what_surely_holds_for_a_column_holds_for_each_text(
    data_type: DataType, values: list[str | None]
) -> None:
    array = pa.array(values, pa.string())
    texts = look_at(array)
    frame = pl.DataFrame({"text": pl.Series(values, dtype=pl.String)}).lazy()
    for name, column in schema_of(data_type, 0).columns.items():
        if name in TEXTS:
            for check in column.checks:
                outcome = check._check_fn(PolarsData(frame, "text"), **check._check_kwargs).collect()  # noqa: SLF001
                holds = outcome.to_series().fill_null(True).to_numpy()
                assert holds[surely_holds(check, texts)].all()


def test_a_look_tells_the_bytes_of_each_text_and_whether_they_are_printable() -> None:
    values = ["ab", None, "~ ", "é", "a\x1f", "\x7f", "a" * 30, "a" * 30 + "\x1f"]
    for first in range(len(values)):
        texts = look_at(pa.array(values, pa.string()).slice(first))
        assert texts.nbytes.tolist() == [2, 0, 2, 2, 2, 1, 30, 31][first:]
        assert texts.printable.tolist() == [True, True, True, False, False, False, True, False][first:]
