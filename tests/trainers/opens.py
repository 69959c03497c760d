"""Opens an export of Parquet shards with trainers' readers, offline: `opens.py FOLDER`.

Prints how many rows each of them finds, and in which columns.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def with_datasets(folder: Path) -> dict[str, Any]:
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=tempfile.mkdtemp())
    import datasets

    splits = datasets.load_dataset(str(folder))
    return {
        split: [rows.num_rows, rows.column_names, sorted(zip(rows["user_id"], rows["item_id"], strict=True))]
        for split, rows in splits.items()
    }


def with_ray(folder: Path) -> list[Any]:
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    rows = ray.data.read_parquet(str(folder / "data"))
    return [rows.count(), rows.schema().names]


def main() -> None:
    folder = Path(sys.argv[1])
    json.dump({"datasets": with_datasets(folder), "ray": with_ray(folder)}, sys.stdout)


if __name__ == "__main__":
    main()
