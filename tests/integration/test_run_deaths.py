"""Deaths amid runs with a request_id: one version, equal to an undisturbed run's, and nothing left over."""

import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
import pytest
from chaos.inject import FOLDER, Order
from harness.cluster import Cluster
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines
from harness.phoenix import Phoenix
from harness.watch import eventually, files_below

from headrace import Client
from headrace.errors import RunCancelledError, RunFinishedError, RunNotFoundError, UnavailableError
from headrace.request import negatives_request
from headrace.v1 import run_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

TESTS = Path(__file__).parents[1]

ROWS = 20_000

SECONDS = 120
"""How long a server may take to do or to end something, on a machine with much other work."""

TENANT = "acme"
OUTPUTS = {
    "features": ("user_features", "item_features"),
    "negatives": ("training_data",),
    "indices": ("indexed_users", "indexed_items", "indexed"),
    "everything": ("wide_users", "wide_items", "wide"),
}
COMMITS = OUTPUTS | {"features": (*OUTPUTS["features"], "feature_statistics")}

ALL: dict[str, Any] = {
    "negative_ratio": 3,
    "positive_interaction_types": ["view"],
    "max_interactions_per_user": 0,
    "min_interactions_per_user": 0,
    "min_interactions_per_item": 0,
}

WIDE: dict[str, Any] = {
    "dataset": "wide",
    "with_indices": True,
    "with_features": "point_in_time",
    "history": 5,
    "history_timestamps": True,
    "split": {"fractions": [0.6, 0.8]},
    "eval_negative_ratio": 9,
    "available_only": True,
    "same_category_share": 0.3,
}
MORE: dict[str, dict[str, Any]] = {
    "negatives": {},
    "indices": {"dataset": "indexed", "with_indices": True},
    "everything": WIDE,
}
"""What kinds of runs ask for besides ALL."""

BUCKETS = ("features", "training-data")

slow = pytest.mark.slow


@dataclass
class Doomed:
    """A server that dies where it is told to, a tenant, and what its runs make when nobody dies."""

    phoenix: Phoenix
    orders: Path

    def client(self) -> Client:
        return Client(self.phoenix.rest().address)

    def run(self, client: Client, kind: str, **options: Any) -> Any:
        if kind == "features":
            return client.compute_features(TENANT, **options)
        return client.sample_negatives(TENANT, **ALL, **MORE[kind], **options)

    def hits(self, point: str) -> int:
        """How often what was ordered for a point has happened."""
        return len(list(self.orders.glob(f"{point}.hit-*")))

    @contextmanager
    def rising(self) -> Iterator[None]:
        """Has the server come back whenever it has died, while the context lasts."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.05):
                self.phoenix.rest()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def strays(self, tenant: str = TENANT) -> set[Path]:
        """Parts of derived tables that no version names."""
        parts, named = set[Path](), set[Path]()
        for path in (path for bucket in BUCKETS for path in files_below(self.data / bucket / tenant)):
            if path.suffix == ".parquet":
                parts.add(path)
            elif path.parent.name == "_delta_log" and path.suffix == ".json":
                adds = [json.loads(line).get("add") for line in path.read_text().splitlines()]
                named |= {path.parent.parent / unquote(add["path"]) for add in adds if add}
        return parts - named

    @property
    def data(self) -> Path:
        return self.phoenix.server.data_dir

    def left(self) -> set[Path]:
        """Entries of runs that are not over, and files that are half written."""
        root = self.data / "raw-data/_headrace"
        folders = root / "runs", root / "open-runs", self.data / ".scratch"
        return {file for folder in folders for file in files_below(folder)}

    def is_clear(self, drafts: set[Path]) -> bool:
        """Whether nothing is left, and no other drafts than there were."""
        return not self.left() and self.drafts() == drafts

    def drafts(self) -> set[Path]:
        """Entries of parts that await their commit; those of small ingests stay for a while."""
        return set(files_below(self.data / "raw-data/_headrace/drafts"))


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Doomed]:
    folder = tmp_path_factory.mktemp("doomed")
    orders = folder / "orders"
    orders.mkdir()
    chaos = {"PYTHONPATH": f"{TESTS / 'chaos' / 'site'}:{TESTS}", FOLDER: str(orders)}
    made = Doomed(Phoenix(folder, **cluster.settings, **chaos), orders)
    with grpc.insecure_channel(made.phoenix.address) as channel:
        rows = chunk(HEADER + lines(ROWS))
        assert Dialogue(PipelineServiceStub(channel), [header(TENANT), rows, finish()]).result
    with made.client() as client:
        for kind in OUTPUTS:
            made.run(client, kind)  # Version 1 of each table.
    yield made
    assert made.phoenix.rest().stop() == 0


@pytest.mark.parametrize(
    ("kind", "point", "nth"),
    [
        ("features", "run-stage.after", 2),
        *(
            pytest.param(*each, marks=slow)
            for each in (
                ("features", "run-open.before", 1),
                ("features", "run-open.after", 1),
                ("features", "run-stage.after", 4),
                ("features", "run-commit-record.before", 1),
                ("features", "run-commit-record.after", 1),
                ("features", "users-commit.after", 1),
                ("features", "items-commit.before", 1),
                ("features", "items-commit.after", 1),
                ("features", "statistics-commit.before", 1),
                ("features", "statistics-commit.after", 1),
                ("features", "run-done-record.after", 1),
                ("negatives", "run-stage.after", 7),
                ("negatives", "training-commit.after", 1),
                ("negatives", "run-done-record.before", 1),
                ("indices", "run-stage.after", 5),
                ("indices", "ids-commit.after", 1),
                ("indices", "training-commit.before", 1),
                *(("everything", "any-stage.after", nth) for nth in (6, 11, 18, 25, 32)),
            )
        ),
    ],
)
def test_a_server_killed_amid_a_run_costs_work_and_nothing_else(
    doomed: Doomed, kind: str, point: str, nth: int
) -> None:
    request_id = str(uuid.uuid4())
    with doomed.client() as client:
        before = {table.name: table.version for table in client.list_tables(TENANT)}
        hits = doomed.hits(point)
        Order(point, "kill server", nth).arm(doomed.orders)
        with doomed.rising():
            result = doomed.run(client, kind, request_id=request_id)
        assert doomed.hits(point) == hits + 1, f"{point} was not reached"
        assert doomed.run(client, kind, request_id=request_id) == result
        after = {table.name: table.version for table in client.list_tables(TENANT)}
        assert after == before | {name: before[name] + 1 for name in COMMITS[kind]}
        for name in OUTPUTS[kind]:
            calm, disturbed = (client.read_table(TENANT, name, version=v) for v in (1, after[name]))
            assert disturbed == calm
        run = client.get_run(TENANT, request_id)
        told = run.features if kind == "features" else run.negatives
        assert (run.state, told) == (run_pb2.RUN_STATE_DONE, result)
    eventually(lambda: not doomed.left(), SECONDS)
    assert doomed.strays() == set()


def test_a_server_killed_before_it_recorded_statistics_has_them_all_the_same(doomed: Doomed) -> None:
    """Of a run that ends with its call, which nobody takes up."""

    def recorded(client: Client) -> list[Any]:
        names = ["table", "version", "column", "count", "mean", "top_values"]
        rows = client.read_table(TENANT, "feature_statistics", columns=names).to_pylist()
        versions = max(row["version"] for row in rows)
        return [{**row, "version": 0} for row in rows if row["version"] == versions]

    with doomed.client() as client:
        doomed.run(client, "features")
        calm, before = recorded(client), client.feature_statistics(TENANT, "user_features")
        Order("statistics-commit.before", "kill server").arm(doomed.orders)
        with pytest.raises(UnavailableError):
            doomed.run(client, "features")
    doomed.phoenix.server.process.wait(SECONDS)  # The connection may end before the process.
    with doomed.client() as client:
        found = client.feature_statistics(TENANT, "user_features")
        assert found.version.version == before.version.version + 1
        assert (found.columns, found.baseline) == (before.columns, before.version)
        assert {drift.value for drift in found.drift} == {0.0}
        assert recorded(client) == calm
    assert doomed.strays() == set()
    assert not doomed.left()


def test_a_server_that_stops_leaves_its_run_to_the_next(doomed: Doomed) -> None:
    request_id, results, hits = str(uuid.uuid4()), list[Any](), doomed.hits("run-stage.after")
    with doomed.client() as client:
        version = doomed.run(client, "features").outputs[0].version

        def follow() -> None:
            results.append(doomed.run(client, "features", request_id=request_id))

        Order("run-stage.after", "pause", nth=2).arm(doomed.orders)  # The first one pins the inputs.
        thread = threading.Thread(target=follow, daemon=True)
        with doomed.rising():
            thread.start()
            eventually(lambda: doomed.hits("run-stage.after") > hits, SECONDS)
            assert doomed.phoenix.server.stop(seconds=SECONDS) == 0
            thread.join(SECONDS)
        (result,) = results
        assert [table.version for table in result.outputs] == [version + 1] * 2
        run = client.get_run(TENANT, request_id)
        assert (run.attempts, run.features) == (2, result)
    assert doomed.strays() == set()
    assert not doomed.left()


@slow
def test_a_worker_killed_in_a_stage_costs_work_and_nothing_else(doomed: Doomed, cluster: Cluster) -> None:
    large, over, killed = ALL | {"negative_ratio": 100}, threading.Event(), list[int]()

    def strike() -> None:
        while not (killed or over.is_set()):
            for process in cluster.at_work("sample_shard")[:1]:
                process.kill()
                killed.append(process.pid)
            time.sleep(0.01)

    with doomed.client() as client:
        calm = client.sample_negatives(TENANT, **large)
        thread = threading.Thread(target=strike)
        thread.start()
        disturbed = client.sample_negatives(TENANT, request_id=str(uuid.uuid4()), **large)
        over.set()
        thread.join()
        assert killed
        assert disturbed.output.version == calm.output.version + 1
        tables = [
            client.read_table(TENANT, "training_data", version=result.output.version)
            for result in (calm, disturbed)
        ]
        assert tables[0] == tables[1]
    assert doomed.strays() == set()


def _cancelled_at_random(doomed: Doomed, times: int, dice: random.Random) -> None:
    """Runs that are cancelled after any time; each is over by then, or writes nothing."""
    with doomed.client() as client:
        versions = {table.name: table.version for table in client.list_tables(TENANT)}
        for _ in range(times):
            request_id = str(uuid.uuid4())
            ended = list[str]()

            def follow(request_id: str = request_id, ended: list[str] = ended) -> None:
                try:
                    doomed.run(client, "negatives", request_id=request_id)
                    ended.append("done")
                except RunCancelledError:
                    ended.append("cancelled")

            thread = threading.Thread(target=follow)
            thread.start()
            time.sleep(dice.uniform(0.0, 2.0))
            try:
                client.cancel_run(TENANT, request_id)
                told = "cancelled"
            except RunFinishedError:
                told = "done"
                versions["training_data"] += 1
            except RunNotFoundError:
                # It is still pinning its inputs: it has not begun.
                told = "done"
                versions["training_data"] += 1
            thread.join(SECONDS)
            assert ended == [told]
        assert {table.name: table.version for table in client.list_tables(TENANT)} == versions
        # The workers are free.
        assert doomed.run(client, "features").interactions == ROWS
    # What the last ones wrote is deleted in the background.
    eventually(lambda: not doomed.strays() and not doomed.left(), SECONDS)


@slow
def test_a_hundred_runs_cancelled_at_random_write_nothing(doomed: Doomed) -> None:
    _cancelled_at_random(doomed, 100, random.Random(2))


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["cancelled", "left by its client"])
def test_a_run_of_everything_that_is_called_off_at_any_stage_leaves_nothing(doomed: Doomed, way: str) -> None:
    """Each time of a tenant whose vocabularies have no id yet: what these may keep is whole."""
    some = random.Random(5)
    rows = [
        {
            "user_id": f"u{some.randrange(40)}",
            "item_id": f"i{some.randrange(60)}",
            "interaction_type": some.choice(["view", "like"]),
            "timestamp": f"2026-01-{some.randrange(1, 29):02}T10:00:00",
        }
        for _ in range(600)
    ]
    catalog = [{"item_id": f"i{number}", "title": "x", "category": f"c{number % 3}"} for number in range(60)]
    with doomed.client() as client, grpc.insecure_channel(doomed.phoenix.rest().address) as channel:
        for nth in itertools.count(1):
            tenant = f"{way.split()[0]}-{nth}"
            client.ingest_interactions(tenant, rows)
            client.ingest_items(tenant, catalog)
            drafts = doomed.drafts()
            # With an as_of the first stage is the run's own.
            request = negatives_request(tenant, as_of=datetime(2026, 2, 1, tzinfo=UTC), **ALL, **WIDE)
            if way == "cancelled":
                request.request_id = str(uuid.uuid4())
            Order("any-stage.after", "pause", nth).arm(doomed.orders)
            hits = doomed.hits("any-stage.after")
            call: Any = PipelineServiceStub(channel).SampleNegatives(request)
            following = threading.Thread(target=_to_its_end, args=(call,))
            following.start()
            while following.is_alive() and doomed.hits("any-stage.after") == hits:
                time.sleep(0.02)
            if not following.is_alive():
                (doomed.orders / "any-stage.after.armed").unlink()
                break
            if way == "cancelled":
                client.cancel_run(tenant, request.request_id)
            else:
                call.cancel()
            following.join(SECONDS)
            eventually(partial(_is_idle, client, tenant), SECONDS)
            # Vocabularies that have begun to grow come to the end of that.
            (doomed.orders / "any-stage.after.release").touch()
            eventually(partial(doomed.is_clear, drafts), SECONDS)
            (doomed.orders / "any-stage.after.release").unlink()
            assert doomed.strays(tenant) == set()
            names = {table.name for table in client.list_tables(tenant)}
            assert names <= {"interactions", "items", "user_vocabulary", "item_vocabulary"}
        assert nth > 20
        # Whatever was called off before, one that is not makes the same.
        tenants = tenant, tenant.replace(str(nth), "9")
        results = [client.sample_negatives(tenant, **ALL, **WIDE) for tenant in tenants]
        assert results[0].negatives == results[1].negatives > 0


def _to_its_end(call: Any) -> None:
    with suppress(grpc.RpcError):
        for _ in call:
            pass


def _is_idle(client: Client, tenant: str) -> bool:
    """Whether no run of a tenant is under way."""
    over = run_pb2.RUN_STATE_CANCELLED, run_pb2.RUN_STATE_FAILED, run_pb2.RUN_STATE_DONE
    return all(run.state in over for run in client.runs(tenant))
