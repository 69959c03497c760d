"""Keys: the names of objects, and what can be wrong with one."""


class KeyExistsError(Exception):
    """`create` found an object under the key; whoever wrote it came first."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} is there already"


class KeyMissingError(Exception):
    """There is no object under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} is not there"


def check_key(key: str) -> None:
    """Refuses keys that could leave the store: names in them come from callers.

    Raises:
        ValueError: the key is not a relative path without empty or dot segments, or it is hidden.
    """
    segments = key.split("/")
    if "\0" in key or segments[0].startswith(".") or any(name in ("", ".", "..") for name in segments):
        raise ValueError(f"{key!r} is not a key: it must be a relative path without empty or dot segments")
