"""Queries that stand in files of their own; a query's name is its file's, without `.sql`.

The header of each states its inputs, its output and its grain.
"""

from functools import cache
from importlib import resources


@cache
def load_query(name: str) -> str:
    """The text of a query."""
    return resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
