"""Runs with a request_id, and lists of uploads, on two servers that share an object store."""

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from brokers.minio import Minio
from harness.cluster import Cluster
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines
from harness.server import Server, start_server
from harness.watch import eventually
from minio import Minio as Store

from headrace import Client
from headrace.errors import HeadraceError, RunCancelledError, UnavailableError
from headrace.v1 import ingest_pb2, run_pb2, upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

pytest_plugins = ["brokers.fixtures"]

BUCKETS = ("RAW", "PROCESSED", "TRAINING", "FEATURES")

ALL: dict[str, Any] = {
    "positive_interaction_types": ["view"],
    "max_interactions_per_user": 0,
    "min_interactions_per_user": 0,
    "min_interactions_per_item": 0,
}


@dataclass
class Pair:
    """Two servers on one store, of which the first may be killed and comes back for the next test."""

    servers: list[Server]
    settings: list[dict[str, str]]
    store: Store
    name: str

    def client(self, number: int) -> Client:
        server = self.servers[number]
        if server.process.poll() is not None:
            server = self.servers[number] = start_server(server.data_dir, **self.settings[number])
        return Client(server.address)

    def objects(self, bucket: str, prefix: str) -> set[str]:
        found = self.store.list_objects(f"{bucket.lower()}-{self.name}", prefix=prefix, recursive=True)
        return {each.object_name or "" for each in found}

    def parts(self, tenant: str) -> set[str]:
        return {key for key in self.objects("TRAINING", f"{tenant}/") if key.endswith(".parquet")}


@pytest.fixture(scope="module")
def pair(minio: Minio, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    name = uuid.uuid4().hex[:8]
    settings = {
        **cluster.settings,
        "HEADRACE_MAX_RUNS_PER_TENANT": "1",
        "S3_ENDPOINT": minio.endpoint,
        "S3_ACCESS_KEY": minio.access_key,
        "S3_SECRET_KEY": minio.secret_key,
        **{f"S3_BUCKET_{bucket}": f"{bucket.lower()}-{name}" for bucket in BUCKETS},
    }
    folders = [tmp_path_factory.mktemp(f"server-{number}") / "data" for number in range(2)]
    servers = [start_server(folder, **settings) for folder in folders]
    endpoint = minio.endpoint.removeprefix("http://")
    store = Store(endpoint, minio.access_key, minio.secret_key, secure=False)
    yield Pair(servers, [settings] * 2, store, name)
    for server in servers:
        if server.process.poll() is None:
            assert server.stop() == 0


def _upload(client: Client, tenant: str, folder: Path, rows: int = 20_000) -> None:
    file = folder / "interactions.csv"
    file.write_text(HEADER + lines(rows))
    assert client.upload(tenant, "interactions", file).rows_accepted == rows


def test_a_run_whose_server_is_killed_is_taken_up_by_the_other_one(
    pair: Pair, tenant: str, tmp_path: Path
) -> None:
    request_id, options = str(uuid.uuid4()), ALL | {"negative_ratio": 100}
    with pair.client(0) as first, pair.client(1) as second:
        _upload(first, tenant, tmp_path)
        calm = second.sample_negatives(tenant, **options)
        pair_dies = threading.Event()

        def die(progress: run_pb2.RunProgress) -> None:
            if progress.stage == "sample" and not pair_dies.is_set():
                pair.servers[0].process.kill()
                pair_dies.set()

        with pytest.raises(UnavailableError):
            first.sample_negatives(tenant, request_id=request_id, patience_s=0, on_progress=die, **options)
        assert pair_dies.is_set()
        result = second.sample_negatives(tenant, request_id=request_id, **options)
        assert result.output.version == calm.output.version + 1
        tables = [second.read_table(tenant, "training_data", version=version) for version in (1, 2)]
        assert tables[0] == tables[1]
        assert second.get_run(tenant, request_id).attempts == 2
    with pair.client(0) as again:
        assert again.sample_negatives(tenant, request_id=request_id, **options) == result
        assert [table.version for table in again.list_tables(tenant) if table.name == "training_data"] == [2]
    attempts = {key.rpartition("/")[2].partition("-")[0] for key in pair.parts(tenant)}
    assert len(attempts) == 2  # Those of the two versions; the dead attempt's are gone.


def test_a_run_is_followed_and_cancelled_on_the_other_server(pair: Pair, tenant: str, tmp_path: Path) -> None:
    request_id, options = str(uuid.uuid4()), ALL | {"negative_ratio": 1000}
    heard = list[str]()
    with pair.client(0) as first, pair.client(1) as second:
        _upload(first, tenant, tmp_path)

        def follow(client: Client) -> None:
            with pytest.raises(RunCancelledError):
                client.sample_negatives(
                    tenant,
                    request_id=request_id,
                    on_progress=lambda progress: heard.append(progress.stage),
                    **options,
                )
            heard.append("cancelled")

        threads = [threading.Thread(target=follow, args=(first,))]
        threads[0].start()
        eventually(lambda: "sample" in heard)
        heard.clear()
        threads.append(threading.Thread(target=follow, args=(second,)))
        threads[1].start()
        eventually(lambda: "sample" in heard)
        assert second.get_run(tenant, request_id).state == run_pb2.RUN_STATE_RUNNING
        assert [run.request_id for run in second.runs(tenant)] == [request_id]
        second.cancel_run(tenant, request_id)
        assert pair.parts(tenant) == set()
        for thread in threads:
            thread.join(60)
        assert heard.count("cancelled") == 2
        assert [table.name for table in second.list_tables(tenant)] == ["interactions"]


def _in_background(client: Client, tenant: str, request_id: str, **options: Any) -> list[str]:
    """Follows a sampling run in a thread; the list gets what it ended with."""
    heard = list[str]()

    def follow() -> None:
        with Client(client.address) as own:
            try:
                own.sample_negatives(tenant, request_id=request_id, patience_s=0, **options)
                heard.append("done")
            except HeadraceError as error:
                heard.append(error.reason)

    threading.Thread(target=follow).start()
    return heard


@pytest.mark.slow
def test_runs_that_wait_are_cancelled_and_taken_up_by_the_other_server(
    pair: Pair, tenant: str, tmp_path: Path
) -> None:
    endless, stopped, patient = (str(uuid.uuid4()) for _ in range(3))
    with pair.client(0) as first, pair.client(1) as second:
        _upload(first, tenant, tmp_path, 60_000)

        def states() -> list[tuple[str, run_pb2.RunState.ValueType, int]]:
            return [(run.request_id, run.state, run.progress.queue_place) for run in second.runs(tenant)]

        def begin(request_id: str, ratio: int) -> list[str]:
            heard = _in_background(first, tenant, request_id, **ALL | {"negative_ratio": ratio})
            eventually(lambda: any(run[0] == request_id for run in states()))
            return heard

        begin(endless, 1000)
        heard = begin(stopped, 2)
        begin(patient, 1)
        running, queued = run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_QUEUED
        eventually(
            lambda: states() == [(patient, queued, 2), (stopped, queued, 1), (endless, running, 0)], 60
        )
        second.cancel_run(tenant, stopped)
        assert second.get_run(tenant, stopped).state == run_pb2.RUN_STATE_CANCELLED
        eventually(lambda: heard == ["RUN_CANCELLED"])
        pair.servers[0].process.kill()
        eventually(lambda: second.get_run(tenant, endless).attempts == 2, 120)
        # Of two journals that stand still the other server may see the younger one's first: then that run
        # has its turn at once.
        done = run_pb2.RUN_STATE_DONE
        eventually(lambda: states()[0] in ((patient, queued, 1), (patient, done, 0)), 60)
        second.cancel_run(tenant, endless)
        result = second.sample_negatives(tenant, request_id=patient, **ALL | {"negative_ratio": 1})
        assert result.output.version == 1
        assert second.get_run(tenant, patient).attempts == 1


@pytest.mark.slow
def test_two_servers_that_begin_one_run_make_one_version(pair: Pair, tenant: str, tmp_path: Path) -> None:
    results = list[run_pb2.FeaturesResult]()
    with pair.client(0) as first, pair.client(1) as second:
        _upload(first, tenant, tmp_path, 2_000)
        for version in range(1, 4):
            request_id = str(uuid.uuid4())
            begun = threading.Barrier(2)

            def make(client: Client, request_id: str = request_id, begun: threading.Barrier = begun) -> None:
                begun.wait()
                results.append(client.compute_features(tenant, request_id=request_id))

            threads = [threading.Thread(target=make, args=(client,)) for client in (first, second)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert results[-1] == results[-2]
            assert [table.version for table in results[-1].outputs] == [version] * 2


def test_two_servers_give_ids_their_integers_at_once_and_verify_what_the_other_one_wrote(
    pair: Pair, tenant: str, tmp_path: Path
) -> None:
    with pair.client(0) as first, pair.client(1) as second:
        _upload(first, tenant, tmp_path, 2_000)
        options: dict[str, Any] = ALL | {"with_indices": True}

        def make(number: int) -> None:
            with pair.client(number) as own:
                own.sample_negatives(tenant, dataset=f"d{number}", seed=number, **options)

        threads = [threading.Thread(target=make, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        for entity in ("user", "item"):
            known, *of_sets = (
                first.read_table(tenant, table, columns=[f"{entity}_id", f"{entity}_index"]).to_pylist()
                for table in (f"{entity}_vocabulary", f"d0_{entity}s", f"d1_{entity}s")
            )
            assert sorted(row[f"{entity}_index"] for row in known) == list(range(1, len(known) + 1))
            assert len({row[f"{entity}_id"] for row in known}) == len(known)
            assert all(row in known for rows in of_sets for row in rows)
        for client, table in ((second, "d0"), (first, "d1"), (second, "d0_users"), (first, "d1_items")):
            assert not client.verify(tenant, table).HasField("difference")


def test_uploads_and_rows_of_either_server_are_known_to_the_other_one(pair: Pair, tenant: str) -> None:
    request = ingest_pb2.IngestRowsRequest(tenant_id=tenant, data_type="items", request_id=str(uuid.uuid4()))
    request.rows.add().update({"item_id": "i", "title": "t", "price": "cheap"})
    request.rows.add().update({"item_id": "j", "title": "t", "colour": "red"})
    ids, answers = [], []
    for number in (0, 1, 0):
        pair.client(number).close()  # The one before may have been killed.
        with grpc.insecure_channel(pair.servers[number].address) as channel:
            stub = PipelineServiceStub(channel)
            messages = [header(tenant), chunk(HEADER + lines(number + 1)), finish()]
            ids.append(Dialogue(stub, messages).result.upload_id)
            answers.append(stub.IngestRows(request))
    assert answers == answers[:1] * 3
    for number in (0, 1):
        with grpc.insecure_channel(pair.servers[number].address) as channel:
            stub = PipelineServiceStub(channel)
            page = stub.ListUploads(upload_pb2.ListUploadsRequest(tenant_id=tenant, page_size=2))
            asked = upload_pb2.ListUploadsRequest(tenant_id=tenant, page_token=page.next_page_token)
            found = [*page.uploads, *stub.ListUploads(asked).uploads]
            assert [each.upload_id for each in found] == ids[::-1]
            assert [each.rows_accepted for each in found] == [1, 2, 1]
