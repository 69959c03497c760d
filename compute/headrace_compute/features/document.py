"""docs/features.md, from the registry: `python -m headrace_compute.features.document > docs/features.md`."""

import sys

from headrace_compute.features.feature import GRAINS, Grain
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import families

_HEAD = """# Features

Written by `make docs` from the declarations in `compute/headrace_compute/features/families`; do not edit it.
Terms and default parameters are those of [semantics.md](semantics.md). `headrace describe`, the call
DescribeFeatures and the comments of the tables' columns say the same. What the columns of a version are like,
and how far they have drifted, `headrace stats` and the call GetFeatureStatistics tell.
"""

_CUTS = """
## At many cut times

Training data that must not know the future takes these columns before instants of its own, a row for each
pair of an id and an instant that it asks for, from one pass over the source: `features_at_cuts` in
`compute/headrace_compute/features/cut_run.py`, or without workers as in `compute/examples/plain_tables.py`.
The instant stands in the column `cut` and in the place of as_of. What has no events before it has a row too:
see [semantics.md](semantics.md#features-at-many-cut-times).

Only columns that are wanted are computed. Each costs every event once, and every pair once; but
`engagement_score`, whose terms all know as_of, costs an event once for each later cut of its item.
"""

_TABLES: dict[Grain, str] = {
    "user": "One row for each user with an event, in the order of (`bucket`, `user_id`).",
    "item": "One row for each item with an event or in the catalog, in the order of (`bucket`, `item_id`).",
}


def document() -> str:
    """The page."""
    parts = [_HEAD]
    for grain in GRAINS:
        parts.append(f"\n## {grain}_features\n\n{_TABLES[grain]}\n")
        parts.append("\n| column | type | family | unit | meaning | null when |\n|---|---|---|---|---|---|\n")
        for family, features in families(FeatureParams()).items():
            for each in features:
                if each.grain == grain:
                    cells = (
                        f"`{each.name}`",
                        str(each.type),
                        family,
                        each.unit,
                        each.meaning,
                        each.null_when,
                    )
                    parts.append(f"| {' | '.join(cells)} |\n")
    return "".join([*parts, _CUTS])


if __name__ == "__main__":
    sys.stdout.write(document())
