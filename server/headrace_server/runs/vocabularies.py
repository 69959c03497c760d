"""A tenant's vocabularies, as a run uses them: extended by what they lack, or those of a version.

Two runs that extend one at once, on whatever servers, are ordered by its log: new ids are numbered from
the end of a version, and committed on top of just that version, or numbered anew from the one between.
Nothing is taken back: a vocabulary that is longer than what a cancelled run needed does no harm.
"""

import asyncio
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from headrace_compute.delta import drafts, tables
from headrace_compute.delta.commits import VersionMovedError
from headrace_compute.delta.drafts import Draft
from headrace_compute.errors import HeadraceError, TableNotFoundError, UnavailableError
from headrace_compute.inputs.workers import Workers
from headrace_compute.model import Kind, Part, Snapshot, StoreConfig
from headrace_compute.training.vocabulary import Entity, read_vocabulary, vocabulary_schema, write_new_ids
from headrace_server import __version__
from headrace_server.services import Services, TableCommit

KINDS: Mapping[Entity, Kind] = {"user": "user_vocabulary", "item": "item_vocabulary"}


class GrowingVocabularies:
    """Appends the ids that a run needs and they lack.

    Attributes:
        used: The version of each that has all that the run needs, once it has been asked for.
    """

    def __init__(self, services: Services, workers: Workers, tenant: str) -> None:
        self._services = services
        self._workers = workers
        self._tenant = tenant
        self.used: dict[Entity, Snapshot] = {}

    async def having(self, entity: Entity, claims: Sequence[Any]) -> Any:
        """The vocabulary, held, with all of these ids.

        Raises:
            StoreFullError, StoreUnavailableError: It cannot be extended.
        """
        config, key = (
            self._services.config,
            tables.vocabulary_key(self._services.config, self._tenant, entity),
        )
        snapshot = await asyncio.to_thread(_newest, config, key)
        while not await self._unbroken(self._extend(entity, key, snapshot, claims)):
            snapshot = await asyncio.to_thread(_newest, config, key)
        self.used[entity] = await asyncio.to_thread(tables.open_table, config, key)
        return await self._workers.hold(read_vocabulary, entity, self.used[entity].files)

    async def _unbroken(self, extending: Coroutine[Any, Any, bool]) -> bool:
        """Has an extension come to its end though the run is cancelled: amid it a part would be left."""
        task = asyncio.ensure_future(extending)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._services.spawn(_at_its_end(task))
            raise

    async def _extend(
        self, entity: Entity, key: str, snapshot: Snapshot | None, claims: Sequence[Any]
    ) -> bool:
        """Appends what a version lacks; False if another one has come between."""
        config, base = self._services.config, 0 if snapshot is None else snapshot.version
        draft = Draft(uuid.uuid4().hex, {key: base})
        await asyncio.to_thread(drafts.begin, config, draft)
        name = f"{key}/{draft.prefix}{entity}.parquet"
        files = () if snapshot is None else snapshot.files
        try:
            part: Part | None = await self._workers.run(write_new_ids, entity, files, name, *claims)
            if part is not None:
                await self._services.commit(self._tenant, self._commit(entity, key, part, draft, base))
        except UnavailableError:
            raise  # The store may still take that commit: the sweeper looks when the draft is old.
        except HeadraceError as error:
            await asyncio.to_thread(drafts.clear, config, drafts.entry_key(config, draft.id))
            if isinstance(error, VersionMovedError):
                return False
            raise
        await asyncio.to_thread(drafts.end, config, draft.id)
        return True

    def _commit(self, entity: Entity, key: str, part: Part, draft: Draft, base: int) -> TableCommit:
        return TableCommit(
            key,
            KINDS[entity],
            vocabulary_schema(entity),
            (part,),
            f"{draft.id}/vocabulary",
            {"headrace.code_version": __version__},
            base=base,
        )


class PinnedVocabularies:
    """Those of a version, which has all that is asked of it.

    Attributes:
        used: The versions.
    """

    def __init__(self, workers: Workers, used: Mapping[Entity, Snapshot]) -> None:
        self._workers = workers
        self.used = used

    async def having(self, entity: Entity, claims: Sequence[Any]) -> Any:
        """The vocabulary, held."""
        return await self._workers.hold(read_vocabulary, entity, self.used[entity].files)


def vocabulary_lineage(used: Mapping[Entity, Snapshot]) -> dict[str, str]:
    """Commit metadata that says which versions a run used."""
    return {f"headrace.{entity}_vocabulary_version": str(found.version) for entity, found in used.items()}


async def _at_its_end(task: asyncio.Future[Any]) -> None:
    await asyncio.gather(task, return_exceptions=True)


def _newest(config: StoreConfig, key: str) -> Snapshot | None:
    try:
        return tables.open_table(config, key)
    except TableNotFoundError:
        return None
