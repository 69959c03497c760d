"""What the server logs: whole JSON lines, whoever speaks, whether or not anybody can take them."""

import json
import os
import subprocess
import sys

SPEAK = """
import logging, structlog
from headrace_server.logs import configure_logs
from headrace_server.rpc import call_log

configure_logs("INFO", "headrace-7")
log = structlog.get_logger("headrace_server.here")
log.debug("too quiet")
logging.getLogger("elsewhere").debug("too quiet")
with structlog.contextvars.bound_contextvars(request_id="r-1"):
    call_log.note(tenant="acme")
    log.warning("call ended", seconds=0.5, message="two\\nlines")
    logging.getLogger("elsewhere").warning("heard %d", 3)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
print("went on")
"""


def _spoken(stderr: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-c", SPEAK), stdout=subprocess.PIPE, stderr=stderr, text=True, check=True
    )


def test_events_and_records_of_libraries_are_lines_of_one_kind() -> None:
    ours, theirs, failure = map(json.loads, _spoken(subprocess.PIPE).stderr.splitlines())
    assert ours["timestamp"].endswith("Z")
    assert ours | {"timestamp": ""} == {
        "event": "call ended",
        "level": "warning",
        "logger": "headrace_server.here",
        "message": "two\nlines",
        "request_id": "r-1",
        "seconds": 0.5,
        "service": "headrace-7",
        "tenant": "acme",
        "timestamp": "",
    }
    assert (theirs["event"], theirs["logger"], theirs["request_id"]) == ("heard 3", "elsewhere", "r-1")
    assert theirs["service"] == "headrace-7"
    assert (failure["event"], failure["level"]) == ("failed", "error")
    assert "ZeroDivisionError" in failure["exception"]


def test_a_full_disk_or_a_reader_that_has_gone_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        assert _spoken(writer).stdout == _spoken(full).stdout == "went on\n"
    finally:
        os.close(writer)
        os.close(full)
