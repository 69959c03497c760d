"""What training data to make."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from headrace_compute.training.split import Split

SNAPSHOT: Final = "snapshot"
POINT_IN_TIME: Final = "point_in_time"


@dataclass(frozen=True)
class SamplingParams:
    """What training data to make; see SampleNegativesRequest for ranges.

    Attributes:
        seed: uint64.
        negative_ratio: Distinct negatives for each positive.
        strategy: A name in `strategies.STRATEGIES`.
        alpha: Exponent of popularity.
        zipf_exponent: Exponent of the rank, of zipf.
        uniform_share: Of the mixture of uniform and popularity, 0 to 1.
        available_only: Whether only items that occur by the positive's time are drawn.
        same_category_share: How likely each draw is from the positive's category, 0 to 1.
        max_interactions_per_user: Newest positives kept of each user; 0 = all.
        min_interactions_per_user, min_interactions_per_item: k-core; 0 = off.
        split: None makes one of everything.
        eval_negative_ratio: That of the splits after the first; None is negative_ratio.
        with_features: Features of one instant for all rows, or of each positive's day; None: no features.
        feature_columns: Names of `feature_columns.columns_of`; empty takes all but lists.
        history: Events at most in the list of what the user did before; 0 = no such column.
        history_types: Of these; empty = the positive types.
        history_timestamps: Whether their times are a column too.
        with_indices: Whether rows have the indices of their ids, and tables of these come with them.
    """

    seed: int = 0
    negative_ratio: int = 4
    strategy: str = "popularity"
    alpha: float = 0.75
    zipf_exponent: float = 1.0
    uniform_share: float = 0.5
    available_only: bool = False
    same_category_share: float = 0.0
    positive_types: tuple[str, ...] = ("click", "purchase", "like")
    max_interactions_per_user: int = 50
    min_interactions_per_user: int = 5
    min_interactions_per_item: int = 5
    split: Split | None = None
    eval_negative_ratio: int | None = None
    with_features: Literal["snapshot", "point_in_time"] | None = None
    feature_columns: tuple[str, ...] = ()
    history: int = 0
    history_types: tuple[str, ...] = ()
    history_timestamps: bool = False
    with_indices: bool = False

    def of_split(self, is_first: bool) -> "SamplingParams":
        """Those of one split: the cap is the first one's, and the others may have a ratio of their own."""
        if is_first:
            return self
        ratio = self.negative_ratio if self.eval_negative_ratio is None else self.eval_negative_ratio
        return replace(self, negative_ratio=ratio, max_interactions_per_user=0)
