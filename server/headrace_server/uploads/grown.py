"""A sequence that grows at its end, and of which every former state stays valid."""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Grown(Sequence[T], Generic[T]):
    """Immutable, yet longer by one in constant time: states of one line of growth share their items."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = list(items)
        self._count = len(self._items)

    def with_one(self, item: T) -> "Grown[T]":
        """The same with one more; copies only where this state has grown once already."""
        grown: Grown[T] = Grown()
        grown._items = self._items if len(self._items) == self._count else self._items[: self._count]
        grown._items.append(item)
        grown._count = self._count + 1
        return grown

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> list[T]: ...

    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self._items[i] for i in range(*place.indices(self._count))]
        return self._items[range(self._count)[place]]

    def __repr__(self) -> str:
        return f"Grown({self[:]!r})"
