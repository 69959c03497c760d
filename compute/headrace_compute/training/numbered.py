"""The part of a sampling run that gives its ids integers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from headrace_compute.inputs.workers import Progress, Workers, each
from headrace_compute.sink import Sink, W
from headrace_compute.training.held import HeldShard
from headrace_compute.training.ids import (
    claim_items,
    claim_users,
    count_positives,
    index_items,
    index_users,
    list_users,
    write_items,
    write_users,
)
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.vocabulary import Entity


class Vocabularies(Protocol):
    """Where ids get their integers."""

    async def having(self, entity: Entity, claims: Sequence[Any]) -> Any:
        """A held `read_vocabulary` that has all of these ids.

        Args:
            claims: Held CLAIMS_SCHEMA.
        """


@dataclass(frozen=True)
class IdTables(Generic[W]):
    """What a run makes of ids beside its rows.

    Attributes:
        vocabularies: Where the integers are from.
        users, items: Where the rows of the two tables go.
    """

    vocabularies: Vocabularies
    users: Sink[W]
    items: Sink[W]


@dataclass(frozen=True)
class Numbered(Generic[W]):
    """The ids of a run with their integers, held by the workers.

    Attributes:
        users: Of each shard the index of its users.
        items: The index of each item, by number.
        user_rows: Of each shard the rows of the table of users.
        item_claims: CLAIMS_SCHEMA of all items.
        item_counts: Of each shard the positives of its items.
    """

    workers: Workers
    tables: IdTables[W]
    users: Sequence[Any]
    items: Any
    user_rows: Sequence[Any]
    item_claims: Any
    item_counts: Sequence[Any]

    def of_shard(self, place: int) -> tuple[Any, Any]:
        """What the rows of a shard take their indices from."""
        return self.users[place], self.items

    async def write(self) -> tuple[tuple[W, ...], tuple[W, ...]]:
        """Writes the two tables; returns what became of the users, and of the items."""
        items = (self.item_claims, self.items, *self.item_counts)
        return (
            await self.workers.run(write_users, self.tables.users, *self.user_rows),
            await self.workers.run(write_items, self.tables.items, *items),
        )


@dataclass(frozen=True)
class IdRun(Generic[W]):
    """Gives every user that has rows and every item its integer.

    Attributes:
        numbering: The held Numbering of all items.
        alive: The held living items.
    """

    workers: Workers
    tables: IdTables[W]
    numbering: Any
    alive: Any
    params: SamplingParams
    progress: Progress

    async def number(self, shards: Sequence[HeldShard]) -> Numbered[W]:
        """Does so, for all shards of the run."""
        workers, vocabularies = self.workers, self.tables.vocabularies
        claims = await each("claims", list(map(self._claim, shards)), self.progress)
        item_claims = await workers.hold(claim_items, self.numbering, *(shard.firsts for shard in shards))
        vocabulary = await vocabularies.having("user", [claimed for _, claimed in claims])
        items = await workers.hold(
            index_items, await vocabularies.having("item", [item_claims]), self.numbering
        )
        listing = [self._list(shard, vocabulary, *claim) for shard, claim in zip(shards, claims, strict=True)]
        listed = await each("ids", listing, self.progress)
        users, user_rows, item_counts = zip(*listed, strict=True)
        return Numbered(workers, self.tables, users, items, user_rows, item_claims, item_counts)

    async def _claim(self, shard: HeldShard) -> Sequence[Any]:
        """Which users of a shard have rows, and their claims."""
        positives = (positives for _, positives in shard.views)
        claimed = (shard.firsts, shard.core, self.alive, self.params, *positives)
        return await self.workers.hold_each(2, claim_users, *claimed)

    async def _list(
        self, shard: HeldShard, vocabulary: Any, places: Any, claims: Any
    ) -> tuple[Any, Any, Any]:
        """The index of each user of a shard, the rows of those that have any, and the positives of items."""
        workers, (_, positives) = self.workers, shard.views[0]
        users = await workers.hold(index_users, vocabulary, positives)
        kept = (positives, shard.core, self.alive, self.params)
        by_user, by_item = await workers.hold_each(2, count_positives, *kept)
        return users, await workers.hold(list_users, places, claims, users, by_user), by_item
