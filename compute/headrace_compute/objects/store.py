"""Opens the store that a configuration names.

The one module to import for everything about objects; the protocol and the errors
of keys come from the modules beside it.
"""

import functools

from headrace_compute.model import StoreConfig
from headrace_compute.objects.interface import ObjectStore
from headrace_compute.objects.keys import KeyExistsError, KeyMissingError
from headrace_compute.objects.local import LocalStore
from headrace_compute.objects.s3 import S3Store

__all__ = ["KeyExistsError", "KeyMissingError", "LocalStore", "ObjectStore", "S3Store", "open_store"]


@functools.cache
def open_store(config: StoreConfig) -> ObjectStore:
    """The store of a configuration; one for each process."""
    return LocalStore(config.root) if config.s3 is None else S3Store(config, config.s3)
