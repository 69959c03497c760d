"""Findings merge, survive JSON, and read as reports."""

import json

from headrace_compute.distinct import REGISTERS
from headrace_compute.findings import (
    NAMED_UNKNOWN_COLUMNS,
    SAMPLES,
    CheckFindings,
    ColumnFindings,
    Findings,
    Reject,
    unknown_columns,
)
from headrace_compute.report import END_US, iso_time, report_of, warning_of


def _reject(row_number: int, column: str = "user_id", code: str = "MISSING") -> Reject:
    return Reject(row_number, row_number + 2, 10 * row_number, column, code, "message", "", "raw")


def _findings(first_row: int, rows: int, bad: int, name: str) -> Findings:
    samples = tuple(_reject(first_row + i) for i in range(min(bad, SAMPLES)))
    return Findings(
        received=rows,
        rejected=bad,
        checks={("user_id", "MISSING"): CheckFindings(bad, samples)} if bad else {},
        columns={
            "user_id": ColumnFindings("string", nulls=bad, minimum=name, maximum=name),
            "rating": ColumnFindings("double", minimum=1.5, maximum=2.5, total=float(rows), numbers=rows),
        },
    )


def test_merging_adds_counts_and_keeps_the_first_samples() -> None:
    a, b, c = _findings(0, 100, 15, "b"), _findings(100, 100, 15, "a"), _findings(200, 50, 0, "ä")
    merged = a.merge(b).merge(c)
    assert merged == a.merge(b.merge(c))
    assert (merged.received, merged.accepted, merged.rejected, merged.bad_records) == (250, 220, 30, 30)
    check = merged.checks["user_id", "MISSING"]
    assert check.failing_rows == 30
    assert [sample.row_number for sample in check.samples] == [*range(15), *range(100, 105)]
    assert (merged.columns["user_id"].minimum, merged.columns["user_id"].maximum) == ("a", "ä")
    assert merged.columns["user_id"].nulls == 30
    assert [sample.row_number for sample in merged.first_rejects(3)] == [0, 1, 2]


def test_a_column_without_values_merges_into_one_with_values() -> None:
    empty, full = (
        ColumnFindings("double"),
        ColumnFindings("double", minimum=1.0, maximum=2.0, total=3.0, numbers=2),
    )
    assert empty.merge(full) == full.merge(empty) == full


def test_json_gives_the_same_findings() -> None:
    findings = _findings(0, 100, 15, "é").with_duplicates(2, [_reject(50, "", "DUPLICATE")])
    findings = findings.with_warning("ITEM_REDEFINED", "item_id", 3, ["a", "b"])
    assert Findings.from_json(json.loads(json.dumps(findings.to_json()))) == findings


def test_duplicates_move_rows_from_accepted_to_rejected() -> None:
    findings = _findings(0, 100, 15, "a").with_duplicates(5, [_reject(20, "", "DUPLICATE")])
    assert (findings.accepted, findings.rejected, findings.duplicates, findings.bad_records) == (
        80,
        20,
        5,
        15,
    )
    assert [check.code for check in report_of(findings).checks] == ["MISSING", "DUPLICATE"]


def test_the_report_of_nothing_is_empty() -> None:
    report = report_of(Findings())
    assert (report.rows_received, report.checks, report.columns, report.warnings) == (0, (), (), ())


def test_percentages_are_of_all_rows_and_of_those_with_a_value() -> None:
    findings = Findings(
        received=200,
        rejected=10,
        checks={("rating", "OUT_OF_RANGE"): CheckFindings(10, ())},
        columns={"rating": ColumnFindings("double", nulls=160)},
    )
    (check,) = report_of(findings).checks
    assert (check.percent_of_rows, check.percent_of_non_null) == (5.0, 25.0)


def test_unknown_columns_beyond_a_limit_are_counted_together() -> None:
    findings = Findings()
    for i in range(NAMED_UNKNOWN_COLUMNS + 7):
        findings = findings.with_warning("UNKNOWN_COLUMN", f"c{i:04d}", 2)
    warnings = report_of(findings).warnings
    assert len(warnings) == NAMED_UNKNOWN_COLUMNS + 1
    assert (warnings[0].column, warnings[0].count) == ("", 14)


def test_a_header_of_many_unknown_columns_costs_no_more_than_its_length() -> None:
    warnings = unknown_columns({f"c{i:06d}": 0 for i in range(200_000)})
    assert len(warnings) == NAMED_UNKNOWN_COLUMNS + 1
    assert warnings["UNKNOWN_COLUMN", ""].count == 0


def test_columns_without_a_name_are_one_warning_with_their_places() -> None:
    found = Findings(warnings=unknown_columns({"x": 0}, [1, 7, *range(100, 200)]))
    unknown, unnamed = report_of(found.merge(found)).warnings
    assert (unknown.code, unknown.column) == ("UNKNOWN_COLUMN", "x")
    assert (unnamed.code, unnamed.column, unnamed.count) == ("UNNAMED_COLUMN", "", 0)
    assert unnamed.samples[:3] == ("1", "7", "100")
    assert len(unnamed.samples) == 20
    assert "(places from 1: 1, 7, 100," in unnamed.message


def test_a_key_without_a_name_is_not_the_keys_beyond_the_limit() -> None:
    names = {f"c{i:04d}": 1 for i in range(NAMED_UNKNOWN_COLUMNS + 2)}
    found = Findings(warnings=unknown_columns(names | {"": 3, " \t": 4}))
    warnings = {(each.code, each.column): each for each in report_of(found.merge(found)).warnings}
    assert warnings["UNKNOWN_COLUMN", ""].count == 4
    nameless = warnings["UNNAMED_COLUMN", ""]
    assert (nameless.count, nameless.samples) == (14, ())
    assert nameless.message == "A key without a name was ignored in 14 rows; name it or leave it out."


def test_warnings_speak() -> None:
    for code, column in (
        ("ALL_NULL", "a"),
        ("UNKNOWN_COLUMN", "a"),
        ("UNKNOWN_COLUMN", ""),
        ("UNNAMED_COLUMN", ""),
        ("ITEM_REDEFINED", "a"),
    ):
        assert warning_of(code, column, 2, []).message.endswith(".")
    assert "2 interactions" in warning_of("UNKNOWN_ITEM", "item_id", 2, ["x"]).message


def test_times_are_shown_in_utc() -> None:
    assert iso_time(0) == "1970-01-01T00:00:00Z"
    assert iso_time(-1) == "1969-12-31T23:59:59.999999Z"
    assert iso_time(END_US - 1) == "9999-12-31T23:59:59.999999Z"
    assert iso_time(END_US) == "9999-12-31T23:59:59.999999999Z"


def test_an_empty_sketch_has_all_registers() -> None:
    assert len(ColumnFindings("string").sketch) == REGISTERS
