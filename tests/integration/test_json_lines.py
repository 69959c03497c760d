"""JSON lines through a real server: the one rule for all formats, line by line."""

import gzip
import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.dialogue import Dialogue, chunk, cut, finish, flush, header
from harness.phoenix import Phoenix
from harness.streams import csv_bytes, json_lines, zstd

import headrace
from headrace import Client
from headrace.encoding import Format
from headrace.v1 import upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

LINES: dict[str, Any] = {"format": upload_pb2.FORMAT_JSON_LINES}
GZIP: dict[str, Any] = {**LINES, "compression": upload_pb2.COMPRESSION_GZIP}
ZSTD: dict[str, Any] = {**LINES, "compression": upload_pb2.COMPRESSION_ZSTD}

GOOD = {"user_id": "u1", "item_id": "i1", "interaction_type": "view", "timestamp": "2024-01-02"}


def interactions(count: int) -> list[dict[str, Any]]:
    """Distinct interactions, some of them bad in one way or another."""
    rows = []
    for n in range(count):
        row = GOOD | {"user_id": f"u{n % 97}", "item_id": n, "rating": 1 + n % 5}
        rows.append(row | {"rating": True} if n % 101 == 7 else row | {"seen": [n]} if n % 3 else row)
    return rows


def told(report: Any) -> dict[tuple[str, str], int]:
    return {(check.column, check.code): check.failing_rows for check in report.checks}


Told = dict[tuple[str, str], int]


@pytest.mark.parametrize(
    ("data_type", "rows", "accepted", "faults", "warnings"),
    [
        ("interactions", [GOOD | {"rating": True}], 0, {("rating", "BAD_TYPE"): 1}, {}),
        ("items", [{"item_id": "i1", "title": "t", "price": False}], 0, {("price", "BAD_TYPE"): 1}, {}),
        ("interactions", [GOOD | {"session": "s"}], 1, {}, {("UNKNOWN_COLUMN", "session"): 1}),
        ("interactions", [GOOD, GOOD | {"user_id": 7}, GOOD | {"user_id": "u3"}], 3, {}, {}),
        (
            "interactions",
            [GOOD, GOOD | {"timestamp": 964982703}, GOOD | {"rating": "4.5"}, GOOD | {"user_id": 7.5}],
            1,
            {("timestamp", "BAD_TYPE"): 1, ("rating", "BAD_TYPE"): 1, ("user_id", "BAD_TYPE"): 1},
            {},
        ),
    ],
    ids=["a boolean rating", "a boolean price", "an unknown key", "an integer id", "wrong types"],
)
def test_a_bad_value_is_a_reject_and_an_unknown_key_a_warning(
    client: Client,
    tenant: str,
    tmp_path: Path,
    data_type: Any,
    rows: list[dict[str, Any]],
    accepted: int,
    faults: Told,
    warnings: Told,
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(json_lines(rows))
    result = client.upload(tenant, data_type, file)
    assert (result.rows_received, result.rows_accepted) == (len(rows), accepted)
    sample = client.validate_sample(data_type, rows)
    for report in (result.report, client.validate(data_type, file), sample):
        assert told(report) == faults
        seen = {(each.code, each.column): each.count for each in report.warnings if each.code != "ALL_NULL"}
        assert seen == warnings
    if "user_id" in rows[-1] and accepted == 3:
        assert sorted(client.read_table(tenant, "interactions")["user_id"].to_pylist()) == ["7", "u1", "u3"]


@pytest.mark.parametrize("fields", [LINES, GZIP, ZSTD], ids=["plain", "gzip", "zstd"])
def test_hostile_lines_are_rejects_of_those_lines_whatever_the_chunks(
    stub: PipelineServiceStub, client: Client, tenant: str, fields: dict[str, Any]
) -> None:
    good = json.dumps(GOOD).encode()
    odd: list[tuple[bytes, set[tuple[str, str]]]] = [
        (b"[" * 3_000, {("", "BAD_JSON")}),
        (b'{"user_id":' + b"[" * 3_000 + b"]" * 3_000 + b"}", {("", "BAD_JSON")}),
        (good[:-1] + b',"rating":' + b"9" * 400 + b"}", {("rating", "BAD_NUMBER")}),
        (good[:-1] + b',"rating":NaN}', {("rating", "BAD_NUMBER")}),
        (good.replace(b"u1", b"\\ud800"), {("user_id", "BAD_TEXT")}),
        (good.replace(b"u1", b"\xff"), {("user_id", "BAD_TEXT")}),
        (good.replace(b"u1", b"\\u0000"), {("user_id", "BAD_TEXT")}),
        (good.replace(b"u1", b"\0"), {("", "BAD_JSON")}),
        (good.replace(b'"u1"', b"18446744073709551616"), set()),
        (good[:-1] + b',"user_id":"u1"}', {("", "BAD_JSON")}),
        (b"[" + good + b"]", {("", "BAD_JSON")}),
        (good + b"\r", set()),
        (good[:-9], {("", "BAD_JSON")}),
    ]
    stream = b"\xef\xbb\xbf\r\n \n" + b"\n".join(line for line, _ in odd)
    packs: dict[int, Callable[[bytes], bytes]] = {0: bytes, 2: gzip.compress, 3: zstd}
    data = packs[fields.get("compression", 0)](stream)
    pieces = cut(data, *range(1, len(data), 37))
    result = Dialogue(stub, [header(tenant, **fields), *map(chunk, pieces), finish()]).result
    assert (result.rows_received, result.rows_accepted, result.rows_duplicate) == (len(odd), 2, 0)
    found: dict[int, set[tuple[str, str]]] = {}
    for reject in client.list_rejects(tenant, result.upload_id):
        found.setdefault(reject.row_number, set()).add((reject.column, reject.code))
        line = odd[reject.row_number][0]
        assert reject.line == reject.row_number + 3
        assert stream[reject.byte_offset :].startswith(line)
    assert found == {number: faults for number, (_, faults) in enumerate(odd) if faults}
    ids = client.read_table(tenant, "interactions")["user_id"].to_pylist()
    assert sorted(ids) == ["18446744073709551616", "u1"]


def test_unknown_keys_can_fail_the_upload_and_the_line_is_named(
    stub: PipelineServiceStub, tenant: str
) -> None:
    data = json_lines([GOOD] * 3 + [GOOD | {"session": "s"}])
    for fields in (LINES, GZIP):
        opening = header(tenant, unknown_columns=upload_pb2.UNKNOWN_COLUMNS_REJECT, **fields)
        content = data if fields is LINES else gzip.compress(data)
        _, reason, metadata = Dialogue(stub, [opening, chunk(content), finish()]).failure
        assert (reason, metadata["columns"], metadata["line"]) == ("UNKNOWN_COLUMN", "session", "4")


def test_a_line_above_the_limit_fails_the_upload_and_is_named(stub: PipelineServiceStub, tenant: str) -> None:
    data = json_lines([GOOD, GOOD | {"x": "x" * (1 << 20)}])
    _, reason, metadata = Dialogue(stub, [header(tenant, **LINES), chunk(data), finish()]).failure
    assert (reason, metadata["line"]) == ("RECORD_TOO_LARGE", "2")


def test_json_lines_and_csv_of_the_same_rows_give_the_same_table(client: Client, tenant: str) -> None:
    rows = [GOOD | {"item_id": f"i{n % 2000}", "rating": 1 + n % 2000 % 10 / 2} for n in range(5_000)]
    columns = ["user_id", "item_id", "interaction_type", "timestamp", "rating", "row_number"]
    results, tables = [], []
    streams: tuple[tuple[str, Format, bytes], ...] = (
        ("a", "json_lines", json_lines(rows)),
        ("b", "csv", csv_bytes(rows)),
    )
    for suffix, format, data in streams:
        results.append(client.upload(f"{tenant}{suffix}", "interactions", io.BytesIO(data), format=format))
        tables.append(client.read_table(f"{tenant}{suffix}", "interactions", columns=columns))
    assert tables[0].equals(tables[1])
    assert [(each.rows_received, each.rows_accepted) for each in results] == [(5_000, 1_800)] * 2
    assert told(results[0].report)["rating", "OUT_OF_RANGE"] == 500
    assert told(results[0].report) == told(results[1].report)


def test_what_is_not_acknowledged_is_sent_again_from_the_middle_of_a_block(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    rows, upload_id = interactions(3_000), str(uuid.uuid4())
    data = json_lines(rows)
    opening = header(tenant, upload_id=upload_id, **LINES)
    first = Dialogue(stub, [opening, chunk(data[: len(data) // 2]), flush()])
    safe = first.all("ack")[-1].persisted_offset
    # The line that was cut is not acknowledged.
    assert 0 < safe < len(data) // 2
    assert data[:safe].endswith(b"\n")
    again = Dialogue(stub, [opening, chunk(data, offset=0), finish(total_size=len(data))])
    assert again.started.persisted_offset == safe
    assert again.result.rows_received == len(rows)
    assert told(again.result.report) == {("rating", "BAD_TYPE"): 30}
    rejects = list(client.list_rejects(tenant, upload_id))
    assert [reject.row_number for reject in rejects] == list(range(7, 3_000, 101))
    assert all(reject.line == reject.row_number + 1 for reject in rejects)
    table = client.read_table(tenant, "interactions")
    assert sorted(table["row_number"].to_pylist()) == [n for n in range(3_000) if n % 101 != 7]


def test_a_killed_server_goes_on_in_the_middle_of_json_lines(
    phoenix: Phoenix, tenant: str, tmp_path: Path
) -> None:
    rows = interactions(20_000)
    file = tmp_path / "x.ndjson"
    file.write_bytes(json_lines(rows))
    kills = [file.stat().st_size // 3]

    def kill(progress: headrace.Progress) -> None:
        if kills and progress.offset >= kills[0]:
            kills.clear()
            phoenix.kill_and_rise()

    with Client(phoenix.address) as client:
        result = client.upload(tenant, "interactions", file, on_progress=kill)
        table = client.read_table(tenant, "interactions")
    bad = len(range(7, 20_000, 101))
    assert (result.rows_received, result.rows_rejected) == (20_000, bad)
    assert sorted(table["row_number"].to_pylist()) == [n for n in range(20_000) if n % 101 != 7]
    assert not kills
