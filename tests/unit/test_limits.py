"""What a server refuses before it suffers."""

from contextlib import ExitStack, suppress

import pytest

from headrace_compute.errors import OverloadedError
from headrace_server.rpc.limits import Limit, ReservingLimit


def test_one_too_many_is_refused_for_a_tenant_and_for_the_server() -> None:
    limit = Limit("uploads", 3, 2)
    with ExitStack() as held:
        held.enter_context(limit.enter("a"))
        held.enter_context(limit.enter("a"))
        with pytest.raises(OverloadedError, match="Tenant a has 2 uploads") as caught:
            held.enter_context(limit.enter("a"))
        assert caught.value.attributes == {"limit": "2", "what": "uploads"}
        held.enter_context(limit.enter("b"))
        with pytest.raises(OverloadedError, match="The server has 3 uploads"):
            held.enter_context(limit.enter("c"))
    assert limit.held == 0
    with limit.enter("a"):
        assert limit.held == 1


def test_tenants_that_fill_what_they_may_have_leave_some_to_whoever_comes_next() -> None:
    limit = ReservingLimit("reads", 64, 16)
    with ExitStack() as held:
        for tenant in ("a", "b", "c", "d", "e", "f", "g"):
            with suppress(OverloadedError):
                while True:
                    held.enter_context(limit.enter(tenant))
        assert limit.held == 63
        with pytest.raises(
            OverloadedError, match="Tenant d has 8 reads under way and may have no more while only 1 place is"
        ) as caught:
            held.enter_context(limit.enter("d"))
        assert caught.value.attributes == {"limit": "8", "what": "reads"}
        held.enter_context(limit.enter("new"))
        with pytest.raises(OverloadedError, match="The server has 64 reads"):
            held.enter_context(limit.enter("newer"))


def test_calls_that_name_no_tenant_are_counted_by_connection() -> None:
    limit = Limit("reads", 4, 1)
    with limit.enter("", "ipv4:127.0.0.1:1"), limit.enter("", "ipv4:127.0.0.1:2"), limit.enter("a", "x"):
        assert limit.held == 3
        with pytest.raises(
            OverloadedError, match="This connection has 1 read under way, the most it may have at once;"
        ):
            ExitStack().enter_context(limit.enter("", "ipv4:127.0.0.1:1"))
