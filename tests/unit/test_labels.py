"""Names of actors and tasks on Ray's dashboard."""

from headrace_compute.model import Block, DataFile, Piece, Shard, UploadSpec
from headrace_compute.workers.labels import ActorNames, task_name


def stage() -> None:
    """What a task is named after."""


def test_actors_have_owner_kind_and_number_and_no_name_twice() -> None:
    names = ActorNames("pipeline-host-1a2b", "worker")
    found = [names.next(0), names.next(1), names.next(0)]
    prefix = "pipeline-host-1a2b/worker"
    assert found == [f"{prefix}/0", f"{prefix}/1", f"{prefix}/0.2"]


def test_tasks_have_stage_tenant_table_and_shard() -> None:
    files = [DataFile(f"raw-data/acme/interactions/{part}.parquet", 1, 1) for part in "ab"]
    assert task_name(stage, "acme", [files, Shard(0, 512), 7]) == "stage acme interactions buckets 0-511"
    dataset = DataFile("training-data/acme/datasets/mine/part.parquet", 1, 1)
    assert task_name(stage, "acme", [dataset, dataset]) == "stage acme datasets/mine"
    assert task_name(stage, "acme", [Piece(dataset, 0, 0, 1)]) == "stage acme datasets/mine"


def test_tasks_of_uploads_have_their_block() -> None:
    spec = UploadSpec("id", "items", "p", "r", "s", 0, 0)
    block = Block(3, "csv", 0, 1, 0, 1, 1)
    assert task_name(stage, "", [spec, block, b"row"]) == "stage - items block 3"
