"""Lists of tables: shared by those who ask at the same time, and never older than the question."""

import asyncio
import threading
from typing import Any

import pytest

from headrace.v1 import table_pb2
from headrace_compute.errors import InvalidFieldError, OverloadedError
from headrace_compute.model import StoreConfig
from headrace_server.listing import NewestVersions, TableLists
from headrace_server.rpc.limits import Limit


async def test_those_who_ask_while_a_list_is_made_share_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, made = threading.Semaphore(0), threading.Semaphore(0), []

    def page(self: NewestVersions, tenant: str, after: str, count: int) -> Any:
        begun.release()
        go_on.acquire()
        made.append(tenant)
        return table_pb2.ListTablesResponse(next_page_token=str(len(made)))

    monkeypatch.setattr(NewestVersions, "page", page)
    lists = TableLists(StoreConfig(root="/nowhere"), Limit("lists", 3, 2))
    request = table_pb2.ListTablesRequest(tenant_id="acme")

    def ask() -> "asyncio.Task[table_pb2.ListTablesResponse]":
        return asyncio.create_task(lists.list(request))

    first = ask()
    await asyncio.to_thread(begun.acquire)
    others = [ask() for _ in range(40)]
    await asyncio.sleep(0)
    others.pop().cancel()
    go_on.release(2)
    assert (await first).next_page_token == "1"
    assert {(await other).next_page_token for other in others} == {"2"}
    assert made == ["acme", "acme"]


async def test_a_page_token_is_the_name_of_a_table() -> None:
    lists = TableLists(StoreConfig(root="/nowhere"), Limit("lists", 3, 2))
    with pytest.raises(
        InvalidFieldError, match=r"page_token is 'zzz', which no response .* leave the field empty"
    ):
        await lists.list(table_pb2.ListTablesRequest(tenant_id="t", page_token="zzz"))
    page = await lists.list(table_pb2.ListTablesRequest(tenant_id="t", page_token="items", page_size=1))
    assert page == table_pb2.ListTablesResponse(next_page_token="rejects")


async def test_lists_that_nobody_waits_for_any_more_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def page(self: NewestVersions, tenant: str, after: str, count: int) -> Any:
        go_on.wait(30)
        return table_pb2.ListTablesResponse()

    monkeypatch.setattr(NewestVersions, "page", page)
    lists = TableLists(StoreConfig(root="/nowhere"), Limit("lists", 3, 2))
    for token in "ab":
        task = asyncio.create_task(lists.list(table_pb2.ListTablesRequest(tenant_id="t", page_token=token)))
        await asyncio.sleep(0.01)
        task.cancel()
    for _ in range(2):
        with pytest.raises(OverloadedError, match="Tenant t has 2 lists"):
            await lists.list(table_pb2.ListTablesRequest(tenant_id="t", page_token="c"))
    go_on.set()
    await lists.list(table_pb2.ListTablesRequest(tenant_id="u"))
