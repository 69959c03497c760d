"""The options of every command that talks to a server."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.command import CONNECTION

if TYPE_CHECKING:
    from headrace.client import Client


@dataclass(frozen=True)
class Server:
    """Where the server is, and how it is reached."""

    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            envvar=["HEADRACE_ADDRESS", "HEADRACE_GRPC_ADDRESS"],
            show_envvar=True,
            metavar="HOST:PORT",
            help="Where the server is. Default: 127.0.0.1:50051.",
            rich_help_panel=CONNECTION,
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="HEADRACE_TOKEN",
            show_envvar=True,
            help="Sent with every call; other users of this machine see options, but not the environment.",
            rich_help_panel=CONNECTION,
        ),
    ] = None
    tls: Annotated[
        bool,
        typer.Option("--tls", help="Encrypt, as --ca-file does by itself.", rich_help_panel=CONNECTION),
    ] = False
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            envvar="HEADRACE_CA_FILE",
            show_envvar=True,
            help="PEM certificates of those that may sign the server's. Default: gRPC's own.",
            rich_help_panel=CONNECTION,
        ),
    ] = None
    cert_file: Annotated[
        Path | None,
        typer.Option(
            "--cert-file",
            envvar="HEADRACE_CERT_FILE",
            show_envvar=True,
            help="PEM certificate chain of this client (mTLS).",
            rich_help_panel=CONNECTION,
        ),
    ] = None
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            envvar="HEADRACE_KEY_FILE",
            show_envvar=True,
            help="PEM key of this client.",
            rich_help_panel=CONNECTION,
        ),
    ] = None
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            min=0.0,
            metavar="SECONDS",
            help="After which a call without a stream gives up. Default: 60.",
            rich_help_panel=CONNECTION,
        ),
    ] = None

    def client(self) -> "Client":
        """Connects.

        Raises:
            OSError: A file of certificates cannot be read.
            ValueError: The address is none, or the token would go unencrypted over a network.
        """
        from headrace.client import Client
        from headrace.connection import TIMEOUT_S, Tls

        files = self.ca_file, self.cert_file, self.key_file
        return Client(
            self.address,
            credentials=Tls(*files) if self.tls or any(files) else None,
            token=self.token,
            timeout=TIMEOUT_S if self.timeout is None else self.timeout,
        )
