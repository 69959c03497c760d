"""An immutable list with structural sharing: appending takes constant time and changes no older version."""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class ImmutableList(Sequence[T], Generic[T]):
    """A persistent list in the sense of functional programming: versions share their items."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = list(items)
        self._count = len(self._items)

    def appended(self, item: T) -> "ImmutableList[T]":
        """The list with one more item; copies only if something was appended to this version before."""
        longer: ImmutableList[T] = ImmutableList()
        longer._items = self._items if len(self._items) == self._count else self._items[: self._count]
        longer._items.append(item)
        longer._count = self._count + 1
        return longer

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
        return f"ImmutableList({self[:]!r})"
