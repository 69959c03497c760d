"""What training data to make."""

from dataclasses import dataclass


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
        max_interactions_per_user: Newest positives kept of each user; 0 = all.
        min_interactions_per_user, min_interactions_per_item: k-core; 0 = off.
    """

    seed: int = 0
    negative_ratio: int = 4
    strategy: str = "popularity"
    alpha: float = 0.75
    zipf_exponent: float = 1.0
    uniform_share: float = 0.5
    positive_types: tuple[str, ...] = ("click", "purchase", "like")
    max_interactions_per_user: int = 50
    min_interactions_per_user: int = 5
    min_interactions_per_item: int = 5
