"""Reads a training set with two ranks of torch.distributed: `ranks.py ADDRESS TENANT DATASET`.

Prints the rows of each rank, and what becomes of a DataLoader whose workers are forked.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from torch import distributed, multiprocessing
from torch.utils.data import DataLoader

from headrace.torch import TrainingDataset, TrainingLoader

RANKS = 2


def dataset_of(**options: Any) -> TrainingDataset:
    address, tenant, name = sys.argv[1:]
    return TrainingDataset(tenant, name, address=address, split="train", batch_rows=50, **options)


def read(rank: int, folder: str, arguments: list[str]) -> None:
    sys.argv = arguments
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    batches = list(TrainingLoader(dataset_of(shuffle_seed=3, even_ranks=True)))
    rows = [
        f"{user} {item}"
        for batch in batches
        for user, item in zip(batch["user_id"], batch["item_id"], strict=True)
    ]
    Path(folder, str(rank)).write_text(json.dumps({"batches": len(batches), "rows": rows}))
    distributed.destroy_process_group()


def forked() -> str:
    try:
        next(iter(DataLoader(dataset_of(), batch_size=None, num_workers=1, multiprocessing_context="fork")))
    except RuntimeError as error:
        return str(error)
    return ""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(read, args=(folder, sys.argv), nprocs=RANKS)
        ranks = [json.loads(Path(folder, str(rank)).read_text()) for rank in range(RANKS)]
    json.dump({"ranks": ranks, "forked": forked()}, sys.stdout)


if __name__ == "__main__":
    main()
