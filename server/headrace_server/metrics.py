"""The server's Prometheus metrics."""

from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace_compute.workers.roster import Strength

CALLS = Counter("headrace_calls_total", "Finished calls.", ["method", "code"])
CALL_SECONDS = Histogram(
    "headrace_call_seconds",
    "Duration of calls, streams included.",
    ["method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
CALLS_OPEN = Gauge("headrace_calls_open", "Calls under way.", ["method"])
ROWS = Counter("headrace_rows_total", "Records of ended uploads.", ["data_type", "result"])
UPLOADS = Counter("headrace_uploads_total", "Ended uploads.", ["data_type", "outcome"])
UPLOADS_ABORTED = Counter("headrace_uploads_aborted_total", "Uploads given up.", ["reason"])
OVERLOADED = Counter("headrace_overloaded_total", "Calls refused because of a limit.", ["what"])
BLOCKS_IN_FLIGHT = Gauge("headrace_blocks_in_flight", "Blocks handed to workers and not yet persisted.")
STAGE_WAIT_SECONDS = Histogram(
    "headrace_stage_wait_seconds",
    "How long stages waited for a worker.",
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 10, 30, 60, 300),
)
GROUP_REQUESTS = Histogram(
    "headrace_ingest_group_requests",
    "Small ingests that shared a commit.",
    ["data_type"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
COMPACTIONS = Counter("headrace_compactions_total", "Commits that merged small files of a table.")
COMMITS = Counter("headrace_commits_total", "Delta commits.", ["kind"])
EVENTS = Counter("headrace_events_total", "Events published.", ["topic"])
RELAY_RETRIES = Counter("headrace_relay_retries_total", "Times that publishing failed and was tried again.")
RELAY_LAG_VERSIONS = Gauge(
    "headrace_relay_lag_versions", "Table versions whose events are not all published."
)
RELAY_LAG_SECONDS = Gauge("headrace_relay_lag_seconds", "Age of the oldest of these versions.")
RELAY_CONNECTED = Gauge("headrace_relay_connected", "1 if events are being delivered.")
RELAY_SLOTS_OWNED = Gauge("headrace_relay_slots_owned", "Of 16 slots of tenants, those this server has.")
RELAY_SLOTS_UNOWNED = Gauge(
    "headrace_relay_slots_unowned", "Slots that no server has; their lag is counted by all."
)
RUNS = Gauge("headrace_runs", "Feature and sampling runs on this server, running or queued.", ["state"])
RUN_WAIT_SECONDS = Histogram(
    "headrace_run_wait_seconds",
    "How long runs waited in the queue before they began.",
    buckets=(0.001, 0.1, 1, 5, 10, 30, 60, 300, 1800, 7200),
)
RUN_SECONDS = Histogram(
    "headrace_run_seconds",
    "Duration of runs and verifications that ended well, without their wait in the queue.",
    ["run"],
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
DRIFT = Histogram(
    "headrace_feature_drift",
    "Drift of each column of features from the version before, or the one that was named.",
    ["table", "distance"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1),
)
DRIFT_WARNINGS = Counter(
    "headrace_drift_warnings_total", "Columns of features that drifted beyond a request's limits.", ["table"]
)


class Workers(Collector):
    """Metrics of the workers, as they are when somebody asks.

    Args:
        strength: How many there are.
    """

    def __init__(self, strength: Callable[[], Strength]) -> None:
        self._strength = strength
        REGISTRY.register(self)

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        now = self._strength()
        workers = GaugeMetricFamily("headrace_workers", "Workers by what they are at.", labels=["state"])
        for state in ("idle", "busy", "starting", "lost"):
            workers.add_metric([state], getattr(now, state))
        yield workers
        yield GaugeMetricFamily("headrace_workers_wanted", "Workers that there are to be.", now.wanted)
        yield CounterMetricFamily(
            "headrace_worker_returns", "Times that a worker was lost and came back.", now.returns
        )
