"""The settings of the SDK's gRPC channels, the same for sync and asyncio."""

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where an embedded server listens unless told otherwise."""

UNARY_TIMEOUT_S = 60.0
"""Seconds after which a call without a stream fails with UnavailableError."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # A run may be silent for long, and a server that lost its power sends no FIN.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Uploads wait with a backoff of their own. By default gRPC does not look for a server that was
    # away for long until up to two minutes after it is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
