"""The server as a process: starting, refusing to start, ports, recovery, events."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines
from harness.server import Server

from headrace import Client
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub


def _get(server: Server, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _run(data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HEADRACE_DATA_DIR": str(data_dir), **settings}
    return subprocess.run(
        [sys.executable, "-m", "headrace_server.main"],
        env=environment,
        cwd=data_dir.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_health_and_metrics_over_http(server: Server) -> None:
    status, body = _get(server, "/health")
    assert status == 200
    health = json.loads(body)
    assert health["status"] == "healthy"
    assert (health["service"], health["version"], health["mode"]) == ("data-pipeline", "0.1.0", "embedded")
    assert _get(server, "/live")[0] == 200
    assert "headrace_calls_total" in _get(server, "/metrics")[1]
    status, body = _get(server, "/nothing")
    assert status == 404
    assert "/metrics" in json.loads(body)["error"]


def test_grpc_health_and_both_reflections(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for service in ("", "headrace.v1.PipelineService"):
            answer = check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        alpha = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        v1 = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        for reflect in (alpha, v1):
            (answer,) = reflect(iter([question]))
            names = {service.name for service in answer.list_services_response.service}
            assert "headrace.v1.PipelineService" in names


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"S3_ENDPOINT": "http://127.0.0.1:9000"}, "S3_ENDPOINT needs S3_ACCESS_KEY"),
        ({"S3_ENDPOINT": "http://u:p@127.0.0.1:9000"}, "must not hold credentials"),
        ({"S3_BUCKET_RAW": "a/../b"}, "no bucket name"),
        ({"S3_BUCKET_RAW": "features"}, "used twice"),
        ({"KAFKA_TOPIC_ITEMS": "../../escaped"}, "no topic name"),
        ({"KAFKA_TOPIC_ITEMS": "interactions-raw"}, "used twice"),
        ({"KAFKA_EVENT_FORMAT": "xml"}, "kafka_event_format"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_USERNAME"),
        ({"HEADRACE_GRPC_ADDRESS": "nowhere"}, "HEADRACE_GRPC_ADDRESS"),
        ({"NEGATIVE_SAMPLING_RATIO": "0"}, "negative_sampling_ratio"),
        ({"LOG_LEVEL": "LOUD"}, "log_level"),
    ],
)
def test_a_setting_that_cannot_be_honoured_stops_the_start(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    ended = _run(tmp_path / "data", **settings)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_second_server_on_the_same_folder_is_refused(server: Server) -> None:
    ended = _run(server.data_dir, HEADRACE_GRPC_ADDRESS="127.0.0.1:0", HEADRACE_HTTP_ADDRESS="127.0.0.1:0")
    assert ended.returncode == 2
    assert "in use by another server" in ended.stderr


def test_unknown_variables_are_ignored_and_a_database_url_is_warned_about(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    (tmp_path / ".env").write_text(
        "SOMEBODY_ELSES=1\nSERVICE_NAME=mine\nDATABASE_URL=postgres://u:secret@h/d\n"
    )
    server = own_server()
    warned = [line for line in server.log if "DATABASE_URL" in str(line.get("event"))]
    assert len(warned) == 1
    assert "secret" not in json.dumps(server.log)
    assert json.loads(_get(server, "/health")[1])["service"] == "mine"
    assert server.stop() == 0


def test_a_killed_server_loses_no_acknowledged_row_and_doubles_none(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    data, upload_id = (HEADER + lines(20_000)).encode(), str(uuid.uuid4())
    half = len(data) // 2
    first = own_server(HEADRACE_BLOCK_BYTES="65536")

    def half_then_kill() -> object:
        yield header("acme", upload_id=upload_id)
        yield chunk(data[:half])
        while not first.process.poll():
            # The reader of the responses kills the server at the first ack.
            yield chunk(b"", offset=0)

    killed_at = 0
    with grpc.insecure_channel(first.address) as channel:
        stub = PipelineServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            for response in stub.Upload(half_then_kill()):
                if response.WhichOneof("response") == "ack" and response.ack.persisted_offset:
                    killed_at = response.ack.persisted_offset
                    first.process.kill()
    first.process.wait(30)
    assert killed_at > 0

    second = own_server(HEADRACE_BLOCK_BYTES="65536")
    with grpc.insecure_channel(second.address) as channel, Client(second.address) as client:
        stub = PipelineServiceStub(channel)
        upload = client.get_upload("acme", upload_id)
        assert upload.persisted_offset >= killed_at
        assert [table.name for table in client.list_tables("acme")] == []
        rest = chunk(data[upload.persisted_offset :], offset=upload.persisted_offset)
        result = Dialogue(
            stub, [header("acme", upload_id=upload_id), rest, finish(total_size=len(data))]
        ).result
        assert (result.rows_accepted, result.rows_rejected) == (20_000, 0)
        stored = client.read_table("acme", "interactions")
        assert sorted(stored["row_number"].to_pylist()) == list(range(20_000))


def test_a_finish_left_by_a_killed_server_is_rolled_forward_once(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    server, upload_id = own_server(), str(uuid.uuid4())
    with grpc.insecure_channel(server.address) as channel:
        requests = [header("acme", upload_id=upload_id), chunk(HEADER + lines(10)), finish()]
        first = Dialogue(PipelineServiceStub(channel), requests).result
    server.process.kill()
    server.process.wait(30)
    # As if it had been killed between the data commit and the done record.
    records = sorted((tmp_path / "data/raw-data/_headrace/uploads/acme" / upload_id).glob("0*"))
    assert json.loads(records[-1].read_text())["kind"] == "done"
    records[-1].unlink()
    entry = tmp_path / "data/raw-data/_headrace/open/acme" / upload_id
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.touch()  # The upload was not over then.

    second = own_server()
    assert any(line.get("event") == "upload rolled forward" for line in second.log)
    with Client(second.address) as client:
        assert client.get_upload("acme", upload_id).result == first
        (table,) = client.list_tables("acme")
        assert (table.version, table.rows) == (first.version, 10)


def test_events_of_commits_that_a_crash_kept_from_the_log_come_at_the_next_start(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    server = own_server()
    with Client(server.address) as client:
        for number in range(3):
            client.upload_rows("acme", "items", [{"item_id": f"i{number}", "title": "x"}])
    assert server.stop() == 0
    log = tmp_path / "data/events/items-catalog.jsonl"
    lines_before = log.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines_before] == [f"acme/items@{v}" for v in (1, 2, 3)]
    event = json.loads(lines_before[0])
    assert (event["specversion"], event["source"], event["type"]) == (
        "1.0",
        "/headrace/acme",
        "headrace.item.v1",
    )
    # A crash in the middle of the third line, and so before the cursor went past it.
    log.write_text("\n".join([*lines_before[:2], lines_before[2][:40]]))
    cursor = tmp_path / "data/raw-data/_headrace/relay/local/cursors/acme/items.json"
    assert json.loads(cursor.read_text())["version"] == 3
    cursor.write_text(json.dumps(json.loads(cursor.read_text()) | {"version": 2}))

    second = own_server()
    deadline = time.monotonic() + 30
    while log.read_text().count("\n") < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert second.stop() == 0
    assert log.read_text().splitlines() == lines_before
