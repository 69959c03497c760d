"""Splits: which events each part of a dataset may see.

The views of the splits grow: each sees what the one before it sees, and more. A split's positives are the
pairs that are positives in its view and not in the view before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

TRAIN, VALID, TEST = "train", "valid", "test"
TEMPORAL: Final = "temporal"
LEAVE_LAST_OUT: Final = "leave_last_out"


@dataclass(frozen=True)
class Split:
    """How a dataset is divided; see the message Split.

    Attributes:
        kind: By time, or each user's last two positives.
        cuts_us: Where splits begin, ascending, one or two; of a temporal split.
        fractions: In the place of cuts: shares of the positives that are before each, ascending, one or two.
    """

    kind: Literal["temporal", "leave_last_out"]
    cuts_us: tuple[int, ...] = ()
    fractions: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The splits, train first."""
        is_one = self.kind == TEMPORAL and len(self.cuts_us or self.fractions) == 1
        return (TRAIN, TEST) if is_one else (TRAIN, VALID, TEST)


def temporal_views(times_us: np.ndarray, cuts_us: Sequence[int]) -> list[np.ndarray | None]:
    """What each split sees where time divides them: the events before its end.

    Args:
        times_us: int64, of each event.
        cuts_us: Where each split but the first begins.

    Returns:
        For each split, bool, one per event; None: all.
    """
    return [*(times_us < cut_us for cut_us in cuts_us), None]


def leave_last_out_views(
    users: np.ndarray, items: np.ndarray, starts: np.ndarray, positives: np.ndarray, first_us: np.ndarray
) -> list[np.ndarray | None]:
    """What each split sees where each user's last positive is test and the one before it valid.

    Args:
        users, items: The user and the item of each event, by number.
        starts: int64, users + 1: where each user's positives begin.
        positives: int32, the item of each positive.
        first_us: int64, when each first was one.

    Returns:
        As `temporal_views`: all events but those of the pairs that are held out from it.
    """
    counts = np.diff(starts)
    owners = np.repeat(np.arange(counts.size), counts)
    # By (time DESC, item ASC), so that each user's last is first.
    order = np.lexsort((positives, -first_us, owners))
    last, second = (_held_out(starts, counts, positives[order], place) for place in (0, 1))
    before_last = items != last[users]
    return [before_last & (items != second[users]), before_last, None]


def first_seen(split: Split | None, views: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The first split that sees each event, int8; None if whoever is later sees more, so that time tells."""
    if split is None or split.kind == TEMPORAL:
        return None
    unseen = [~view for view in views if view is not None]
    splits: np.ndarray = np.add.reduce(unseen, axis=0, dtype=np.int8)
    return splits


def _held_out(starts: np.ndarray, counts: np.ndarray, items: np.ndarray, place: int) -> np.ndarray:
    """Each user's item at a place of its positives, -1 if there is none."""
    held = np.full(counts.size, -1, np.int64)
    has_any = counts > place
    held[has_any] = items[starts[:-1][has_any] + place]
    return held
