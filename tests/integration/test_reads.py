"""ReadTable from any row on, and of one split."""

import grpc
import pytest
from harness.server import Server
from harness.training import lay_dataset

from headrace import Client, errors
from headrace_compute.model import ROW_GROUP_ROWS

LONG = ROW_GROUP_ROWS // 5 + 7
"""Groups of a part of two row groups."""


def _names(client: Client, tenant: str, **options: object) -> list[str]:
    table = client.read_table(tenant, "mine", **options)  # type: ignore[arg-type]
    return [f"{row['user_id']} {row['item_id']}" for row in table.to_pylist()]


def test_rows_are_read_from_any_row_on_and_of_one_split(server: Server, client: Client, tenant: str) -> None:
    parts = [("test", 3), ("train", LONG), ("train", 50), ("valid", 2), ("train", 1)]
    rows = lay_dataset(server, tenant, "mine", parts)
    everything = _names(client, tenant)
    assert sorted(everything) == sorted(row for some in rows.values() for row in some)
    for split, expected in rows.items():
        assert split
        assert _names(client, tenant, split=split) == expected
        for offset, limit in ((0, 1), (7, 3), (len(expected) - 1, 5), (len(expected), 1), (10**18, 0)):
            found = _names(client, tenant, split=split, offset=offset, limit=limit)
            assert found == expected[offset:][: limit or None]
    edge = 15 + ROW_GROUP_ROWS
    assert _names(client, tenant, offset=edge - 2, limit=4) == everything[edge - 2 : edge + 2]


def test_a_split_that_the_version_lacks_is_refused_with_those_that_it_has(
    server: Server, client: Client, tenant: str
) -> None:
    lay_dataset(server, tenant, "mine", [("train", 1), ("valid", 1)])
    has = "has no split 'tset'; it has train, valid"
    with pytest.raises(errors.InvalidArgumentError, match=has) as caught:
        client.read_table(tenant, "mine", split="tset")
    assert (caught.value.code, caught.value.metadata) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"field": "split"},
    )
    lay_dataset(server, tenant, "plain", [(None, 1)])
    with pytest.raises(errors.InvalidArgumentError, match="it has no splits"):
        client.read_table(tenant, "plain", split="train")
