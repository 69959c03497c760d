"""The small ingests into one table, gathered into groups that share a commit.

Requests that arrive while earlier commits are under way form the next group, so groups grow with the
load and no request waits for others.
"""

import asyncio
import copy
import time
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from headrace_compute.delta.appender import RequestsTakenError
from headrace_compute.errors import HeadraceError, OverloadedError, PoisonBlockError
from headrace_compute.ingest.group import GroupResult, GroupSpec, RowFormat, ingest_group
from headrace_compute.model import DataType
from headrace_compute.report import Report
from headrace_compute.workers.pool import Pool
from headrace_server import metrics
from headrace_server.ingest.answers import Answer, outcome_of
from headrace_server.ingest.drafts import Drafts, OpenDraft
from headrace_server.ingest.request_log import RETRY_US, Decided, Ledger, id_in_use
from headrace_server.rows.intake import RowMessage, to_arrow
from headrace_server.services import Services

T = TypeVar("T")

GROUP_REQUESTS = 256
GROUP_ROWS = 10_000
GROUP_BYTES = 1 << 20
"""Limits of a group, and so of the receipts in its commit; a single request may have more."""

GROUPS_UNDER_WAY = 2
"""While one is being committed, the next one is being validated."""

MAX_WAITING = 4_096
MAX_WAITING_BYTES = 64 << 20
"""Bytes that may wait for a table; beyond it requests are refused and may be retried."""

ROWS_ON_THE_LOOP = 256
"""More rows than this are turned into Arrow in a thread."""


def _future() -> "asyncio.Future[Answer]":
    return asyncio.get_running_loop().create_future()


@dataclass(frozen=True, eq=False)
class Request:
    """One small ingest under way.

    Attributes:
        rows: Messages, or lines of JSON.
        digest: Of the rows as sent; empty if the caller will not repeat the call.
        size_bytes: Of the rows as they are here.
        answer: What its callers wait for; several, if one did not wait for the first answer.
    """

    upload_id: str
    rows: Sequence[RowMessage] | Sequence[bytes]
    digest: str
    size_bytes: int
    format: RowFormat = "rows"
    answer: "asyncio.Future[Answer]" = field(default_factory=_future)

    def resolve(self, answer: Answer) -> None:
        """Answers, unless that is done."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Answers with an error, unless that is done."""
        if not self.answer.done():
            # Each caller gets its own: one object raised in many tasks gathers all their tracebacks.
            self.answer.set_exception(copy.copy(error) if isinstance(error, HeadraceError) else error)
            self.answer.exception()  # Its caller may have hung up, which is no fault to log.


class _Outcome(NamedTuple):
    """A request of a group, and its validation report."""

    request: Request
    report: Report


class Batcher:
    """The small ingests of one tenant and data type.

    Args:
        pool: Workers for small things, which bulk uploads do not occupy.
    """

    def __init__(self, services: Services, pool: Pool, tenant: str, data_type: DataType) -> None:
        self.ledger = Ledger(services, pool, tenant, data_type)
        self._drafts = Drafts(services.config, self.ledger.table_keys)
        self.used = time.monotonic()
        self._quarantine = pool.quarantine
        self._alone = pool.executor(tenant, data_type)
        # Of several requests one death is enough: in halves, what ends workers is soon alone.
        self._together = pool.executor(tenant, data_type, attempts=1)
        self._tenant = tenant
        self._data_type = data_type
        self._waiting: deque[Request] = deque()
        self._waiting_bytes = 0
        self._repeatable: dict[str, Request] = {}
        self._room = asyncio.Semaphore(GROUPS_UNDER_WAY)
        self._tasks: set[asyncio.Task[None]] = set()
        self._gatherer: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not (self._waiting or self._tasks or self._repeatable)

    async def close(self) -> None:
        """Ends what outlasts its groups; it begins anew with the next one."""
        await self._drafts.close()

    async def ingest(self, request: Request) -> Answer:
        """Stores a request's rows, unless a request of its id was answered before; durable on return.

        A caller that hangs up does not take its rows back.

        Raises:
            OverloadedError: Too many requests wait.
            SuspendedError: Requests of the tenant have ended too many workers.
            IdInUseError: The id has been used with other rows.
        """
        self.used = time.monotonic()
        if not request.digest:
            self._enqueue(request)
            return await asyncio.shield(request.answer)
        if (same := self._repeatable.get(request.upload_id)) is not None:
            if same.digest != request.digest:
                raise id_in_use(request.upload_id)
            return await asyncio.shield(same.answer)
        self._repeatable[request.upload_id] = request
        request.answer.add_done_callback(lambda _: self._repeatable.pop(request.upload_id))
        self._spawn(self._answering([request], self._admit(request)))
        return await asyncio.shield(request.answer)

    async def _admit(self, request: Request) -> None:
        earlier = await self.ledger.repeated(request.upload_id, request.digest)
        if earlier is None:
            self._enqueue(request)
        else:
            request.resolve(earlier)

    def _enqueue(self, request: Request) -> None:
        self._quarantine.check(self._tenant)
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            raise OverloadedError(
                f"Tenant {self._tenant} has {len(self._waiting):,} small ingests waiting, "
                "all that it may have; try again soon, send several rows a call, or use Upload.",
                {"limit": str(MAX_WAITING)},
            )
        self._waiting.append(request)
        self._wake(request)

    def _wake(self, request: Request) -> None:
        self._waiting_bytes += request.size_bytes
        if self._gatherer is None or self._gatherer.done():
            self._gatherer = self._spawn(self._gather())

    def _spawn(self, work: "Awaitable[None]") -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _gather(self) -> None:
        """Sends off groups as long as anybody waits."""
        while self._waiting:
            await self._room.acquire()
            # Calls that have arrived together with the first one are taken in before this goes on.
            await asyncio.sleep(0)
            self._spawn(self._process(self._next_group()))

    def _next_group(self) -> list[Request]:
        """The first requests whose rows have the format of the very first one's."""
        group: list[Request] = []
        others: list[Request] = []
        rows = size_bytes = 0
        while self._waiting and len(group) < GROUP_REQUESTS:
            request = self._waiting[0]
            if group and request.format != group[0].format:
                others.append(self._waiting.popleft())
                continue
            rows, size_bytes = rows + len(request.rows), size_bytes + request.size_bytes
            if group and (rows > GROUP_ROWS or size_bytes > GROUP_BYTES):
                break
            group.append(self._waiting.popleft())
            self._waiting_bytes -= request.size_bytes
        self._waiting.extendleft(reversed(others))
        return group

    async def _process(self, group: Sequence[Request]) -> None:
        try:
            await self._answering(group, self._store(group))
        finally:
            self._room.release()

    async def _answering(self, requests: Iterable[Request], work: Awaitable[T]) -> T | None:
        """Does the work; if it fails, those of the requests that have no answer yet get the error."""
        try:
            return await work
        except BaseException as error:
            for request in requests:
                request.fail(error)
            if not isinstance(error, Exception):
                raise
            return None

    async def _store(self, requests: Sequence[Request]) -> None:
        """Validates a group, commits it, and answers its requests."""
        async with self._drafts.group() as draft:
            await self._store_in(draft, requests)

    async def _store_in(self, draft: OpenDraft, requests: Sequence[Request]) -> None:
        spec = self.ledger.new_group(draft.draft, requests[0].format)
        uploads = [(request.upload_id, len(request.rows)) for request in requests]
        in_thread = sum(count for _, count in uploads) > ROWS_ON_THE_LOOP
        payload = await asyncio.to_thread(self._payload, requests) if in_thread else self._payload(requests)
        try:
            executor = self._alone if len(requests) == 1 else self._together
            result = await executor.run(ingest_group, spec, uploads, payload)
        except PoisonBlockError:
            if len(requests) == 1:
                raise
            # One of them kills workers; its neighbours shall not suffer for it.
            draft.is_doubtful = True
            middle = len(requests) // 2
            for half in (requests[:middle], requests[middle:]):
                await self._answering(half, self._store(half))
            return
        _check_counts(uploads, result)
        metrics.GROUP_REQUESTS.labels(self._data_type).observe(len(requests))
        outcomes = [_Outcome(*each) for each in zip(requests, result.reports, strict=True)]
        good = [each for each in outcomes if each.report.rows_accepted]
        empty = [each for each in outcomes if not each.report.rows_accepted]
        named = await asyncio.gather(
            self._answering((each.request for each in good), self._commit_good(spec, result, good)),
            self._answering((each.request for each in empty), self._commit_empty(spec, result, empty)),
        )
        if not all(named):
            draft.is_doubtful = True

    def _payload(self, requests: Sequence[Request]) -> pa.Table | bytes:
        """The rows of a group, as its stage takes them."""
        rows: list[Any] = [row for request in requests for row in request.rows]
        if requests[0].format == "json_lines":
            return b"\n".join(rows)
        return to_arrow(rows, self._data_type)

    async def _commit_good(self, spec: GroupSpec, result: GroupResult, outcomes: Sequence[_Outcome]) -> bool:
        """Commits what was accepted, and its rejects; whether commits now name all these parts."""
        if result.data is None:
            return True
        try:
            version, group = await self.ledger.commit_data(
                spec, result.data, result.published, _decided(outcomes)
            )
        except RequestsTakenError as taken:
            await self._without(taken.ids, outcomes)
            return False
        self._resolve([each for each in outcomes if not each.report.rows_rejected], spec, version, "")
        if result.published is not None:
            await self.ledger.commit_rejects(group)
            rest = [each for each in outcomes if each.report.rows_rejected]
            self._resolve(rest, spec, version, result.published.key)
        return True

    async def _commit_empty(self, spec: GroupSpec, result: GroupResult, outcomes: Sequence[_Outcome]) -> bool:
        """Commits the rejects of requests without an accepted row; whether a commit now names their part."""
        if result.unpublished is None:
            return True
        try:
            await self.ledger.commit_empty(spec, result.unpublished, _decided(outcomes))
        except RequestsTakenError as taken:
            await self._without(taken.ids, outcomes)
            return False
        self._resolve(outcomes, spec, None, result.unpublished.key)
        return True

    async def _without(self, taken: frozenset[str], outcomes: Sequence[_Outcome]) -> None:
        """Answers the requests that another server has committed, and puts the others into a new group."""
        for request, _ in reversed(outcomes):
            earlier = None
            if request.upload_id in taken:
                earlier = await self.ledger.find(request.upload_id, RETRY_US, request.digest)
            if earlier is not None:
                request.resolve(earlier)
            else:
                self._waiting.appendleft(request)
                self._wake(request)

    def _resolve(
        self, outcomes: Iterable[_Outcome], spec: GroupSpec, version: int | None, rejects_key: str
    ) -> None:
        for request, report in outcomes:
            metrics.UPLOADS.labels(self._data_type, outcome_of(report)).inc()
            for result, count in (
                ("accepted", report.rows_accepted),
                ("rejected", report.rows_rejected),
                ("duplicates", report.rows_duplicate),
            ):
                metrics.ROWS.labels(self._data_type, result).inc(count)
            request.resolve(Answer(request.upload_id, spec.started_us, version, report, rejects_key))


def _decided(outcomes: Sequence[_Outcome]) -> list[Decided]:
    return [Decided(request.upload_id, request.digest, report) for request, report in outcomes]


def _check_counts(uploads: Sequence[tuple[str, int]], result: GroupResult) -> None:
    """Refuses to commit a group in which a row was lost or doubled."""
    stored = result.data.rows if result.data else 0
    accepted = sum(report.rows_accepted for report in result.reports)
    accounted = [report.rows_accepted + report.rows_rejected for report in result.reports]
    if stored != accepted or accounted != [rows for _, rows in uploads]:
        raise AssertionError(
            f"{uploads} sent, {accounted} accounted for, {accepted} accepted, {stored} stored"
        )
