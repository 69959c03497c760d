"""Trains a recommender on Headrace's training data and says how good it is: matrix factorisation in NumPy.

    python clients/python/examples/train.py [--address HOST:PORT] [--items FILE --interactions FILE]

It uploads a shop, the one of `headrace generate` or the files given, and has training data made of it in
which each user's last positive is held out as test and the one before it as valid. What it prints beside
popularity are recall@20 and NDCG@20 of both: how often, and how high up, what a user turned to next is among
the twenty items that the model ranks highest of all that the user has no positive for. The epoch that does
best on valid is the one that test sees.

Bayesian Personalized Ranking (Rendle et al., 2009) wants each positive to score higher than its negatives.
These are drawn uniformly here: negatives by popularity teach the difference to popularity, which a ranking
has to put back in (docs/training.md).
"""

import argparse
import copy
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace import Client
from headrace.connection import DEFAULT_ADDRESS
from headrace.sample import Sample, generate

SHOP = Sample(users=1_000, items=400, interactions=100_000, seed=1)
RATIO = 4
GROUP = 1 + RATIO
LIST = 20
"""Items of a recommendation."""

FACTORS = 32
EPOCHS = 20
RATE = 0.05
DECAY = 0.03


class Factors:
    """Scores items for users: bias[item] + users[user] · items[item].

    Users and items are their indices, so rows 0 are nobody's.

    Attributes:
        users: float64 (1 + users, FACTORS).
        items: float64 (1 + items, FACTORS).
        bias: float64 (1 + items).
    """

    def __init__(self, users: int, items: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.users = random.normal(0.0, 0.1, (users, FACTORS))
        self.items = random.normal(0.0, 0.1, (items, FACTORS))
        self.bias = np.zeros(items)

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Of all items for some users."""
        found: np.ndarray = self.users[users] @ self.items.T + self.bias
        return found

    def step(self, users: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> None:
        """Goes down the gradient of -ln sigmoid(score of the positive - score of a negative).

        Args:
            users, positives: (groups).
            negatives: (groups, RATIO).
        """
        user, positive, negative = self.users[users], self.items[positives], self.items[negatives]
        difference = positive[:, None, :] - negative
        ahead = (
            self.bias[positives][:, None] - self.bias[negatives] + np.einsum("gf,grf->gr", user, difference)
        )
        push = RATE / (1.0 + np.exp(ahead))
        pulls = push.sum(axis=1)
        np.add.at(self.users, users, np.einsum("gr,grf->gf", push, difference) - RATE * DECAY * user)
        np.add.at(self.items, positives, pulls[:, None] * user - RATE * DECAY * positive)
        np.add.at(self.items, negatives, -push[:, :, None] * user[:, None, :] - RATE * DECAY * negative)
        np.add.at(self.bias, positives, pulls)
        np.add.at(self.bias, negatives, -push)


class Evaluation:
    """What a split holds out, and what is not to be recommended any more.

    Args:
        users, items: (pairs), what is held out.
        known: bool (users, items), each user's positives before.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, known: np.ndarray) -> None:
        self._users, place = np.unique(users, return_inverse=True)
        self._wanted = np.zeros((len(self._users), known.shape[1]), np.bool_)
        self._wanted[place, items] = True
        self._known = known[self._users]

    def measure(self, scores: np.ndarray) -> tuple[float, float]:
        """Recall@20 and NDCG@20, means over users.

        Args:
            scores: (users, items), of all users.
        """
        ranked = np.where(self._known, -np.inf, scores[self._users])
        top = np.argsort(-ranked, axis=1, kind="stable")[:, :LIST]
        hits = np.take_along_axis(self._wanted, top, axis=1)
        wanted = self._wanted.sum(axis=1)
        gains = 1.0 / np.log2(np.arange(2, LIST + 2))
        best = np.cumsum(gains)[np.minimum(wanted, LIST) - 1]
        return float((hits.sum(axis=1) / wanted).mean()), float((hits @ gains / best).mean())


def make_dataset(client: Client, tenant: str, items: Path, interactions: Path) -> None:
    """Uploads a shop and samples its training data."""
    client.upload(tenant, "items", items)
    client.upload(tenant, "interactions", interactions)
    made = client.sample_negatives(
        tenant,
        strategy="uniform",
        negative_ratio=RATIO,
        split="leave_last_out",
        max_interactions_per_user=0,
        with_indices=True,
    )
    print(f"{made.positives:,} positives, {made.negatives:,} negatives, {made.negatives_short} short")


def positives_of(client: Client, tenant: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """User and item of each positive."""
    columns = ["user_index", "item_index", "label"]
    rows = pa.Table.from_batches(list(client.training_data(tenant, split=split, columns=columns)))
    rows = rows.filter(pc.equal(rows["label"], 1.0))
    return rows["user_index"].to_numpy(), rows["item_index"].to_numpy()


def train(client: Client, tenant: str, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Trains, and prints how good that is.

    Returns:
        Recall@20 and NDCG@20 on test, of `popularity` and of `bpr`.
    """
    items = client.read_table(tenant, "training_data_items", columns=["item_index", "count"])
    users = client.read_table(tenant, "training_data_users", columns=["user_index"])
    shape = 1 + pc.max(users["user_index"]).as_py(), 1 + pc.max(items["item_index"]).as_py()
    popularity = np.zeros(shape)
    popularity[:, items["item_index"].to_numpy()] = items["count"].to_numpy()
    known = np.zeros(shape, np.bool_)
    known[:, 0] = True
    held_out: dict[str, Evaluation] = {}
    for split in ("train", "valid", "test"):
        pairs = positives_of(client, tenant, split)
        held_out[split] = Evaluation(*pairs, known.copy())
        known[pairs] = True

    data = client.training_data(
        tenant,
        split="train",
        columns=["user_index", "item_index"],
        shuffle_seed=seed,
        batch_rows=50 * GROUP,
        group_rows=GROUP,
    )
    everybody = np.arange(shape[0])
    model, best, chosen = Factors(*shape, seed), -1.0, None
    for epoch in range(EPOCHS):
        for batch in data:
            of_user = batch["user_index"].to_numpy().reshape(-1, GROUP)
            of_item = batch["item_index"].to_numpy().reshape(-1, GROUP)
            model.step(of_user[:, 0], of_item[:, 0], of_item[:, 1:])
        recall, ndcg = held_out["valid"].measure(model.scores(everybody))
        if ndcg > best:
            best, chosen = ndcg, copy.deepcopy(model)
        print(f"epoch {epoch + 1:2}  valid recall@{LIST} {recall:.4f}  NDCG@{LIST} {ndcg:.4f}")
    assert chosen is not None
    found = {
        "popularity": held_out["test"].measure(popularity),
        "bpr": held_out["test"].measure(chosen.scores(everybody)),
    }
    for name, (recall, ndcg) in found.items():
        print(f"{name:10}  test recall@{LIST} {recall:.4f}  NDCG@{LIST} {ndcg:.4f}")
    return found


def main() -> None:
    """Uploads, samples, trains."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--address", default=DEFAULT_ADDRESS)
    options.add_argument("--tenant", default=f"train-{uuid.uuid4().hex[:8]}")
    options.add_argument("--items", type=Path)
    options.add_argument("--interactions", type=Path)
    given = options.parse_args()
    with Client(given.address) as client, tempfile.TemporaryDirectory() as folder:
        items, interactions = given.items, given.interactions
        if interactions is None:
            made = generate(SHOP, Path(folder))
            items, interactions = made.items, made.interactions
        make_dataset(client, given.tenant, items, interactions)
        train(client, given.tenant)


if __name__ == "__main__":
    main()
