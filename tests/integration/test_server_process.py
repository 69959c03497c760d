"""The server as a process: starting, refusing to start, ports, recovery, events."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from harness.cluster import Cluster
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines
from harness.phoenix import Phoenix
from harness.refused import refused
from harness.server import Server
from harness.watch import eventually

from headrace import Client, errors
from headrace.v1 import upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

ROW = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2026-01-01"}

NAMES = """
import json, ray
ray.init(address="auto", log_to_driver=False, configure_logging=False)
print(json.dumps([each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]))
"""


def _get(server: Server, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_and_metrics_over_http(server: Server) -> None:
    status, body = _get(server, "/health")
    assert status == 200
    health = json.loads(body)
    assert health["status"] == "healthy"
    assert (health["service"], health["mode"]) == ("data-pipeline", "embedded")
    assert health["version"] == version("headrace-server")
    assert _get(server, "/live")[0] == 200
    assert "headrace_calls_total" in _get(server, "/metrics")[1]
    status, body = _get(server, "/nothing")
    assert status == 404
    assert "/metrics" in json.loads(body)["error"]


def test_actors_have_the_name_of_their_server_their_kind_and_number(server: Server, cluster: Cluster) -> None:
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NAMES],
        env={**os.environ, **cluster.settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = [name.split("/") for name in json.loads(told.stdout)]
    ours = {
        tuple(rest) for owner, *rest in names if owner.startswith(f"data-pipeline-{socket.gethostname()}-")
    }
    assert {("worker", "0"), ("worker", "1"), ("small", "0")} <= ours


def test_the_log_says_at_the_start_where_things_are_and_how(server: Server) -> None:
    serving = server.logged(event="serving")
    assert (serving["store"], serving["events"]) == (str(server.data_dir), f"{server.data_dir}/events")
    server.logged(event="the store answers", level="info")
    server.logged(event="events are delivered", level="info")


def test_calls_that_fail_are_logged_with_what_they_were_about(
    server: Server, client: Client, stub: PipelineServiceStub, tenant: str
) -> None:
    with pytest.raises(errors.HeadraceError):
        client.read_table(tenant, "interactions")
    told = server.logged(event="call ended", method="ReadTable", tenant=tenant)
    assert (told["level"], told["code"], told["reason"]) == ("warning", "NOT_FOUND", "TABLE_NOT_FOUND")
    assert "interactions" in str(told["message"])

    upload_id = str(uuid.uuid4())
    Dialogue(stub, [header(tenant, upload_id=upload_id), chunk("no,header\n"), finish()])
    told = server.logged(event="call ended", method="Upload", tenant=tenant, upload_id=upload_id)
    assert (told["level"], told["reason"]) == ("warning", "MISSING_COLUMN")

    client.upload_rows(tenant, "interactions", [ROW])
    with pytest.raises(errors.HeadraceError):
        client.sample_negatives(tenant)
    told = server.logged(event="call ended", method="SampleNegatives", tenant=tenant)
    assert told["level"] == "warning"
    assert told["run_id"]


def test_idle_connections_to_the_http_port_cost_no_threads_and_keep_nobody_out(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    before = process.num_threads()
    address = "127.0.0.1", server.http_port
    with contextlib.ExitStack() as idle:
        for _ in range(400):
            idle.enter_context(socket.create_connection(address))
        assert _get(server, "/health")[0] == 200
        assert process.num_threads() < before + 20
    assert _get(server, "/live")[0] == 200


@pytest.mark.parametrize("name", ["raylet", pytest.param("gcs_server", marks=pytest.mark.slow)])
def test_a_server_whose_ray_has_died_says_so_and_ends_and_another_can_start(
    own_server: Callable[..., Server], name: str
) -> None:
    server = own_server(RAY_ADDRESS="")
    with Client(server.address) as client:
        client.upload_rows("acme", "items", [{"item_id": "i", "title": "x"}])
    (process,) = [each for each in psutil.Process(server.process.pid).children() if each.name() == name]
    process.kill()
    eventually(lambda: _get(server, "/health")[0] == 503 or server.process.poll() is not None)
    assert server.process.wait(60) == 1
    assert server.logged(event="stopping")["reason"] == f"Ray's process {name} has ended"
    with Client(own_server(data_dir=server.data_dir).address) as client:
        assert client.read_table("acme", "items").num_rows == 1


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
        ({"S3_BUCKET_RAW": "a/../b"}, "not a bucket name"),
        ({"S3_BUCKET_RAW": "features"}, "used twice"),
        ({"KAFKA_TOPIC_ITEMS": "../../escaped"}, "not a topic name"),
        ({"KAFKA_TOPIC_ITEMS": "interactions-raw"}, "used twice"),
        ({"KAFKA_EVENT_FORMAT": "xml"}, "KAFKA_EVENT_FORMAT is 'xml'; expected one of 'json', 'protobuf'."),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_USERNAME"),
        ({"HEADRACE_GRPC_ADDRESS": "nowhere"}, "HEADRACE_GRPC_ADDRESS"),
        ({"NEGATIVE_SAMPLING_RATIO": "0"}, "NEGATIVE_SAMPLING_RATIO is '0'"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL: 'LOUD' is not a level"),
        ({"HEADRACE_WORKER": "3"}, "HEADRACE_WORKER is not a setting; did you mean HEADRACE_WORKERS?"),
        ({"HEADRACE_X": "3"}, "HEADRACE_X is not a setting; .env.example lists all there are."),
        ({"RAY_ADDRESS": "ray://head:10001"}, "RAY_ADDRESS: 'ray://head:10001' is an address of Ray Client"),
        ({"RAY_ADDRESS": "head"}, "RAY_ADDRESS: 'head' is not the address of a Ray cluster"),
        ({"RAY_AUTH_MODE": "sometimes"}, "RAY_AUTH_MODE is 'sometimes'"),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "t0ken"}, "RAY_AUTH_TOKEN is set, but"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "RAY_AUTH_TOKEN_PATH '/nowhere' is not a file."),
        (
            {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": "127.0.0.1:6379", "HOME": "/nowhere"},
            "RAY_AUTH_MODE=token needs the cluster's token; set RAY_AUTH_TOKEN",
        ),
    ],
)
def test_a_setting_that_cannot_be_honoured_stops_the_start(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    ended = refused(tmp_path, **settings)
    assert ended.status == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_settings_of_the_env_file_are_refused_by_the_name_they_have_there(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HEADRACE_BLOCK_SIZE=1\nheadrace_workers=many\n")
    ended = refused(tmp_path)
    assert ended.status == 2
    assert "HEADRACE_BLOCK_SIZE is not a setting; did you mean HEADRACE_BLOCK_BYTES?" in ended.stderr
    assert "HEADRACE_WORKERS is 'many'" in ended.stderr


def test_what_kubernetes_tells_of_a_service_called_headrace_is_no_setting_of_ours(tmp_path: Path) -> None:
    told = {"HEADRACE_SERVICE_HOST": "10.0.0.1", "HEADRACE_PORT_50051_TCP_ADDR": "10.0.0.1"}
    ended = refused(tmp_path, LOG_LEVEL="LOUD", **told)
    assert ended.stderr.splitlines() == [
        "headrace-server: LOG_LEVEL: 'LOUD' is not a level; expected one of DEBUG, INFO, WARNING, ERROR."
    ]


def test_the_command_ends_as_it_says(tmp_path: Path) -> None:
    ended = subprocess.run(
        [Path(sys.executable).parent / "headrace-server"],
        env={"PATH": os.environ["PATH"], "LOG_LEVEL": "LOUD"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "LOG_LEVEL" in ended.stderr


def test_a_second_server_on_the_same_folder_is_refused(server: Server, tmp_path: Path) -> None:
    ended = refused(tmp_path, HEADRACE_DATA_DIR=str(server.data_dir))
    assert ended.status == 2
    assert "in use by another server" in ended.stderr


def test_variables_of_others_are_ignored_and_a_database_url_is_warned_about(
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


def test_a_killed_server_loses_no_acknowledged_row_and_doubles_none(phoenix: Phoenix, tenant: str) -> None:
    data, upload_id = (HEADER + lines(20_000)).encode(), str(uuid.uuid4())
    half = len(data) // 2
    first = phoenix.server

    def half_then_kill() -> Iterator[upload_pb2.UploadRequest]:
        yield header(tenant, upload_id=upload_id)
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

    second = phoenix.rest()
    with grpc.insecure_channel(second.address) as channel, Client(second.address) as client:
        stub = PipelineServiceStub(channel)
        upload = client.get_upload(tenant, upload_id)
        assert upload.persisted_offset >= killed_at
        assert [table.name for table in client.list_tables(tenant)] == []
        rest = chunk(data[upload.persisted_offset :], offset=upload.persisted_offset)
        result = Dialogue(
            stub, [header(tenant, upload_id=upload_id), rest, finish(total_size=len(data))]
        ).result
        assert (result.rows_accepted, result.rows_rejected) == (20_000, 0)
        stored = client.read_table(tenant, "interactions")
        assert sorted(stored["row_number"].to_pylist()) == list(range(20_000))


def test_a_finish_left_by_a_killed_server_is_rolled_forward_once(phoenix: Phoenix, tenant: str) -> None:
    upload_id, data_dir = str(uuid.uuid4()), phoenix.server.data_dir
    with grpc.insecure_channel(phoenix.address) as channel:
        requests = [header(tenant, upload_id=upload_id), chunk(HEADER + lines(10)), finish()]
        first = Dialogue(PipelineServiceStub(channel), requests).result
    phoenix.kill()
    # As if it had been killed between the data commit and the done record.
    records = sorted((data_dir / "raw-data/_headrace/uploads" / tenant / upload_id).glob("0*"))
    assert json.loads(records[-1].read_text())["kind"] == "done"
    records[-1].unlink()
    entry = data_dir / "raw-data/_headrace/open" / tenant / upload_id
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.touch()  # The upload was not over then.

    second = phoenix.rest()
    assert second.logged(event="upload rolled forward")
    with Client(second.address) as client:
        assert client.get_upload(tenant, upload_id).result == first
        (table,) = client.list_tables(tenant)
        assert (table.version, table.rows) == (first.version, 10)


def test_events_of_commits_that_a_crash_kept_from_the_log_come_at_the_next_start(
    phoenix: Phoenix, tenant: str
) -> None:
    with Client(phoenix.address) as client:
        for number in range(3):
            client.upload_rows(tenant, "items", [{"item_id": f"i{number}", "title": "x"}])
    assert phoenix.server.stop() == 0
    log = phoenix.server.data_dir / "events/items-catalog.jsonl"
    whole = log.read_text()
    lines_before = whole.splitlines()[-3:]
    assert [json.loads(line)["id"] for line in lines_before] == [f"{tenant}/items@{v}" for v in (1, 2, 3)]
    event = json.loads(lines_before[0])
    assert (event["specversion"], event["source"], event["type"]) == (
        "1.0",
        f"/headrace/{tenant}",
        "headrace.item.v1",
    )
    # A crash in the middle of the third line, and so before the cursor went past it.
    log.write_text(whole[: -len(lines_before[2]) + 39])
    cursor = phoenix.server.data_dir / "raw-data/_headrace/relay/local/cursors" / tenant / "items.json"
    assert json.loads(cursor.read_text())["version"] == 3
    cursor.write_text(json.dumps(json.loads(cursor.read_text()) | {"version": 2}))

    phoenix.rest()
    eventually(lambda: log.read_text() == whole)
