"""Attacks on what is asked: lists of tables, the HTTP port, rejects, tables that nobody takes."""

import resource
import shutil
import socket
import time
from typing import Any

import grpc
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines

from attack.calls import SECONDS, Calls
from attack.stage import Stage
from headrace.v1 import run_pb2, table_pb2, upload_pb2

DATASETS = 1_000
UNREAD_SECONDS = 75.0
"""Longer than a server waits for a client to take its responses."""

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def many_tables(stage: Stage) -> int:
    """Forty lists at once of a tenant with a thousand training sets."""
    stub = stage.stub()
    rows = chunk(HEADER + lines(50))
    assert Dialogue(stub, [header("lister"), rows, finish()]).result.rows_accepted == 50
    request = run_pb2.SampleNegativesRequest(
        tenant_id="lister",
        dataset="set-0000",
        positive_interaction_types=["view"],
        min_interactions_per_user=0,
        min_interactions_per_item=0,
    )
    list(stub.SampleNegatives(request, timeout=SECONDS))
    folder = stage.data / "training-data/lister/datasets"
    for number in range(1, DATASETS):
        # Names in a Delta log are relative to it: a copy of a table is a table.
        shutil.copytree(folder / "set-0000", folder / f"set-{number:04d}")
    calls, question = Calls(EXHAUSTED), table_pb2.ListTablesRequest(tenant_id="lister")
    calls.at_once(40, lambda _: stub.ListTables(question, timeout=SECONDS))
    return calls.count(needed={grpc.StatusCode.OK})


def many_lists(stage: Stage) -> int:
    """Three thousand lists of a small tenant, two hundred at a time."""
    stub, calls = stage.stub(), Calls(EXHAUSTED)
    rows = chunk(HEADER + lines(50))
    assert Dialogue(stub, [header("small"), rows, finish()]).result.rows_accepted == 50
    question = table_pb2.ListTablesRequest(tenant_id="small")
    for _ in range(15):
        asked: list[Any] = [stub.ListTables.future(question, timeout=SECONDS) for _ in range(200)]
        for each in asked:
            calls.make(each.result)
    return calls.count(needed={grpc.StatusCode.OK})


def idle_connections(stage: Stage) -> int:
    """Three thousand connections to the HTTP port that say nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))
    opened = []
    try:
        for _ in range(3_000):
            opened.append(socket.create_connection(("127.0.0.1", stage.server.http_port), timeout=10))
        time.sleep(stage.seconds)
    finally:
        for each in opened:
            each.close()
    return len(opened)


def commas(stage: Stage) -> int:
    """Ten rejects asked for, of 1.5 MB of rows that are nothing but commas."""
    stub, calls = stage.stub(), Calls(EXHAUSTED)
    body = chunk(HEADER + ",,,,\n" * 300_000)
    result = Dialogue(stub, [header("commas"), body, finish()], timeout=SECONDS).result
    assert (result.rows_received, result.rows_accepted) == (300_000, 0)
    question = upload_pb2.ListRejectsRequest(tenant_id="commas", upload_id=result.upload_id, limit=10)
    calls.flood(4, stage.seconds, lambda _: stub.ListRejects(question, timeout=SECONDS))
    return calls.count(needed={grpc.StatusCode.OK})


def unread(stage: Stage) -> int:
    """A hundred reads of seven tenants whose responses nobody takes, for longer than the server waits."""
    stub, held = stage.stub(), []
    for number in range(7):
        body = chunk(HEADER + lines(100_000))
        talk = Dialogue(stub, [header(f"silent-{number}"), body, finish()], timeout=SECONDS)
        assert talk.result.rows_accepted == 100_000
    for number in range(100):
        request = table_pb2.ReadTableRequest(tenant_id=f"silent-{number % 7}", table="interactions")
        call: Any = stub.ReadTable(request)
        stage.held.callback(call.cancel)
        held.append(call)
    time.sleep(UNREAD_SECONDS)
    return len(held)
