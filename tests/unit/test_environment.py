"""What is left of secrets in a process that has forgotten them."""

import subprocess
import sys

SECRETS = {
    "S3_SECRET_KEY": "hunter1",
    "S3_ACCESS_KEY": "hunter2",
    "KAFKA_SASL_PASSWORD": "hunter3",
    "DATABASE_URL": "postgres://u:hunter4@db/x",
    "AWS_SESSION_TOKEN": "hunter5",
    "RAY_AUTH_TOKEN": "hunter6",
}
OTHERS = {"S3_REGION": "hunting", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}

TELL = """
import os, subprocess
from pathlib import Path
from headrace_compute.environment import forget_secrets
os.environ["LATE_PASSWORD"] = "hunter7"
forget_secrets({keep!r})
print(Path("/proc/self/environ").read_bytes(), dict(os.environ), subprocess.check_output(["env"]))
"""


def _left(keep: str = "") -> str:
    command = [sys.executable, "-c", TELL.format(keep=keep)]
    return subprocess.run(
        command, env={**SECRETS, **OTHERS}, check=True, capture_output=True, text=True
    ).stdout


def test_neither_proc_nor_children_show_a_secret_and_the_rest_is_as_it_was() -> None:
    left = _left()
    assert not [value for value in (*SECRETS.values(), "hunter7") if value in left]
    assert left.count("hunting") == 3


def test_what_is_to_be_kept_is_kept() -> None:
    left = _left("RAY_")
    assert [value for value in SECRETS.values() if value in left] == ["hunter6"]
