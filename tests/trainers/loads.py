"""Reads a training set through TrainingLoader, stopping on the way: `loads.py ADDRESS TENANT DATASET`.

Prints a JSON object: for each number of workers and each rank the rows of its batches, epoch by epoch.
"""

import json
import random
import sys
from typing import Any

from headrace.torch import TrainingDataset, TrainingLoader

EPOCHS = 2
RANKS = 2


def loader_of(workers: int, rank: int, prefetch: int | None = None) -> TrainingLoader:
    address, tenant, name = sys.argv[1:]
    dataset = TrainingDataset(
        tenant, name, address=address, split="train", shuffle_seed=3, batch_rows=50, rank=rank, ranks=RANKS
    )
    return TrainingLoader(dataset, num_workers=workers, **({"prefetch_factor": prefetch} if workers else {}))


def rows_of(batch: dict[str, Any]) -> list[str]:
    assert batch["label"].dtype.is_floating_point
    assert len(batch["label"]) == len(batch["timestamp"]) == len(batch["user_id"])
    return [f"{user} {item}" for user, item in zip(batch["user_id"], batch["item_id"], strict=True)]


def with_stops(workers: int, rank: int, stops: int, chance: random.Random) -> list[list[str]]:
    """All batches of the epochs, from loaders each of which is left somewhere and followed by another."""
    found: list[list[str]] = []
    total = EPOCHS * len(loader_of(0, rank))
    ends = [*sorted(chance.sample(range(1, total), stops)), total]
    state: dict[str, Any] | None = None
    for end in ends:
        loader = loader_of(workers, rank, chance.randint(1, 4))
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        while len(found) < end:
            for batch in loader:
                found.append(rows_of(batch))
                if len(found) == end:
                    break
        state = loader.state_dict()
    return found


def main() -> None:
    chance = random.Random(1)
    runs = {
        f"{workers} workers": [with_stops(workers, rank, stops, chance) for rank in range(RANKS)]
        for workers, stops in ((0, 19), (1, 3), (2, 3))
    }
    json.dump({"epochs": EPOCHS, "runs": runs}, sys.stdout)


if __name__ == "__main__":
    main()
