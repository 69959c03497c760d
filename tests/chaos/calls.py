"""Every call of a server, with requests of `chaos.messages`, and what must be true of each answer.

Whatever a client sends, a call ends with OK or an error that tells it what is wrong: never INTERNAL or
UNKNOWN, never late, with exactly one ErrorInfo, a message in whole sentences and no word of our inside.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from chaos.messages import Dice
from headrace.v1 import ingest_pb2, pipeline_service_pb2, row_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

SECONDS = 60
"""After this a call hangs."""

WATCHED = "/grpc.health.v1.Health/Watch"
"""Goes on for ever; it is left after its first answer."""

FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
INSIDE = re.compile(
    r"Traceback|<class|Exception|\bpyarrow|\bpolars|\bduckdb|numpy|google\.protobuf|\.py\b|0x[0-9a-f]{9}|Error\b"
)
"""What no message may show. Requests never say it, so it is no echo of theirs."""

RARE = {"ComputeFeatures": 0.1, "SampleNegatives": 0.1}
"""Runs take as long as a hundred other calls."""


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        requests: Serialised.
    """

    method: str
    requests: tuple[bytes, ...]
    metadata: tuple[tuple[str, str | bytes], ...]


def methods() -> list[MethodDescriptor]:
    """All that a server answers."""
    files = (pipeline_service_pb2, health_pb2, reflection_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return [method for service in services for method in service.methods]


def calls(seed: str, tenants: Sequence[str], uploads: Sequence[str], first: int = 0) -> Iterator[Call]:
    """Calls without end, the same ones for the same seed."""
    every = methods()
    weights = [RARE.get(method.name, 1.0) for method in every]
    for number in itertools.count(first):
        dice = Dice(f"{seed}/{number}", tenants, uploads)
        (method,) = dice.choices(every, weights)
        kind = method.input_type
        made = dice.stream(kind) if method.client_streaming else [dice.message(kind)]
        yield Call(name_of(method), tuple(map(dice.wire, made)), tuple(dice.metadata()))


def name_of(method: MethodDescriptor) -> str:
    """A method's name on the wire."""
    return f"/{method.containing_service.full_name}/{method.name}"


def stock(channel: grpc.Channel, tenant: str) -> str:
    """Gives a tenant some rows; returns the id of the upload, which has a reject."""
    rows = [
        row_pb2.Interaction(
            user_id=f"u{n % 3}", item_id=f"i{n}", interaction_type=kind, timestamp=f"2026-01-0{n + 1}"
        )
        for n, kind in enumerate(("view", "click", "like", "purchase", "bad"))
    ]
    stub = PipelineServiceStub(channel)
    items = [row_pb2.Item(item_id=f"i{n}", title="A title") for n in range(5)]
    stub.IngestItems(ingest_pb2.IngestItemsRequest(tenant_id=tenant, rows=items), timeout=SECONDS)
    request = ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=rows)
    return str(stub.IngestInteractions(request, timeout=SECONDS).result.upload_id)


class Caller:
    """Makes calls on a channel, and says what is wrong with their answers.

    Attributes:
        codes: How many calls ended with each code.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._methods = {name_of(method): method for method in methods()}
        self.codes: Counter[str] = Counter()

    def fault(self, call: Call) -> str:
        """Makes a call; returns what is wrong with its end, or nothing."""
        method = self._methods[call.method]
        try:
            for answer in self._answers(method, call):
                status = getattr(answer, "error", None)
                in_band = isinstance(status, status_pb2.Status) and answer.HasField("error")
                if in_band and (wrong := _wrong(status)):
                    return f"in band: {wrong}"
        except grpc.RpcError as error:
            # The stubs do not say that it is the call as well.
            ended: Any = error
            self.codes[ended.code().name] += 1
            if ended.code() in FAULTS:
                return f"{ended.code().name}: {ended.details()}"
            if method.containing_service.full_name.startswith("headrace."):
                found = rpc_status.from_call(ended)
                return "no status" if found is None else _wrong(found)
            return f"shows {ended.details()!r}" if INSIDE.search(ended.details()) else ""
        self.codes["OK"] += 1
        return ""

    def _answers(self, method: MethodDescriptor, call: Call) -> Iterator[Any]:
        decode = GetMessageClass(method.output_type).FromString
        options: dict[str, Any] = {"timeout": SECONDS, "metadata": call.metadata}
        answers: Iterable[Any]
        if method.client_streaming:
            answers = self._channel.stream_stream(call.method, None, decode)(iter(call.requests), **options)
        elif method.server_streaming:
            answers = self._channel.unary_stream(call.method, None, decode)(call.requests[0], **options)
        else:
            yield self._channel.unary_unary(call.method, None, decode)(call.requests[0], **options)
            return
        for answer in answers:
            yield answer
            if call.method == WATCHED:
                return


def _wrong(status: status_pb2.Status) -> str:
    """What is wrong with an error."""
    message, infos = status.message, []
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            infos.append(info)
    if [info.domain for info in infos] != ["headrace"] or not infos[0].reason:
        return f"{message!r} has {len(infos)} ErrorInfo"
    if status.code in {code.value[0] for code in FAULTS}:
        return f"{infos[0].reason}: {message}"
    if INSIDE.search(message):
        return f"{message!r} shows our inside"
    if not message or message[0].islower() or message[-1] != ".":
        return f"{message!r} is no sentence"
    return f"{status.ByteSize():,} bytes of status" if status.ByteSize() > 4_096 else ""


def try_calls(
    address: str, tenant: str, seed: str, count: int, threads: int = 4
) -> tuple[list[str], Counter[str]]:
    """Makes `count` calls; returns what was wrong, ten faults at most, and how many ended with each code."""
    with grpc.insecure_channel(address) as channel:
        upload_id = stock(channel, tenant)
        caller = Caller(channel)
        faults: list[str] = []

        def work(call: Call) -> None:
            if len(faults) < 10 and (fault := caller.fault(call)):
                faults.append(f"{call.method} {call.requests!r:.500} {call.metadata!r:.200}\n    {fault}")

        made = itertools.islice(calls(seed, (tenant,), (upload_id,)), count)
        with ThreadPoolExecutor(threads) as pool:
            while (some := list(itertools.islice(made, 1_000))) and len(faults) < 10:
                list(pool.map(work, some))
    return faults, caller.codes
