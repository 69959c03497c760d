"""The ledger of one table's small ingests: reads the receipts in its commits, and makes such commits.

A group of requests is decided by one commit to the data table; rejects of the same uploads follow in a
commit of their own, which the data commit describes, so that any server can make it after a
crash. Requests of which no row was accepted are decided by their rejects' commit instead.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import NamedTuple

import structlog

from headrace_compute.delta import tables
from headrace_compute.delta.appender import Addition, Found, LogAppender, RequestsTakenError
from headrace_compute.delta.drafts import Draft
from headrace_compute.delta.receipts import Group, Receipt
from headrace_compute.errors import HeadraceError, IdInUseError, StoreFullError
from headrace_compute.ingest.block_result import part_from_json
from headrace_compute.ingest.group import GroupSpec, RowFormat, read_upload_rejects
from headrace_compute.model import DataType, Part
from headrace_compute.objects.store import open_store
from headrace_compute.report import Report
from headrace_compute.workers.pool import Pool
from headrace_server import __version__
from headrace_server.ingest.answers import Answer, from_json, to_json
from headrace_server.rpc.requests import DEFAULT_SKEW_US
from headrace_server.services import Services

RETRY_US = 3_600_000_000
"""How long a repeated request_id is sure to get the first answer."""

_log = structlog.get_logger(__name__)


class Decided(NamedTuple):
    """A request, and what validation said of it.

    Attributes:
        digest: Of its rows as sent; empty if its caller cannot repeat it.
    """

    upload_id: str
    digest: str
    report: Report


class Ledger:
    """What was decided about the small ingests of one tenant and data type.

    Args:
        pool: Workers for small things.
    """

    def __init__(self, services: Services, pool: Pool, tenant: str, data_type: DataType) -> None:
        config = services.config
        self._services = services
        self._pool = pool
        self._tenant = tenant
        self._data_type = data_type
        self._table_key = tables.table_key(config, tenant, data_type)
        self._rejects_key = tables.rejects_key(config, tenant)
        self._data = LogAppender(config, self._table_key, data_type, tables.SCHEMAS[data_type])
        self._rejects = LogAppender(
            config, self._rejects_key, "rejects", tables.SCHEMAS["rejects"], ("published",)
        )
        self._covered = False
        self._started_us = 0

    @property
    def table_keys(self) -> tuple[str, str]:
        """Tables that get parts of small ingests: data, and rejects."""
        return self._table_key, self._rejects_key

    def new_group(self, draft: Draft, format: RowFormat) -> GroupSpec:
        """What the next group shares, whose parts are a draft's."""
        # Rows of a later group are newer, whatever the clock does: the catalog goes by this time.
        self._started_us = max(time.time_ns() // 1000, self._started_us + 1)
        return GroupSpec(
            id=str(uuid.uuid4()),
            data_type=self._data_type,
            data_prefix=f"{self._table_key}/{draft.prefix}",
            published_prefix=f"{self._rejects_key}/published=true/{draft.prefix}",
            unpublished_prefix=f"{self._rejects_key}/published=false/{draft.prefix}",
            started_us=self._started_us,
            latest_us=self._started_us + DEFAULT_SKEW_US,
            format=format,
        )

    async def commit_data(
        self, spec: GroupSpec, data: Part, rejects: Part | None, decided: Sequence[Decided]
    ) -> tuple[int, Group]:
        """Decides requests with accepted rows; `commit_rejects` is to follow if there are rejects.

        Returns:
            The version, and the group for `commit_rejects`.

        Raises:
            RequestsTakenError: Other commits have decided some of them; nothing was committed.
        """
        group = Group(spec.id, spec.started_us, _receipts(decided), asdict(rejects) if rejects else None)
        addition = Addition([(data, {})], group, _claims(decided), self._metadata(decided))
        with_rejects = (data, rejects) if rejects else (data,)
        return await self._decide(self._data, addition, with_rejects), group

    async def commit_rejects(self, group: Group) -> None:
        """Commits the rejects that a group's data commit describes; once, however often it is asked to."""
        part = part_from_json(group.rejects)
        # The receipts stand in the data commit.
        addition = Addition([(part, {"published": "true"})], replace(group, receipts=()))
        await self._services.append(self._tenant, self._rejects, addition)

    async def commit_empty(self, spec: GroupSpec, rejects: Part, decided: Sequence[Decided]) -> None:
        """Decides requests without an accepted row.

        Raises:
            RequestsTakenError: Other commits have decided some of them; nothing was committed.
        """
        # Not the id of the group's data commit: that is what its own rejects' commit goes by.
        group = Group(str(uuid.uuid4()), spec.started_us, _receipts(decided), asdict(rejects))
        addition = Addition(
            [(rejects, {"published": "false"})], group, _claims(decided), self._metadata(decided)
        )
        await self._decide(self._rejects, addition, (rejects,))

    async def _decide(self, appender: LogAppender, addition: Addition, parts: Sequence[Part]) -> int:
        """Commits a group; if that is refused, deletes its parts, which the next try writes anew.

        After other failures the store may still have the commit, so they leave the parts.
        """
        try:
            return await self._services.append(self._tenant, appender, addition)
        except (RequestsTakenError, StoreFullError):
            with suppress(HeadraceError):
                await asyncio.to_thread(self._delete_unless_committed, appender, addition.group, parts)
            raise

    def _delete_unless_committed(self, appender: LogAppender, group: Group, parts: Sequence[Part]) -> None:
        if appender.has_group(group.id, group.started_us - RETRY_US):
            return
        store = open_store(self._services.config)
        for part in parts:
            store.delete(part.key)

    async def repeated(self, upload_id: str, digest: str) -> Answer | None:
        """The first answer to a request that comes again; None for a new one, mostly without asking anybody.

        Commits of other servers that this one has not read yet are found when it commits.

        Raises:
            IdInUseError: The id has been used with other rows.
        """
        if not self._covered:
            since_us = _now_us() - RETRY_US
            await asyncio.to_thread(self._data.cover, since_us)
            await asyncio.to_thread(self._rejects.cover, since_us)
            self._covered = True
        if not (self._data.may_hold(upload_id) or self._rejects.may_hold(upload_id)):
            return None
        return await self.find(upload_id, RETRY_US, digest)

    async def find(self, upload_id: str, age_us: int, digest: str | None = None) -> Answer | None:
        """How an earlier request ended, from the commits of the last `age_us` and whatever else is known.

        Raises:
            IdInUseError: It had other rows than `digest` tells of.
        """
        for appender in (self._data, self._rejects):
            found = await asyncio.to_thread(appender.find, upload_id, _now_us() - age_us)
            if found is not None:
                if digest is not None and found.receipt.digest != digest:
                    raise id_in_use(upload_id)
                return await self._answer(found, visible=appender is self._data)
        return None

    async def settle(self) -> None:
        """Commits the rejects of recent groups whose server ended between their two commits."""
        for group in await asyncio.to_thread(self._data.groups, _now_us()):
            await self._follow_up(group)

    async def _follow_up(self, group: Group) -> None:
        since_us = group.started_us - RETRY_US
        if not group.rejects or await asyncio.to_thread(self._rejects.has_group, group.id, since_us):
            return
        _log.info("rejects of a group committed after all", tenant=self._tenant, group=group.id)
        await self.commit_rejects(group)

    async def _answer(self, found: Found, visible: bool) -> Answer:
        if visible:
            await self._follow_up(found.group)
        report = from_json(found.receipt.answer, [])
        key = found.group.rejects["key"] if report.rows_rejected else ""
        if key:
            rejects = await self._pool.run(read_upload_rejects, key, found.receipt.upload_id)
            report = from_json(found.receipt.answer, rejects)
        version = found.version if visible else None
        return Answer(found.receipt.upload_id, found.group.started_us, version, report, key)

    def _metadata(self, decided: Sequence[Decided]) -> dict[str, str]:
        return {
            "headrace.uploads": str(len(decided)),
            "headrace.rows": str(sum(each.report.rows_accepted for each in decided)),
            "headrace.code_version": __version__,
        }


def id_in_use(request_id: str) -> IdInUseError:
    """The error of a request_id that comes again with other rows."""
    return IdInUseError(
        f"Field request_id is {request_id}, which belongs to a request with other rows; choose a new id.",
        {"request_id": request_id, "upload_id": request_id},
    )


def _receipts(decided: Sequence[Decided]) -> tuple[Receipt, ...]:
    return tuple(Receipt(each.upload_id, each.digest, to_json(each.report)) for each in decided)


def _claims(decided: Sequence[Decided]) -> frozenset[str]:
    return frozenset(each.upload_id for each in decided if each.digest)


def _now_us() -> int:
    return time.time_ns() // 1000
