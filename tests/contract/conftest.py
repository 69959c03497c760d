"""The stores that every contract of the storage seam is held to: a local folder, and a real MinIO.

A module that takes `config` names `pytest_plugins = ["brokers.fixtures"]`, where the MinIO comes from.
"""

from pathlib import Path

import pytest
from brokers.minio import Minio
from contract.reach import s3_of

from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store


@pytest.fixture(scope="session")
def s3_config(minio: Minio) -> StoreConfig:
    """A prepared store in the tests' MinIO, as earlier tests have left it."""
    config = StoreConfig("", s3=s3_of(minio))
    open_store(config).prepare()
    return config


@pytest.fixture(params=["local", "s3"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> StoreConfig:
    """An empty store of each kind."""
    if request.param == "local":
        return StoreConfig(str(tmp_path))
    found: StoreConfig = request.getfixturevalue("s3_config")
    for bucket in found.buckets:
        open_store(found).delete_all(bucket)
    return found
