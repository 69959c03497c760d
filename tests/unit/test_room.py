"""Room that runs ask for before they write."""

from typing import cast

import pytest

from headrace_compute.errors import StoreFullError
from headrace_compute.objects.interface import ObjectStore
from headrace_server.room import Room


class _Disk:
    def __init__(self, free_bytes: int | None) -> None:
        self.free = free_bytes

    def free_bytes(self) -> int | None:
        return self.free


def _room(free_bytes: int | None) -> tuple[_Disk, Room]:
    disk = _Disk(free_bytes)
    return disk, Room(cast(ObjectStore, disk))


async def test_a_run_is_refused_what_the_disk_does_not_have() -> None:
    _, room = _room(1000)
    with room.entered() as admit:
        await admit(900, 0)
        with pytest.raises(StoreFullError) as caught:
            await admit(901, 0)
    assert caught.value.attributes == {"needed_bytes": "901", "free_bytes": "900"}


async def test_what_one_run_was_promised_is_not_promised_to_another_until_it_ends() -> None:
    _, room = _room(1000)
    with room.entered() as second:
        with room.entered() as first:
            await first(600, 0)
            await first(500, 0)  # Its forecast got better.
            await second(400, 0)
            with pytest.raises(StoreFullError, match="room for 400;"):
                await second(401, 0)
        await second(900, 0)


async def test_what_is_written_already_needs_no_room() -> None:
    disk, room = _room(1000)
    with room.entered() as admit:
        await admit(900, 0)
        disk.free = 200
        await admit(900, 800)
        with pytest.raises(StoreFullError):
            await admit(1000, 800)


async def test_a_store_that_does_not_tell_its_room_takes_everything() -> None:
    _, room = _room(None)
    with room.entered() as admit:
        await admit(1 << 60, 0)
