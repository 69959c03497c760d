"""The command line, `headrace`. `console.py` lists the exit codes, `app.py` the commands."""

import sys

from headrace.extras import MissingExtraError


def main() -> None:
    """Runs the command line."""
    try:
        from headrace.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.stderr.write(f"error: {MissingExtraError('cli', error.name)}\n")
        sys.exit(2)
    run()


__all__ = ["main"]
