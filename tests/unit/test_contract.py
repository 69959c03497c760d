"""The contract as GetSchema describes it, and header lines held against it."""

import pytest

from headrace_compute.errors import (
    BadEncodingError,
    DuplicateColumnError,
    MissingColumnError,
    NoHeaderError,
    UnknownColumnError,
)
from headrace_compute.formats.header import check_header
from headrace_compute.model import DataType, StoreConfig
from headrace_compute.schemas.contract import describe

CONFIG = StoreConfig(root="/nowhere")
INTERACTIONS = b"user_id,item_id,interaction_type,timestamp,rating"


def _check(
    header: bytes, reject_unknown: bool = False, data_type: DataType = "interactions"
) -> tuple[str, ...]:
    return check_header(CONFIG, data_type, header, reject_unknown)


def test_interactions_are_described_as_semantics_says() -> None:
    description = describe("interactions")
    columns = {column.name: column for column in description.columns}
    assert [(column.name, column.type, column.required) for column in description.columns] == [
        ("user_id", "string", True),
        ("item_id", "string", True),
        ("interaction_type", "string", True),
        ("timestamp", "timestamp", True),
        ("rating", "double", False),
    ]
    assert columns["user_id"].max_bytes == columns["item_id"].max_bytes == 256
    assert columns["interaction_type"].allowed_values == ("view", "click", "purchase", "like", "add_to_cart")
    assert (columns["rating"].minimum, columns["rating"].maximum, columns["rating"].max_bytes) == (
        1.0,
        5.0,
        None,
    )
    codes = {name: {rule.code for rule in column.rules} for name, column in columns.items()}
    assert codes == {
        "user_id": {"MISSING", "TOO_LONG", "BAD_TEXT", "BAD_TYPE"},
        "item_id": {"MISSING", "TOO_LONG", "BAD_TEXT", "BAD_TYPE"},
        "interaction_type": {"MISSING", "NOT_IN_SET", "BAD_TEXT", "BAD_TYPE"},
        "timestamp": {"MISSING", "BAD_TIMESTAMP", "FUTURE_TIMESTAMP", "BAD_TYPE"},
        "rating": {"BAD_NUMBER", "OUT_OF_RANGE", "BAD_TYPE"},
    }
    assert [rule.code for rule in description.rules] == [
        "WRONG_FIELD_COUNT",
        "BAD_QUOTE",
        "BAD_JSON",
        "DUPLICATE",
    ]


def test_items_are_described_as_semantics_says() -> None:
    assert [
        (column.name, column.type, column.required, column.minimum, column.max_bytes)
        for column in describe("items").columns
    ] == [
        ("item_id", "string", True, None, 256),
        ("title", "string", True, None, 1024),
        ("category", "string", False, None, 256),
        ("price", "double", False, 0.0, None),
        ("brand", "string", False, None, 256),
        ("description", "string", False, None, 16384),
    ]


@pytest.mark.parametrize("data_type", ["interactions", "items"])
def test_everything_is_described_in_words(data_type: DataType) -> None:
    for column in describe(data_type).columns:
        assert column.description.endswith(".")
        assert all(rule.description.endswith(".") for rule in column.rules)


def test_a_header_gives_its_columns_in_order() -> None:
    assert _check(INTERACTIONS) == ("user_id", "item_id", "interaction_type", "timestamp", "rating")
    assert _check(b'"timestamp",x,"item_id","user_id","interaction_type"') == (
        *("timestamp", "x", "item_id", "user_id", "interaction_type"),
    )


def test_spaces_around_names_are_named() -> None:
    with pytest.raises(MissingColumnError, match="remove the spaces around names, as in ' item_id'"):
        _check(b"user_id, item_id, interaction_type, timestamp")


def test_no_header() -> None:
    with pytest.raises(NoHeaderError):
        _check(b"")


def test_missing_columns_are_named() -> None:
    with pytest.raises(MissingColumnError) as caught:
        _check(b"User_ID,item_id, timestamp,interaction_type")
    assert caught.value.attributes == {"columns": "user_id,timestamp"}


def test_a_column_of_the_contract_named_twice_is_refused() -> None:
    with pytest.raises(DuplicateColumnError) as caught:
        _check(INTERACTIONS + b",x,user_id,x")
    assert caught.value.attributes == {"columns": "user_id"}


@pytest.mark.parametrize(
    "header", [INTERACTIONS + b",x,x", INTERACTIONS + b",,", b"," + INTERACTIONS + b', ,""']
)
def test_columns_outside_the_contract_may_be_named_twice_or_not_at_all(header: bytes) -> None:
    assert len(_check(header)) == header.count(b",") + 1
    with pytest.raises(UnknownColumnError):
        _check(header, reject_unknown=True)


def test_a_refused_column_without_a_name_is_told_by_its_place() -> None:
    with pytest.raises(UnknownColumnError, match=r"has x, column 1 without a name, column 7 without"):
        _check(b"," + INTERACTIONS + b",,x", reject_unknown=True)


@pytest.mark.parametrize("header", [b" , ,\t", b",,"])
def test_a_header_without_names_is_shown_by_its_places(header: bytes) -> None:
    shown = r"\(column 1 without a name, column 2 without a name, column 3 without a name\) lacks user_id"
    with pytest.raises(MissingColumnError, match=shown):
        _check(header)


NAMES = ("user_id", "item_id", "interaction_type", "timestamp")


@pytest.mark.parametrize(
    ("delimiter", "called"),
    [("\t", "tabs"), (";", "semicolons"), ("|", "bars"), ("::", "double colons"), ("\x01", r"U\+0001")],
)
def test_a_header_split_by_another_delimiter_is_told_so(delimiter: str, called: str) -> None:
    for header in (NAMES, [f'"{name}"' for name in NAMES], [*NAMES, "a,b"], ("userId", "movieId", "tag")):
        with pytest.raises(MissingColumnError, match=f"separated by {called}.* convert the file to commas"):
            _check(delimiter.join(header).encode())


@pytest.mark.parametrize("line", [b"sep=,", b"sep=;", b'"sep=\t"', b"SEP=|"])
def test_a_line_for_spreadsheets_is_no_header(line: bytes) -> None:
    with pytest.raises(MissingColumnError, match="tells spreadsheets the delimiter, so remove it") as caught:
        _check(line)
    assert ("to commas" in caught.value.message) == (line != b"sep=,")


def test_a_header_of_commas_is_told_nothing_of_delimiters() -> None:
    with pytest.raises(MissingColumnError, match="case-sensitive"):
        _check(b"User;Id,a|b|c,timestamp")


def test_unknown_columns_are_refused_on_request_only() -> None:
    header = INTERACTIONS + b",colour"
    assert _check(header)[-1] == "colour"
    with pytest.raises(UnknownColumnError) as caught:
        _check(header, reject_unknown=True)
    assert caught.value.attributes == {"columns": "colour"}


def test_a_header_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadEncodingError):
        _check(INTERACTIONS + b",gr\xf6sse")


def test_errors_stay_small_whatever_the_header() -> None:
    header = b",".join(b"column_%d_%s" % (i, b"x" * 100) for i in range(1000))
    with pytest.raises(MissingColumnError) as caught:
        _check(header)
    assert len(caught.value.message) + len(str(caught.value.attributes)) < 2500
