"""Every call with whatever a client may send: each ends with OK, or says what is wrong."""

from itertools import islice
from typing import Any

import grpc
import pytest
from chaos.calls import calls, methods, name_of, try_calls
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness.dialogue import failure_of
from harness.server import Server

from headrace_server.rpc.calls import request_id_of


def test_no_request_makes_a_call_fail_without_saying_what_is_wrong(server: Server, tenant: str) -> None:
    faults, codes = try_calls(server.address, tenant, "1", 1_200)
    assert not faults, "\n".join(faults)
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"} <= set(codes)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_request_of_many_makes_a_call_fail_so(server: Server, tenant: str) -> None:
    faults, _ = try_calls(server.address, tenant, "2", 20_000)
    assert not faults, "\n".join(faults)


def test_every_method_is_fuzzed_and_equal_seeds_make_equal_requests() -> None:
    made, again = (list(islice(calls("1", ("t",), ("u",)), 1_200)) for _ in range(2))
    assert made == again
    assert {call.method for call in made} == {name_of(method) for method in methods()}


def test_a_message_that_cannot_be_decoded_is_an_invalid_argument(server: Server) -> None:
    truncated = b"\n\x05ab"
    with grpc.insecure_channel(server.address) as channel:
        for method in methods():
            name = name_of(method)
            call: Any
            if method.client_streaming:
                call = channel.stream_stream(name, None, None)(iter([truncated, truncated]), timeout=30)
            elif method.server_streaming:
                call = channel.unary_stream(name, None, None)(truncated, timeout=30)
            else:
                call = channel.unary_unary(name, None, None).future(truncated, timeout=30)
            with pytest.raises(grpc.RpcError) as caught:
                list(call) if method.server_streaming else call.result()
            expected = (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE", {"method": name})
            assert failure_of(caught.value) == expected


def test_health_lists_the_services_that_have_a_status(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        listed = health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=30)
    assert {name: each.status for name, each in listed.statuses.items()} == dict.fromkeys(
        ("", "headrace.v1.PipelineService"), health_pb2.HealthCheckResponse.SERVING
    )


@pytest.mark.parametrize("given", ["é", "\ufffd", "a\nb", "\x7f", "", "  ", b"\xff"])
def test_a_request_id_that_cannot_be_sent_back_is_replaced(given: str | bytes) -> None:
    found = request_id_of([("x-request-id", given)])
    assert found.isascii()
    assert len(found) == 32


def test_a_request_id_is_taken_and_cut() -> None:
    assert request_id_of([("x-request-id", "a b")]) == "a b"
    assert request_id_of([("x-request-id", "x" * 65)]) == "x" * 64
