"""The REST gateway before a real server: its documentation line by line, bad rows, faults and harm."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from brokers.certificate import write_certificate
from brokers.tools import find_tool
from harness.phoenix import Phoenix
from harness.server import Server

import headrace
from doors.front import TlsFront, auth_front
from doors.gateway import (
    BOUNDARY,
    FOLDER,
    FORM,
    REMEDY,
    Gateway,
    build,
    form_around,
    gateway,
    take,
    upload_path,
)
from doors.languages import ROOT, toolchain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HEADER = b"user_id,item_id,interaction_type,timestamp,rating\n"
BLOCK = re.compile(r"```(sh|json)\n(.*?)```", re.DOTALL)
ROWS = 60_000
SCHEMATHESIS = "schemathesis==4.32.5"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,unsupported_method,"
    "response_headers_conformance,response_schema_conformance"
)
HEAD, TAIL = form_around("file")
TYPE = f"Content-Type: {FORM}"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with toolchain("go"):
        return build(tmp_path_factory.mktemp("gateway"))


@pytest.fixture(scope="module")
def door(program: Path, server: Server) -> Iterator[Gateway]:
    with gateway(program, server.address) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def door_with(program: Path, server: Server) -> Iterator[Callable[..., Gateway]]:
    """A gateway with settings of the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(gateway(program, server.address, **settings))


def rows(count: int, first: int = 0) -> bytes:
    return b"".join(
        b"user-%d,item-%d,view,2026-01-31T00:00:00Z,4.5\n" % (n % 1000, n)
        for n in range(first, first + count)
    )


def stored(address: str, tenant: str) -> list[str]:
    with headrace.Client(address) as client:
        return sorted(client.read_table(tenant, "interactions", columns=["item_id"])["item_id"].to_pylist())


def tables(address: str, tenant: str) -> list[str]:
    with headrace.Client(address) as client:
        return [table.name for table in client.list_tables(tenant)]


def until(holds: Callable[[], bool]) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def until_persisted(door: Gateway, tenant: str, upload_id: str) -> None:
    """Waits until part of an upload survives any crash."""
    path = f"/v1/tenants/{tenant}/uploads/{upload_id}"
    until(lambda: bool(door.ask("GET", path).json.get("persisted_offset")))


def matches(expected: Any, given: Any) -> bool:
    """Whether a JSON value has the keys, beginnings of lists and texts (… is any) expected of it."""
    match expected:
        case dict():
            return isinstance(given, dict) and all(
                key in given and matches(value, given[key]) for key, value in expected.items()
            )
        case [] | None:
            return bool(given == expected)
        case list():
            return len(expected) <= len(given) and all(map(matches, expected, given))
        case str():
            pattern = ".*".join(map(re.escape, expected.split("…")))
            return isinstance(given, str) and re.fullmatch(pattern, given, re.DOTALL) is not None
    return bool(given == expected)


def test_the_lines_of_the_documentation_do_what_they_say(door: Gateway, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "rest.md").read_text())
    assert [kind for kind, _ in blocks].count("json") > 10
    printed = ""
    for kind, text in blocks:
        if kind == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"HEADRACE={door.url}\n{text}"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (text, done.stdout, done.stderr)
            printed = done.stdout
        else:
            answer = json.loads(printed.strip().splitlines()[-1])
            assert matches(json.loads(text), answer), (text, printed)
    arrows = pa.ipc.open_stream((tmp_path / "user_features.arrows").read_bytes()).read_all()
    assert sorted(arrows["user_id"].to_pylist()) == ["u1", "u2", "u3"]


def test_a_value_of_a_wrong_type_rejects_its_row_and_an_unknown_key_warns(
    door: Gateway, server: Server, tenant: str
) -> None:
    row = {"user_id": "u1", "item_id": "i1", "interaction_type": "view", "timestamp": "2026-01-31"}
    sent = [
        row,
        row | {"item_id": "i2", "rating": "five"},
        row | {"item_id": "i3", "rating": [4]},
        row | {"item_id": "i4", "colour": {"a": 1}},
        row | {"item_id": 9007199254740993},
    ]
    answer = door.ask("POST", f"/internal/data/interactions?tenant_id={tenant}", sent)
    assert answer.status == 200
    body = answer.json
    assert (body["status"], body["rows_accepted"], body["rows_rejected"]) == ("partial", 3, 2)
    assert [(e["row"], e["line"], e["column"], e["code"]) for e in body["validation_errors"]] == [
        (1, None, "rating", "BAD_TYPE"),
        (2, None, "rating", "BAD_TYPE"),
    ]
    assert [(w["code"], w["column"], w["count"]) for w in body["warnings"]] == [
        ("UNKNOWN_COLUMN", "colour", 1)
    ]
    assert stored(server.address, tenant) == ["9007199254740993", "i1", "i4"]


@pytest.mark.parametrize(
    "body", [b'{"user_id": "u1"}', b"[1]", b"[{}] [", b"[{", b"[" * 100_000, b"", b"\xff"]
)
def test_a_body_that_is_no_array_of_objects_is_refused(door: Gateway, tenant: str, body: bytes) -> None:
    answer = door.ask("POST", f"/internal/data/interactions?tenant_id={tenant}", body)
    assert answer.error == (400, "INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert door.ask("GET", "/health").status == 200


@pytest.mark.parametrize(("good", "status"), [(10, "partial"), (0, "failed")])
def test_a_hundred_thousand_bad_rows_are_counted_and_a_hundred_are_shown(
    door: Gateway, tenant: str, good: int, status: str
) -> None:
    bad = b"u1,i1,view,2026-01-31,five\n"
    answer = door.upload(HEADER + bad * 60_000 + rows(good) + bad * 40_000, tenant_id=tenant)
    assert answer.status == 200
    body = answer.json
    assert (body["status"], body["rows_accepted"], body["rows_rejected"]) == (status, good, 100_000)
    shown = body["validation_errors"]
    assert [(e["row"], e["line"], e["code"]) for e in shown] == [(n, n + 2, "BAD_NUMBER") for n in range(100)]
    listed = door.ask("GET", f"/v1/tenants/{tenant}/uploads/{body['upload_id']}/rejects?limit=5000")
    assert [reject["row_number"] for reject in listed.lines] == list(range(5000))


def test_what_is_compressed_is_told_by_its_first_bytes(door: Gateway, server: Server, tenant: str) -> None:
    answer = door.upload(gzip.compress(HEADER + rows(1000)), tenant_id=tenant)
    assert (answer.json["status"], answer.json["rows_accepted"]) == ("success", 1000)
    assert len(stored(server.address, tenant)) == 1000


def test_a_connection_is_as_good_as_new_after_an_upload(door: Gateway, tenant: str) -> None:
    connection = door.connect()
    for content in (HEADER + rows(10), b"user_id\nu1\n"):
        connection.request(
            "POST", upload_path(tenant_id=tenant), HEAD + content + TAIL, {"Content-Type": FORM}
        )
        take(connection)
        for _ in range(20):
            connection.request("GET", f"/v1/tenants/{tenant}/tables")
            assert len(take(connection).json["tables"]) == 1
    connection.close()


def raw(door: Gateway, request: bytes) -> bytes:
    """Sends bytes and returns the first ones of the answer."""
    with socket.create_connection((door.host, door.port), timeout=30) as connection:
        # What is sent to a gateway that has answered already may be refused.
        with contextlib.suppress(OSError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(4096)


def request_of(tenant: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    path = upload_path(tenant_id=tenant)
    size = len(body) if length is None else length
    return (
        "\r\n".join(
            [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers, "", ""]
        ).encode()
        + body
    )


FILE = HEADER + rows(10)
HOSTILE = {
    "no boundary": (FILE, ["Content-Type: multipart/form-data"], None, b"400"),
    "another boundary": (
        HEAD + FILE + TAIL,
        ["Content-Type: multipart/form-data; boundary=other"],
        None,
        b"400",
    ),
    "no form": (FILE, ["Content-Type: text/csv"], None, b"415"),
    "no type": (FILE, [], None, b"415"),
    "two files": (
        HEAD + FILE + f"\r\n--{BOUNDARY}\r\n".encode() + HEAD.split(b"\r\n", 1)[1] + FILE + TAIL,
        [TYPE],
        None,
        b"400",
    ),
    "another name": (form_around("data")[0] + FILE + TAIL, [TYPE], None, b"400"),
    "no name": (
        f"--{BOUNDARY}\r\nContent-Type: text/csv\r\n\r\n".encode() + FILE + TAIL,
        [TYPE],
        None,
        b"400",
    ),
    "no end": (HEAD + FILE, [TYPE], None, b"400"),
    "no parts": (TAIL, [TYPE], None, b"400"),
    "garbage": (bytes(range(256)) * 4096, [TYPE], None, b"400"),
    "nothing": (b"", [TYPE], None, b"400"),
    "10,000 headers of a part": (
        f"--{BOUNDARY}\r\n".encode() + b"X-A: b\r\n" * 10_000 + HEAD.split(b"\r\n", 1)[1] + FILE + TAIL,
        [TYPE],
        None,
        b"400",
    ),
    "10,000 headers": (HEAD + FILE + TAIL, [TYPE, *(f"X-{n}: b" for n in range(10_000))], None, b"431"),
    "a length that is too small": (HEAD + FILE + TAIL, [TYPE], len(HEAD) + 30, b"400"),
    "a length that is too large": (HEAD + FILE, [TYPE], 1 << 40, b"400"),
    "a length that is none": (HEAD + FILE + TAIL, [TYPE, "Content-Length: 7"], None, b"400"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_forms_are_refused_and_the_gateway_lives(
    door: Gateway, server: Server, tenant: str, name: str
) -> None:
    body, headers, length, status = HOSTILE[name]
    answered = raw(door, request_of(tenant, body, *headers, length=length))
    assert answered.startswith(b"HTTP/1.1 " + status), answered
    assert door.ask("GET", "/health").status == 200
    assert tables(server.address, tenant) == []


@pytest.mark.parametrize(
    ("query", "state"), [({"upload_id": str(uuid.UUID(int=4 << 76 | 8 << 60))}, "OPEN"), ({}, "ABORTED")]
)
def test_an_upload_that_nobody_can_go_on_with_is_given_up(
    door: Gateway, tenant: str, query: dict[str, str], state: str
) -> None:
    def states() -> list[str]:
        uploads = door.ask("GET", f"/v1/tenants/{tenant}/uploads").json["uploads"]
        return [upload["state"].removeprefix("UPLOAD_STATE_") for upload in uploads]

    with socket.create_connection((door.host, door.port), timeout=30) as connection:
        path = upload_path(tenant_id=tenant, **query)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{TYPE}\r\nContent-Length: 1000000\r\n\r\n".encode()
        connection.sendall(head + HEAD + FILE)
        until(lambda: states() == ["OPEN"])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    assert states() == [state]


def test_a_client_that_stops_writing_costs_a_slot_and_is_ended(
    door_with: Callable[..., Gateway], server: Server, tenant: str
) -> None:
    door = door_with(GATEWAY_IDLE_SECONDS="3", GATEWAY_MAX_UPLOADS="1")
    with socket.create_connection((door.host, door.port), timeout=30) as silent:
        silent.sendall(request_of(tenant, HEAD + FILE, TYPE, length=1 << 30))
        until(lambda: bool(door.ask("GET", f"/v1/tenants/{tenant}/uploads").json["uploads"]))
        refused = door.upload(FILE, tenant_id=tenant)
        assert refused.error == (429, "RESOURCE_EXHAUSTED", "OVERLOADED")
        assert refused.headers["Retry-After"] == "1"
        answered = silent.recv(4096)
        assert answered.startswith(b"HTTP/1.1 408"), answered
        assert b"IDLE_TIMEOUT" in answered
        while silent.recv(4096):
            pass  # To the end of the connection.
    assert tables(server.address, tenant) == []
    assert door.upload(FILE, tenant_id=tenant).json["status"] == "success"
    # A body of JSON, and a byte now and then.
    with socket.create_connection((door.host, door.port), timeout=30) as silent:
        silent.sendall(b"POST /api/validation/validate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert silent.recv(4096).startswith(b"HTTP/1.1 408")
    with socket.create_connection((door.host, door.port), timeout=30) as dripping:
        dripping.sendall(request_of(tenant, HEAD, TYPE, length=1 << 30))
        with contextlib.suppress(OSError):
            for byte in HEADER:
                dripping.sendall(bytes([byte]))
                time.sleep(0.1)
        assert b" 408 " in dripping.recv(4096)


def test_a_client_that_stops_reading_costs_a_slot_and_is_ended(
    door_with: Callable[..., Gateway], door: Gateway, tenant: str
) -> None:
    assert door.upload(HEADER + rows(300_000), tenant_id=tenant).json["status"] == "success"
    narrow = door_with(GATEWAY_IDLE_SECONDS="3", GATEWAY_MAX_REQUESTS="1")
    read = f"/v1/tenants/{tenant}/tables/interactions"
    with socket.create_connection((narrow.host, narrow.port), timeout=30) as silent:
        silent.sendall(f"GET {read} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert silent.recv(100).startswith(b"HTTP/1.1 200")
        assert narrow.ask("GET", f"{read}?limit=1").error == (429, "RESOURCE_EXHAUSTED", "OVERLOADED")
        assert narrow.ask("GET", "/health").status == 200
        until(lambda: narrow.ask("GET", f"{read}?limit=1").status == 200)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := silent.recv(1 << 20):
                received += piece
        assert not received.endswith(b"0\r\n\r\n")  # What ends an answer that is whole.


def test_bodies_above_the_limit_are_refused(door: Gateway, tenant: str) -> None:
    path = f"/internal/data/items?tenant_id={tenant}"
    large = b"[" + b" " * (5 << 20) + b"]"
    assert door.ask("POST", path, large).error == (413, "INVALID_ARGUMENT", "MESSAGE_TOO_LARGE")
    connection = door.connect()
    connection.request("POST", path, iter([large]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert take(connection).status == 413
    connection.close()


def test_an_upload_whose_server_is_killed_and_restarted_ends_with_rows_once(
    program: Path, phoenix: Phoenix, tenant: str
) -> None:
    content = HEADER + rows(ROWS)
    upload_id = str(uuid.uuid4())

    with gateway(program, phoenix.address) as door:

        def pieces() -> Iterator[bytes]:
            yield content[: len(content) // 2]
            until_persisted(door, tenant, upload_id)
            phoenix.kill_and_rise()
            yield content[len(content) // 2 :]

        answer = door.upload(pieces(), len(content), tenant_id=tenant, upload_id=upload_id)
        assert answer.json["status"] == "success", answer
        assert answer.json["rows_accepted"] == ROWS
        phoenix.rest()
        assert stored(phoenix.address, tenant) == sorted(f"item-{n}" for n in range(ROWS))


def test_a_gateway_killed_amid_an_upload_leaves_nothing_visible_and_the_next_one_goes_on(
    program: Path, phoenix: Phoenix, tenant: str
) -> None:
    content = HEADER + rows(ROWS)
    upload_id = str(uuid.uuid4())
    path = f"/v1/tenants/{tenant}/uploads/{upload_id}"
    with gateway(program, phoenix.address) as door:
        connection = door.connect()
        head, tail = form_around("file")
        connection.putrequest("POST", upload_path(tenant_id=tenant, upload_id=upload_id))
        connection.putheader("Content-Type", FORM)
        connection.putheader("Content-Length", str(len(head) + len(content) + len(tail)))
        connection.endheaders(head + content[: len(content) * 3 // 4])
        until_persisted(door, tenant, upload_id)
        assert door.stop(signal.SIGKILL) == -signal.SIGKILL
        connection.close()
    assert tables(phoenix.address, tenant) == []
    with gateway(program, phoenix.address) as door:
        assert door.ask("GET", path).json["state"] == "UPLOAD_STATE_OPEN"
        other = door.upload(content.replace(b"item-7,", b"item-0,", 1), tenant_id=tenant, upload_id=upload_id)
        assert other.error == (409, "ALREADY_EXISTS", "ID_IN_USE")
        answer = door.upload(content, tenant_id=tenant, upload_id=upload_id)
        assert (answer.json["status"], answer.json["rows_accepted"]) == ("success", ROWS)
        again = door.upload(content, tenant_id=tenant, upload_id=upload_id)
        assert again.json == answer.json
        longer = door.upload(content + rows(1, ROWS), tenant_id=tenant, upload_id=upload_id)
        assert longer.error == (409, "ALREADY_EXISTS", "ID_IN_USE")
    assert stored(phoenix.address, tenant) == sorted(f"item-{n}" for n in range(ROWS))


def test_a_window_smaller_than_a_block_asks_for_acknowledgements(
    door_with: Callable[..., Gateway], server: Server, tenant: str
) -> None:
    content = HEADER + rows(300_000)
    answer = door_with(GATEWAY_WINDOW_BYTES=str(4 << 20)).upload(content, tenant_id=tenant)
    assert (answer.json["status"], answer.json["rows_accepted"]) == ("success", 300_000)


def test_a_fatal_error_reaches_a_client_that_reads_no_answer_before_it_has_sent_everything(
    door: Gateway, tenant: str
) -> None:
    answer = door.upload(b"user_id,timestamp\n" + b"u1,2026-01-31\n" * 2_000_000, tenant_id=tenant)
    assert answer.error == (400, "INVALID_ARGUMENT", "MISSING_COLUMN")
    assert uuid.UUID(answer.headers["Headrace-Upload-Id"])


def test_runs_end_with_a_true_status_or_a_last_line(door: Gateway, tenant: str) -> None:
    path = f"/v1/tenants/{tenant}/features:compute"
    lines = {"Accept": "application/x-ndjson"}
    for headers in ({}, lines):
        assert door.ask("POST", path, {}, headers).error == (400, "FAILED_PRECONDITION", "NO_INTERACTIONS")
    door.upload(HEADER + rows(1000), tenant_id=tenant)
    result = door.ask("POST", path, {})
    assert result.status == 200
    assert {"inputs", "outputs", "as_of", "interactions", "warnings"} == result.json.keys()
    followed = door.ask("POST", path, {"include_rows": True}, lines).lines
    assert {kind for line in followed for kind in line} == {"progress", "rows", "result"}
    assert list(followed[-1]) == ["result"]
    users = [
        row for line in followed for row in line.get("rows", {"rows": []})["rows"] if "unique_items" in row
    ]
    assert sum(row["total_interactions"] for row in users) == 1000
    assert door.ask("POST", path, {"include_rows": True}).error == (400, "INVALID_ARGUMENT", "INVALID_FIELD")
    assert door.ask("POST", path, {"wndows": [7]}).error[0] == 400
    assert door.ask("POST", f"{path}?seed=7", {}).error[0] == 400


def test_tables_are_the_same_as_lines_and_as_arrow(door: Gateway, server: Server, tenant: str) -> None:
    door.upload(HEADER + rows(50_000), tenant_id=tenant)
    path = f"/v1/tenants/{tenant}/tables/interactions"
    with headrace.Client(server.address) as client:
        table = client.read_table(tenant, "interactions")
    answer = door.ask("GET", path, headers={"Accept": "application/vnd.apache.arrow.stream"})
    assert pa.ipc.open_stream(answer.body).read_all().equals(table)
    assert answer.headers["Headrace-Table-Version"] == "1"
    lines = door.ask("GET", f"{path}?columns=item_id&columns=row_number&offset=20000&limit=20001")
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    expected = table.select(["item_id", "row_number"]).slice(20_000, 20_001).to_pylist()
    assert lines.lines == expected
    nothing = door.ask(
        "GET", f"{path}?offset=50000", headers={"Accept": "application/vnd.apache.arrow.stream"}
    )
    assert pa.ipc.open_stream(nothing.body).read_all().num_rows == 0
    assert door.ask("GET", f"{path}?ofset=1").error == (400, "INVALID_ARGUMENT", "MALFORMED_MESSAGE")


def test_a_server_that_is_away_is_503_and_nobody_is_told_where_it_was(program: Path, tenant: str) -> None:
    with gateway(program, "127.0.0.1:1") as door:
        for answer in (door.ask("GET", "/health"), door.upload(FILE, tenant_id=tenant)):
            assert answer.error == (503, "UNAVAILABLE", "")
            assert b"127.0.0.1" not in answer.body


def test_identity_and_request_id_are_passed_on(program: Path) -> None:
    with auth_front("Bearer s3cret") as front, gateway(program, front.address) as door:
        refused = door.ask("GET", "/health", headers={"Authorization": "Bearer other"})
        assert refused.error[:2] == (401, "UNAUTHENTICATED")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        sent = {
            "Authorization": "Bearer s3cret",
            "X-Request-Id": "abc-1",
            "Cookie": "a=b",
            "Grpc-Metadata-X": "y",
        }
        answer = door.ask("GET", "/health", headers=sent)
        assert (answer.status, answer.headers["X-Request-Id"]) == (200, "abc-1")
        seen = front.seen[-1]
        assert (seen["authorization"], seen["x-request-id"]) == ("Bearer s3cret", "abc-1")
        assert not [name for name in seen if "cookie" in name or name == "x"]
        made = door.ask("GET", "/health", headers={"Authorization": "Bearer s3cret", "X-Request-Id": "a b"})
        assert uuid.UUID(made.headers["X-Request-Id"])
        assert front.seen[-1]["x-request-id"] == made.headers["X-Request-Id"]


def test_tls_is_spoken_on_both_sides(program: Path, server: Server, tmp_path: Path, tenant: str) -> None:
    certificate, key, authority = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    write_certificate(certificate, key, authority)
    trust = ssl.create_default_context(cafile=str(authority))
    settings = {"GATEWAY_TLS_CERT_FILE": str(certificate), "GATEWAY_TLS_KEY_FILE": str(key)}
    out = {"GATEWAY_SERVER_TLS": "true", "GATEWAY_SERVER_CA_FILE": str(authority)}
    with TlsFront(server.address, certificate, key) as front:
        with gateway(program, front.address, trust, **settings, **out) as door:
            assert door.ask("GET", "/health").status == 200
            assert door.upload(FILE, tenant_id=tenant).json["status"] == "success"
        with gateway(program, front.address, GATEWAY_SERVER_TLS="true") as door:
            assert door.ask("GET", "/health").status == 503  # The system does not trust that authority.


def test_a_gateway_told_to_stop_lets_an_upload_end(door_with: Callable[..., Gateway], tenant: str) -> None:
    door = door_with()
    content = HEADER + rows(1000)
    upload_id = str(uuid.uuid4())

    def pieces() -> Iterator[bytes]:
        yield content[:5000]
        until(lambda: door.ask("GET", f"/v1/tenants/{tenant}/uploads/{upload_id}").status == 200)
        door.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        yield content[5000:]

    answer = door.upload(pieces(), len(content), tenant_id=tenant, upload_id=upload_id)
    assert answer.json["status"] == "success"
    assert door.process.wait(30) == 0


def test_wrong_settings_are_told_and_end_the_start(program: Path) -> None:
    for name, value, said in (
        ("GATEWAY_ADRESS", "127.0.0.1:0", "GATEWAY_ADRESS is no setting"),
        ("GATEWAY_MAX_UPLOADS", "0", "GATEWAY_MAX_UPLOADS is 0"),
        ("GATEWAY_TLS_CERT_FILE", "cert.pem", "GATEWAY_TLS_KEY_FILE"),
    ):
        done = subprocess.run(
            [program], env={name: value}, capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_paths_and_methods_that_there_are_not_are_told_apart(door: Gateway) -> None:
    assert door.ask("GET", "/nowhere").error == (404, "NOT_FOUND", "")
    for method, path, allowed in (
        ("DELETE", "/health", "GET"),
        ("GET", "/internal/data/upload-csv", "POST"),
        ("PUT", "/v1/tenants/t/features:compute", "POST"),
    ):
        answer = door.ask(method, path)
        assert (answer.error, answer.headers["Allow"]) == ((405, "UNIMPLEMENTED", ""), allowed)


def test_the_page_and_its_document_need_no_network(door: Gateway) -> None:
    page = door.ask("GET", "/docs/").body.decode()
    for link in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert link.startswith("/docs/"), link
        assert door.ask("GET", link).status == 200
    document = door.ask("GET", "/openapi.json").json
    assert document["openapi"].startswith("3.")
    assert "/internal/data/upload-csv" in document["paths"]
    for path in document["paths"]:
        assert path.startswith(("/internal/", "/api/", "/v1/")) or path == "/health"


def test_it_counts_what_it_does(door: Gateway) -> None:
    door.ask("GET", "/health")
    door.ask("GET", "/v1/tenants/nobody/tables")
    door.ask("GET", "/nowhere")
    said = door.ask("GET", "/metrics").body.decode()
    assert 'headrace_gateway_requests_total{method="GET",route="/health",status="200"}' in said
    assert 'route="/v1/tenants/{tenant_id}/tables",status="200"' in said
    assert 'route="none",status="404"' in said
    assert "headrace_gateway_uploaded_bytes_total" in said
    assert "process_resident_memory_bytes" in said


def test_the_code_is_formatted_vetted_and_tested(program: Path) -> None:
    go = find_tool("go", REMEDY)
    for command in (
        [str(Path(go).with_name("gofmt")), "-l", "."],
        [go, "vet", "./..."],
        [go, "test", "./..."],
    ):
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout if "gofmt" in command[0] else "") == (0, ""), (
            done.stdout + done.stderr
        )


def test_what_is_generated_is_that_of_the_contract(program: Path, tmp_path: Path) -> None:
    for name in ("protos", "buf.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    template = FOLDER / "buf.gen.yaml"
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "generate", "--template", template], cwd=tmp_path, check=True)
    made = {
        path.relative_to(tmp_path): path.read_bytes()
        for path in (tmp_path / "clients").rglob("*")
        if path.is_file()
    }
    assert len(made) == 2
    assert made == {name: (ROOT / name).read_bytes() for name in made}


def test_random_requests_get_no_answer_that_the_document_does_not_tell(
    door: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Schemathesis makes requests of the document, whole and damaged."""
    folder = tmp_path_factory.mktemp("schemathesis")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", "install", "--quiet", "--target", folder, SCHEMATHESIS], check=True)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{door.url}/openapi.json"]
    options = [
        "--checks",
        CHECKS,
        "--max-examples",
        "15",
        "--seed",
        "1",
        "--no-color",
        "--generation-database",
        "none",
    ]
    done = subprocess.run(
        [*command, *options],
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    assert "Operations" in done.stdout
    assert door.ask("GET", "/health").status == 200
