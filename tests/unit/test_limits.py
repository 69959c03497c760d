"""What a server refuses before it suffers."""

from contextlib import ExitStack

import pytest

from headrace_compute.errors import OverloadedError
from headrace_server.limits import Limit


def test_one_too_many_is_refused_for_a_tenant_and_for_the_server() -> None:
    limit = Limit("uploads", 3, 2)
    with ExitStack() as held:
        held.enter_context(limit.enter("a"))
        held.enter_context(limit.enter("a"))
        with pytest.raises(OverloadedError, match="tenant a has 2 uploads") as caught:
            held.enter_context(limit.enter("a"))
        assert caught.value.attributes == {"limit": "2", "what": "uploads"}
        held.enter_context(limit.enter("b"))
        with pytest.raises(OverloadedError, match="the server has 3 uploads"):
            held.enter_context(limit.enter("c"))
    assert limit.held == 0
    with limit.enter("a"):
        assert limit.held == 1
