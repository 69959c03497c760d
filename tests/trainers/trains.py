"""Trains a model of RecBole on an export: `trains.py CONFIG NAME MODEL`. Prints its counts and its result."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# RecBole 1.2.1 is of before NumPy 2, which has these names no more.
for name, kind in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, name, kind)


def main() -> None:
    config_file, (name, model) = Path(sys.argv[1]).absolute(), sys.argv[2:]
    os.chdir(tempfile.mkdtemp())
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.quick_start import run_recbole

    settings: dict[str, Any] = {
        "epochs": 2,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "save_dataset": False,
    }
    if model == "SASRec":
        # Its loss is a softmax over all items.
        settings["train_neg_sample_args"] = None
    config = Config(model=model, dataset=name, config_file_list=[str(config_file)], config_dict=settings)
    dataset = create_dataset(config)
    # Number 0 of users and items is padding.
    counts = {
        "users": dataset.user_num - 1,
        "items": dataset.item_num - 1,
        "interactions": dataset.inter_num,
        "fields": sorted(dataset.field2type),
    }
    # Not saved: what it writes, later versions of PyTorch do not load by default.
    result = run_recbole(
        model=model, dataset=name, config_file_list=[str(config_file)], config_dict=settings, saved=False
    )
    json.dump(
        {**counts, "test": {key: float(value) for key, value in result["test_result"].items()}}, sys.stdout
    )


if __name__ == "__main__":
    main()
