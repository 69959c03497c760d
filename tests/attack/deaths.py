"""Deaths: of the server amid a run, and of its Ray's processes; how that is told, and what follows."""

import subprocess
import time
from typing import Any

import psutil
from harness.dialogue import negatives

from attack.calls import SECONDS
from attack.runs import stock
from attack.stage import RESTART_SECONDS, Result, Stage

TOLD_SECONDS = 5.0
"""Ray's death shows within this: by health, or by the server's own end."""

END_SECONDS = 30.0


def server(stage: Stage) -> Result:
    """SIGKILL while a run writes."""
    stub = stage.stub()
    stock(stub, "endless", 100_000)
    run: Any = stub.SampleNegatives(negatives("endless", 1_000), timeout=SECONDS)
    parts, deadline = stage.data / "training-data/endless", time.monotonic() + SECONDS / 2
    while len(list(parts.rglob("*.parquet"))) < 3:
        assert time.monotonic() < deadline, "the run does not write"
        time.sleep(0.1)
    stage.server.process.kill()
    stage.server.process.wait(END_SECONDS)
    run.cancel()
    return _back(stage, [])


def raylet(stage: Stage) -> Result:
    """The raylet killed."""
    return _ray(stage, "raylet")


def gcs(stage: Stage) -> Result:
    """The GCS killed."""
    return _ray(stage, "gcs_server")


def _ray(stage: Stage, name: str) -> Result:
    (process,) = [each for each in psutil.Process(stage.server.process.pid).children() if each.name() == name]
    process.kill()
    started, missed = time.monotonic(), []
    try:
        status = stage.server.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        stage.server.process.kill()
        stage.server.process.wait(END_SECONDS)
        missed.append(f"alive {END_SECONDS:.0f} s after")
    else:
        if status != 1:
            missed.append(f"ended with {status}")
        if (seconds := time.monotonic() - started) >= TOLD_SECONDS:
            missed.append(f"told after {seconds:.1f} s")
    return _back(stage, missed)


def _back(stage: Stage, missed: list[str]) -> Result:
    """The next server, and whether it can do everything."""
    stage.held.close()
    seconds = stage.restart()
    if seconds >= RESTART_SECONDS:
        missed.append(f"restart {seconds:.1f} s")
    result = stage.suffer(lambda _: 1)
    result.missed = [*missed, *result.missed]
    return result
