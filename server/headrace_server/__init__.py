"""Headrace's gRPC server: sessions, commits, events, health."""

from importlib.metadata import version

__version__ = version("headrace-server")
