"""Machines on one switch, made of network namespaces.

A machine has an address of its own, and shares files and process ids with this host.
"""

import itertools
import os
import random
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Self

WHY_NOT = "no right to make network namespaces here (root and iproute2), so there is one host only"

NOWHERE = "02:00:00:00:00:01"
"""The address of no network card."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Machine:
    """A network namespace.

    Attributes:
        name: Of the namespace.
        address: On the network.
    """

    name: str
    address: str

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs another one there, as the same process."""
        return [_program(), "netns", "exec", self.name, *arguments]

    def cut(self) -> None:
        """Takes its line away."""
        _ip(f"link set {self.name} down")

    def mend(self) -> None:
        """Gives its line back."""
        _ip(f"link set {self.name} up")

    def lose(self, other: "Machine") -> None:
        """Has everything disappear that it sends to another machine."""
        _ip(f"-n {self.name} neigh replace {other.address} lladdr {NOWHERE} nud permanent dev eth0")

    def find(self, other: "Machine") -> None:
        """Ends that."""
        _ip(f"-n {self.name} neigh del {other.address} dev eth0")


class Network:
    """A switch, to which this host is connected too.

    Attributes:
        address: Of this host on it.
    """

    def __init__(self) -> None:
        self._name = f"h{os.getpid():x}n{next(_numbers)}"
        self._machines: list[Machine] = []
        dice = random.Random(self._name)
        self._subnet = f"10.{dice.randrange(64, 256)}.{dice.randrange(256)}"
        self.address = f"{self._subnet}.254"
        _ip(f"link add {self._name} type bridge")
        _ip(f"addr add {self.address}/24 dev {self._name}")
        _ip(f"link set {self._name} up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self._machines:
            # By itself it would go with the last process there.
            _ip(f"link del {machine.name}")
            _ip(f"netns del {machine.name}")
        _ip(f"link del {self._name}")

    def add(self) -> Machine:
        """One more machine; it lasts as long as the network."""
        number = len(self._machines) + 1
        machine = Machine(f"{self._name}m{number}", f"{self._subnet}.{number}")
        _ip(f"netns add {machine.name}")
        self._machines.append(machine)
        _ip(f"link add {machine.name} type veth peer name eth0 netns {machine.name}")
        _ip(f"link set {machine.name} master {self._name} up")
        _ip(f"-n {machine.name} addr add {machine.address}/24 dev eth0")
        for device in ("lo", "eth0"):
            _ip(f"-n {machine.name} link set {device} up")
        # By its default route a machine learns which of its addresses others know.
        _ip(f"-n {machine.name} route add default via {self.address}")
        return machine


@cache
def is_possible() -> bool:
    """Whether networks can be made here."""
    if not _program():
        return False
    name = f"h{os.getpid():x}try"
    with suppress(subprocess.CalledProcessError):
        _ip(f"netns add {name}")
        _ip(f"netns del {name}")
        return True
    return False


def _ip(arguments: str) -> None:
    subprocess.run([_program(), *arguments.split()], check=True, capture_output=True)


def _program() -> str:
    return shutil.which("ip", path=f"{os.defpath}:/usr/sbin:/sbin") or ""
