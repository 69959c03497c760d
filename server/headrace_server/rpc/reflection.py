"""Server reflection, under its v1 and its v1alpha name.

The grpcio package has v1alpha only, while newer clients ask for v1 first. The two
schemas are identical, so the v1alpha servicer and messages serve both.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

import headrace.v1

V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"


class Symbols:
    """The descriptors of this process, as reflection asks for them: methods have names, too."""

    def __init__(self) -> None:
        self._pool: Any = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, name: str) -> Any:
        """The file of a message, an enum, a field, a service or a method; KeyError if there is none."""
        try:
            return self._pool.FindFileContainingSymbol(name)
        except KeyError:
            owner, _, method = name.rpartition(".")
            return self._pool.FindServiceByName(owner).methods_by_name[method].containing_service.file


def add_reflection(server: aio.Server, names: Iterable[str]) -> None:
    """Has a server describe the named services and all of the contract; call before it starts."""
    _load_contract()
    servicer = ReflectionServicer((*names, V1, V1ALPHA), pool=Symbols())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler}),)
    )


def _load_contract() -> None:
    """Imports every file: events and reasons of errors are in no message of the service."""
    for module in pkgutil.iter_modules(headrace.v1.__path__, f"{headrace.v1.__name__}."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
