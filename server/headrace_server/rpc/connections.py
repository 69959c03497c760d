"""Clients' connections: where they come from, and ending one, which grpc.aio has no call for."""

import ipaddress
import os
import socket
from urllib.parse import unquote

Address = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def address_of(peer: str) -> str:
    """The host of a peer, as gRPC names it: `ipv4:192.0.2.7` of `ipv4:192.0.2.7:41234`."""
    return peer.rpartition(":")[0] if peer.startswith("ip") else peer


def sever(peer: str) -> bool:
    """Ends the TCP connection of a peer, as a break of the line would; blocks for milliseconds.

    gRPC finds the connection broken and lets go of all its calls, with what they hold.

    Args:
        peer: As gRPC names it: `ipv4:192.0.2.7:41234`, `ipv6:%5B2001:db8::7%5D:41234`.

    Returns:
        Whether there was such a connection.
    """
    address = _socket_address(peer)
    for name in os.listdir("/dev/fd"):
        try:
            # A descriptor of our own cannot become another connection's meanwhile.
            number = os.dup(int(name))
        except OSError:
            continue
        try:
            connection = socket.socket(fileno=number)
        except OSError:  # It is no socket.
            os.close(number)
            continue
        with connection:
            if _remote(connection) == address:
                connection.shutdown(socket.SHUT_RDWR)
                return True
    return False


def _socket_address(peer: str) -> Address:
    host, _, port = unquote(peer.partition(":")[2]).rpartition(":")
    return _address(host.strip("[]"), int(port))


def _remote(connection: socket.socket) -> Address | None:
    """Where a connection leads; None if it is no TCP connection."""
    try:
        host, port, *_ = connection.getpeername()
        return _address(host, port)
    except (OSError, ValueError):
        return None


def _address(host: str, port: int) -> Address:
    address = ipaddress.ip_address(host)
    # A socket of both families names a peer of IPv4 as ::ffff:192.0.2.7.
    return getattr(address, "ipv4_mapped", None) or address, port
