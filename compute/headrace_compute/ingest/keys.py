"""Keys: which columns each record names, where every record names its own, as JSON objects do."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


def _no_pairs() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Keys:
    """The keys of the records of a block.

    Attributes:
        given: Per contract column bool per record: whether it has the key, with a value or with null.
        unknown: Keys outside the contract, cut as they are shown, so that two may look alike.
        places, rows: int64 per pair of such a key and a record that has it, each once: the key's place in
            `unknown`, and the record.
    """

    given: tuple[np.ndarray, ...]
    unknown: tuple[str, ...] = ()
    places: np.ndarray = field(default_factory=_no_pairs)
    rows: np.ndarray = field(default_factory=_no_pairs)

    def counts(self) -> Mapping[str, int]:
        """Unknown keys -> how many records have them."""
        counts: Counter[str] = Counter()
        for key, count in zip(self.unknown, np.bincount(self.places).tolist(), strict=True):
            counts[key] += count
        return counts

    def counts_by(self, owner: np.ndarray, owners: int) -> list[Mapping[str, int]]:
        """As `counts`, apart for the records of each of several uploads.

        Args:
            owner: int64 per record, its upload.
        """
        counts: list[Counter[str]] = [Counter() for _ in range(owners)]
        pairs, found = np.unique(owner[self.rows] * len(self.unknown) + self.places, return_counts=True)
        for pair, count in zip(pairs.tolist(), found.tolist(), strict=True):
            place, key = divmod(pair, len(self.unknown))
            counts[place][self.unknown[key]] += count
        return list(counts)
