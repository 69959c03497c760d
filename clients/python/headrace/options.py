"""Options of calls, by name."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypedDict


def check_options(options: Mapping[str, object], known: type) -> None:
    """Refuses unknown options: a typo must not commit data that the option was meant to refuse.

    Args:
        options: What was given.
        known: The TypedDict that names what there is.

    Raises:
        TypeError: There is no such option.
    """
    if unknown := sorted(options.keys() - known.__annotations__.keys()):
        raise TypeError(
            f"Unknown option {unknown[0]!r}; expected one of {', '.join(sorted(known.__annotations__))}."
        )


class UploadOptions(TypedDict, total=False):
    """Options of an upload: what refuses it, and how long it is resumed.

    Attributes:
        policy: `quarantine` (default) keeps bad rows out; with `all_or_nothing`
            one bad row refuses the upload.
        max_rejects: More bad records refuse the upload. 0 = no limit.
        max_reject_ratio: A larger share of bad records, 0.0 to 1.0, refuses it.
        unknown_columns: `ignore` (default) warns of columns outside the contract,
            `reject` fails the upload.
        max_future_skew: How far ahead of now a timestamp may lie. Default 1 day.
        upload_id: A UUID, to resume or repeat an upload. Default a new one.
        patience_s: Seconds without progress after which an upload that broke is
            given up. Default 120; 0 = it is not resumed at all.
    """

    policy: Literal["quarantine", "all_or_nothing"]
    max_rejects: int
    max_reject_ratio: float
    unknown_columns: Literal["ignore", "reject"]
    max_future_skew: timedelta
    upload_id: str
    patience_s: float


class ValidateOptions(TypedDict, total=False):
    """How a validation judges.

    Attributes:
        reject_unknown_columns: Fail on columns outside the contract.
        max_future_skew: How far ahead of now a timestamp may lie. Default 1 day.
    """

    reject_unknown_columns: bool
    max_future_skew: timedelta


class RunOptions(TypedDict, total=False):
    """What a run reads, and whose it is.

    Attributes:
        interactions_version, items_version: Table versions to read. Default the newest.
        known_at: Read what was committed at or before it; naive = UTC. Default the newest.
        request_id: A UUID: the run goes on without this client, and is followed again, or its result
            fetched, by a call with the same id and options. Default: the run ends with the call.
        patience_s: Seconds without progress after which a run with a request_id is no longer followed while
            the server cannot be reached. Default 120; 0 = it is not tried again at all.
    """

    interactions_version: int
    items_version: int
    known_at: datetime
    request_id: str
    patience_s: float


class DriftLimits(TypedDict, total=False):
    """From when on the result of a features run warns that a column has drifted.

    Attributes:
        l_infinity, jensen_shannon: The largest distance that is no drift, 0 to 1. Default any. Neither is for
            user_id, item_id and bucket.
        columns: The same for single columns, by names such as `user_features.avg_rating`.
        baseline_versions: Versions to compare with, by table. Default the versions before.
    """

    l_infinity: float
    jensen_shannon: float
    columns: Mapping[str, float]
    baseline_versions: Mapping[str, int]


class FeaturesOptions(RunOptions, total=False):
    """What features are computed; `describe_features` and run.proto say more.

    Attributes:
        windows: Lengths of the windows before `as_of`, in days. Default 7 and 30.
        weights: Weights of interaction types in engagement_score; those left out keep their defaults.
        half_life_days: After so many days an event adds half as much to engagement_score. Default 30.
        smoothing: How many views the tenant's own rate stands for in the smoothed rates. Default 10.
        drift_limits: When to warn of drift. Default never.
    """

    windows: Sequence[int]
    weights: Mapping[str, float]
    half_life_days: float
    smoothing: float
    drift_limits: DriftLimits


class TemporalSplit(TypedDict, total=False):
    """Divides training data by time: one value gives train and test, two give train, valid and test.

    Attributes:
        cuts: When each split after train begins; naive = UTC.
        fractions: In their place the shares of the positives that are before each, such as 0.8 and 0.9.
    """

    cuts: Sequence[datetime]
    fractions: Sequence[float]


class NegativesOptions(RunOptions, total=False):
    """What training data is made; run.proto says more of every field.

    Attributes:
        dataset: Name of the training set. Default training_data.
        negative_ratio: Distinct negatives for each positive.
        strategy: `popularity` (default), `uniform`, `zipf`, `mixed` or `exposed`. A parameter that it does
            not heed is refused, unless it has its default.
        alpha: Exponent of popularity: the strategy, its share of mixed, and what exposed draws by when it has
            too few. Default 0.75.
        zipf_exponent: Exponent of the rank, of zipf. Default 1.
        uniform_share: Of uniform in mixed, the rest is popularity. Default 0.5.
        available_only: Draws only items that occur by the positive's time, whoever they occur with.
        same_category_share: How likely each draw is from the positive's own category. Default 0.
        seed: Equal inputs and seed give equal tables. Default 0.
        positive_interaction_types: Default click, purchase, like.
        max_interactions_per_user, min_interactions_per_user,
        min_interactions_per_item: The cap and the k-core. 0 = off.
        split: How the set is divided: by time, or each user's last positive is test and the one before it
            valid. Default not at all.
        eval_negative_ratio: The negative_ratio of valid and test.
        with_features: Adds features to each row, of one instant or of the positive's day. Default none.
        feature_columns: Which ones, such as `user_total_interactions`. Default all but lists.
        history: Adds a list of the user's last so many events before the positive. Default none.
        history_interaction_types: Of these types. Default the positive ones.
        history_timestamps: Adds their times too.
        with_indices: Adds the integers of users and items, and the tables `<dataset>_users` and
            `<dataset>_items`. An id keeps its integer in all training sets of the tenant.
    """

    dataset: str
    negative_ratio: int
    strategy: str
    alpha: float
    zipf_exponent: float
    uniform_share: float
    available_only: bool
    same_category_share: float
    seed: int
    positive_interaction_types: Sequence[str]
    max_interactions_per_user: int
    min_interactions_per_user: int
    min_interactions_per_item: int
    split: TemporalSplit | Literal["leave_last_out"]
    eval_negative_ratio: int
    with_features: Literal["snapshot", "point_in_time"]
    feature_columns: Sequence[str]
    history: int
    history_interaction_types: Sequence[str]
    history_timestamps: bool
    with_indices: bool


class ReadOptions(TypedDict, total=False):
    """What is read of a table.

    Attributes:
        version: Version to read. Default the newest.
        columns: Columns, in this order. Default all.
        limit: At most this many rows. 0 = no limit.
        offset: Rows to skip before the first one. Default 0.
        split: Only rows of this split of a training set; offset and limit count them alone. Default all.
    """

    version: int
    columns: Sequence[str]
    limit: int
    offset: int
    split: str


class TrainingOptions(TypedDict, total=False):
    """What a trainer reads of a training set, and in which order.

    Attributes:
        version: Version to read. Default the newest, which is pinned.
        split: `train`, `valid` or `test`. Default all rows.
        columns: Columns, in this order. Default all.
        shuffle_seed: 0 to 2^64 - 1: rows come in an order of each epoch's own, which the seed picks. Default
            the order of the table, each positive before its negatives.
        batch_rows: Rows of a batch; the last one of an epoch may have fewer. Default 4,096.
        group_rows: Rows that stay together, in their order, and are shuffled as one; batch_rows must be a
            multiple. 1 + negative_ratio keeps positives with their negatives, if the run was short of none
            (`negatives_short`). Default 1.
        rank, ranks: Which of how many trainers share an epoch: each row goes to one of them. Default 0 of 1.
        even_ranks: Whether the last rows of an epoch's order, fewer groups than there are ranks, are left out
            so that all ranks have as many batches. Default each row once, with one group more for some ranks.
    """

    version: int | None
    split: str | None
    columns: Sequence[str] | None
    shuffle_seed: int | None
    batch_rows: int
    group_rows: int
    rank: int
    ranks: int
    even_ranks: bool
