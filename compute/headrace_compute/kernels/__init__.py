"""Hot loops as plain functions on arrays: Numba, `nogil`, no I/O, seeds explicit.

Importing a kernel's module compiles it, or loads it from Numba's cache.
"""

import importlib
import pkgutil


def warm() -> None:
    """Makes every kernel ready to run: some 15 s without a cache, 1 s with it."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
