"""Server reflection under its v1 name.

The grpcio package has v1alpha only, while newer clients ask for v1 first. The two
schemas are identical, so the v1alpha servicer and messages serve both.
"""

from collections.abc import Iterable

import grpc
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

SERVICE_NAME = "grpc.reflection.v1.ServerReflection"


def add_reflection_v1(server: aio.Server, names: Iterable[str]) -> None:
    """Registers reflection v1 for the named services; call before the server starts."""
    servicer = ReflectionServicer((*names, SERVICE_NAME))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE_NAME, {"ServerReflectionInfo": handler}),)
    )
