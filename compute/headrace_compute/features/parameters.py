"""Parameters of features: what a request may choose."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.errors import InvalidFieldError

DAY_US = 86_400_000_000

MAX_WINDOWS = 8
MAX_WINDOW_DAYS = 3_650
MAX_WEIGHT = 1e6

WEIGHTS: Mapping[str, float] = {"view": 0.1, "click": 1.0, "like": 2.0, "add_to_cart": 3.0, "purchase": 4.0}
"""What an event of a type adds to engagement_score when it happens, unless a request says otherwise."""


@dataclass(frozen=True)
class FeatureParams:
    """What a run is to compute; see ComputeFeaturesRequest.

    Attributes:
        windows: Lengths of the windows before `as_of` in days, ascending.
        weights: Weight of each interaction type in engagement_score, 0 to 1e6.
        half_life_days: After so many days an event adds half as much to engagement_score.
        smoothing: How many bottom events the tenant's rate stands for in a smoothed rate, 0 to 1e6.

    Raises:
        InvalidFieldError: A value is out of range.
    """

    windows: tuple[int, ...] = (7, 30)
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    half_life_days: float = 30.0
    smoothing: float = 10.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if len(self.windows) > MAX_WINDOWS:
            raise _invalid("windows", f"has {len(self.windows)} values; there may be {MAX_WINDOWS}.")
        for days in self.windows:
            if not 1 <= days <= MAX_WINDOW_DAYS:
                raise _invalid("windows", f"has {days}; a window has 1 to {MAX_WINDOW_DAYS:,} days.")
        for name, weight in self.weights.items():
            if name not in INTERACTION_TYPES:
                types = ", ".join(INTERACTION_TYPES)
                raise _invalid("weights", f"names {name[:80]!r}; expected one of {types}.")
            if not 0 <= weight <= MAX_WEIGHT:
                raise _invalid("weights", f"has {weight} for {name}; it must be 0 to 1e6.")
        if not (math.isfinite(self.half_life_days) and self.half_life_days > 0):
            raise _invalid("half_life_days", f"is {self.half_life_days}; it must be positive.")
        if not 0 <= self.smoothing <= MAX_WEIGHT:
            raise _invalid("smoothing", f"is {self.smoothing}; it must be 0 to 1e6.")

    def values(self, as_of_us: int) -> dict[str, int | float]:
        """The `$parameters` of the queries as of an instant."""
        return {"as_of_us": as_of_us, **self.constants}

    @property
    def constants(self) -> dict[str, int | float]:
        """Those that are the same at every instant."""
        return {
            "half_life_us": self.half_life_days * DAY_US,
            "smoothing": self.smoothing,
            **{f"weight_{name}": float(self.weights.get(name, 0.0)) for name in INTERACTION_TYPES},
        }


def _invalid(name: str, what: str) -> InvalidFieldError:
    return InvalidFieldError(f"Field {name} {what}", {"field": name})
