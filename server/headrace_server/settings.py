"""The server's settings: the only reader of the environment."""

import difflib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from headrace_compute.model import S3Config, StoreConfig
from headrace_server import __version__
from headrace_server.events.kafka_config import KafkaConfig
from headrace_server.events.options import EventOptions
from headrace_server.events.relay_config import RelayConfig

PREFIX = "HEADRACE_"
"""Of variables that are nobody else's."""

SHOWN_CHARS = 100
"""Of a value that is refused."""


class SettingsError(Exception):
    """Settings that cannot be honoured.

    Args:
        faults: A sentence for each, which names the variable.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__(" ".join(faults))
        self.faults = faults


class Settings(BaseSettings):
    """Settings from the environment and `.env`; `.env.example` explains each.

    Variables without our prefix that Headrace does not know are ignored, so that it can share a
    `.env` with other services.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", populate_by_name=True)

    service_name: str = "data-pipeline"
    version: str = __version__
    log_level: str = "INFO"

    data_dir: Path = Field(default=Path(".headrace"), alias="HEADRACE_DATA_DIR")
    grpc_address: str = Field(default="127.0.0.1:50051", alias="HEADRACE_GRPC_ADDRESS")
    http_address: str = Field(default="127.0.0.1:9464", alias="HEADRACE_HTTP_ADDRESS")
    block_bytes: int = Field(default=8 << 20, ge=1 << 10, le=64 << 20, alias="HEADRACE_BLOCK_BYTES")
    workers: int = Field(default=0, ge=0, le=1024, alias="HEADRACE_WORKERS")
    max_workers: int = Field(default=0, ge=0, le=1024, alias="HEADRACE_MAX_WORKERS")
    worker_cpus: float = Field(default=1, ge=0.01, le=64, alias="HEADRACE_WORKER_CPUS")
    upload_ttl_seconds: float = Field(default=86_400, gt=0, alias="HEADRACE_UPLOAD_TTL_SECONDS")
    idle_seconds: float = Field(default=600, gt=0, alias="HEADRACE_IDLE_SECONDS")
    send_seconds: float = Field(default=60, gt=0, alias="HEADRACE_SEND_SECONDS")
    max_uploads: int = Field(default=256, ge=1, alias="HEADRACE_MAX_UPLOADS")
    max_uploads_per_tenant: int = Field(default=64, ge=1, alias="HEADRACE_MAX_UPLOADS_PER_TENANT")
    max_small_calls: int = Field(default=2048, ge=1, alias="HEADRACE_MAX_SMALL_CALLS")
    max_reads: int = Field(default=64, ge=1, alias="HEADRACE_MAX_READS")
    max_reads_per_tenant: int = Field(default=16, ge=1, alias="HEADRACE_MAX_READS_PER_TENANT")
    max_runs: int = Field(default=16, ge=1, alias="HEADRACE_MAX_RUNS")
    max_runs_per_tenant: int = Field(default=4, ge=1, alias="HEADRACE_MAX_RUNS_PER_TENANT")
    max_queued_runs: int = Field(default=64, ge=0, alias="HEADRACE_MAX_QUEUED_RUNS")
    max_queued_runs_per_tenant: int = Field(default=16, ge=0, alias="HEADRACE_MAX_QUEUED_RUNS_PER_TENANT")
    run_retention_hours: float = Field(default=168, gt=0, alias="HEADRACE_RUN_RETENTION_HOURS")
    start_seconds: float = Field(default=180, gt=0, alias="HEADRACE_START_SECONDS")
    blocks_in_flight: int = Field(default=0, ge=0, alias="HEADRACE_BLOCKS_IN_FLIGHT")

    ray_address: str = ""
    ray_auth_mode: Literal["", "token", "disabled"] = ""
    ray_auth_token: str = Field(default="", repr=False)
    ray_auth_token_path: str = ""

    kafka_bootstrap_servers: str = ""
    kafka_row_events: Literal["", "rows", "commits", "none"] = ""
    kafka_event_format: Literal["json", "protobuf"] = "json"
    kafka_compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    kafka_create_topics: bool = True
    kafka_topic_partitions: int = Field(default=6, ge=1, le=10_000)
    kafka_topic_replication_factor: int = Field(default=0, ge=0, le=100)
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_sasl_username: str = ""
    kafka_sasl_password: str = Field(default="", repr=False)
    kafka_ssl_ca_file: str = ""
    kafka_topic_interactions: str = "interactions-raw"
    kafka_topic_items: str = "items-catalog"
    kafka_topic_features: str = "features-processed"
    kafka_topic_training: str = "training-data"

    s3_endpoint: str = ""
    s3_access_key: str = Field(default="", repr=False)
    s3_secret_key: str = Field(default="", repr=False)
    s3_region: str = "us-east-1"
    s3_ca_file: str = ""
    s3_bucket_raw: str = "raw-data"
    s3_bucket_processed: str = "processed-data"
    s3_bucket_training: str = "training-data"
    s3_bucket_features: str = "features"

    negative_sampling_ratio: int = Field(default=4, ge=1, le=1000)
    max_interactions_per_user: int = Field(default=50, ge=0)
    min_interactions_per_user: int = Field(default=5, ge=0)
    min_interactions_per_item: int = Field(default=5, ge=0)

    database_url: str = Field(default="", repr=False)

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        levels = ("DEBUG", "INFO", "WARNING", "ERROR")
        if value.upper() not in levels:
            raise ValueError(f"{value!r} is not a level; expected one of {', '.join(levels)}.")
        return value.upper()

    @field_validator("grpc_address", "http_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{value!r} is not an address; write host:port, such as 127.0.0.1:50051.")
        return value

    @field_validator("ray_address")
    @classmethod
    def _cluster(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(
                f"{value!r} is an address of Ray Client, by which workers cannot be reached; write "
                "host:port of the cluster's head (6379 unless changed), or auto on a host that has joined it."
            )
        host, _, port = value.rpartition(":")
        if value not in ("", "auto") and not (host and port.isdigit() and 0 < int(port) <= 65535):
            raise ValueError(
                f"{value!r} is not the address of a Ray cluster; write host:port of its head, such as "
                "10.0.0.5:6379, or auto, or leave it empty for a Ray of the server's own."
            )
        return value

    @field_validator("ray_auth_mode", mode="before")
    @classmethod
    def _as_ray_reads_it(cls, value: str) -> str:
        return value.lower()

    @field_validator(
        "s3_bucket_raw", "s3_bucket_processed", "s3_bucket_training", "s3_bucket_features", mode="after"
    )
    @classmethod
    def _bucket(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", value) or ".." in value:
            raise ValueError(f"{value!r} is not a bucket name; use 2 to 63 letters, digits, '-', '_' or '.'.")
        return value

    @field_validator(
        "kafka_topic_interactions", "kafka_topic_items", "kafka_topic_features", "kafka_topic_training"
    )
    @classmethod
    def _topic(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", value) or value in (".", ".."):
            raise ValueError(f"{value!r} is not a topic name; use 1 to 249 letters, digits, '.', '_' or '-'.")
        return value

    @model_validator(mode="after")
    def _different(self) -> Self:
        """Refuses settings that give two things one name."""
        for kind in ("s3_bucket_", "kafka_topic_"):
            names = [getattr(self, name) for name in type(self).model_fields if name.startswith(kind)]
            names = [name for name in names if isinstance(name, str)]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{kind.upper()}*: {twice.pop()!r} is used twice; give each its own name.")
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuses settings that are incomplete without others."""
        if self.s3_endpoint:
            self._s3()  # It checks the endpoint.
            if not (self.s3_access_key and self.s3_secret_key):
                raise ValueError("S3_ENDPOINT needs S3_ACCESS_KEY and S3_SECRET_KEY.")
        if self.kafka_security_protocol.startswith("SASL") and not self.kafka_sasl_username:
            raise ValueError(
                f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs KAFKA_SASL_USERNAME."
            )
        for name in ("s3_ca_file", "kafka_ssl_ca_file", "ray_auth_token_path"):
            if (path := getattr(self, name)) and not Path(path).is_file():
                raise ValueError(f"{name.upper()} {path!r} is not a file.")
        return self

    @model_validator(mode="after")
    def _authenticated(self) -> Self:
        """Refuses what Ray would ignore: a token that is not to be sent, or none where one is."""
        given = [name for name in ("ray_auth_token", "ray_auth_token_path") if getattr(self, name)]
        if given and self.ray_auth_mode == "disabled":
            raise ValueError(
                f"{given[0].upper()} is set, but RAY_AUTH_MODE=disabled keeps it from being sent; remove one "
                "of them."
            )
        # A Ray of the server's own makes a token for itself; of a cluster it must be known.
        if (
            self.ray_address
            and self.ray_auth_mode == "token"
            and not (given or Path("~/.ray/auth_token").expanduser().is_file())
        ):
            raise ValueError(
                "RAY_AUTH_MODE=token needs the cluster's token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to "
                "a file with it (~/.ray/auth_token unless set)."
            )
        return self

    @property
    def alive_seconds(self) -> float:
        """How often an upload that has a stream gets a record, if only to say that it is alive."""
        return min(300.0, self.upload_ttl_seconds / 4)

    def ray_environment(self) -> dict[str, str]:
        """What Ray reads from the environment itself, wherever it was set; empty where it is not."""
        given = bool(self.ray_auth_token or self.ray_auth_token_path)
        return {
            "RAY_AUTH_MODE": self.ray_auth_mode or ("token" if given else ""),
            "RAY_AUTH_TOKEN": self.ray_auth_token,
            "RAY_AUTH_TOKEN_PATH": self.ray_auth_token_path,
        }

    def store(self) -> StoreConfig:
        """Where objects live, for the store and the workers."""
        return StoreConfig(
            root=str(self.data_dir.resolve()),
            raw=self.s3_bucket_raw,
            processed=self.s3_bucket_processed,
            training=self.s3_bucket_training,
            features=self.s3_bucket_features,
            s3=self._s3() if self.s3_endpoint else None,
        )

    def _s3(self) -> S3Config:
        return S3Config(
            endpoint=self.s3_endpoint,
            access_key=self.s3_access_key,
            secret_key=self.s3_secret_key,
            region=self.s3_region,
            ca_file=self.s3_ca_file,
        )

    def relay_config(self) -> RelayConfig:
        """What the relay is to do."""
        topics = {
            "interactions": self.kafka_topic_interactions,
            "items": self.kafka_topic_items,
            "user_features": self.kafka_topic_features,
            "item_features": self.kafka_topic_features,
            "training_data": self.kafka_topic_training,
        }
        kafka = KafkaConfig(
            bootstrap_servers=self.kafka_bootstrap_servers,
            compression=self.kafka_compression,
            create_topics=self.kafka_create_topics,
            partitions=self.kafka_topic_partitions,
            replication_factor=self.kafka_topic_replication_factor or -1,
            security_protocol=self.kafka_security_protocol,
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_sasl_username,
            sasl_password=self.kafka_sasl_password,
            ca_file=self.kafka_ssl_ca_file,
        )
        rows = self.kafka_row_events or ("rows" if self.kafka_bootstrap_servers else "commits")
        return RelayConfig(
            store=self.store(),
            kafka=kafka if self.kafka_bootstrap_servers else None,
            folder=self.data_dir.resolve() / "events",
            options=EventOptions(topics, rows, self.kafka_event_format),
            owner=f"{socket.gethostname()}-{os.getpid()}",
            service_name=self.service_name,
            log_level=self.log_level,
        )


def read_settings() -> Settings:
    """Reads the environment and `.env`.

    Raises:
        SettingsError: Some cannot be honoured.
    """
    try:
        unknown = list(
            _unknown({name.upper() for name in (*os.environ, *DotEnvSettingsSource(Settings).env_vars)})
        )
        settings = Settings()
    except ValidationError as error:
        raise SettingsError([*unknown, *map(_sentence, error.errors())]) from None
    except (OSError, UnicodeError) as error:
        raise SettingsError([f"The file .env cannot be read: {error}."]) from error
    if unknown:
        raise SettingsError(unknown)
    return settings


def _unknown(names: set[str]) -> Iterator[str]:
    """A sentence for each variable of ours that is no setting: it was meant to be one."""
    known = [(field.alias or name).upper() for name, field in Settings.model_fields.items()]
    # Kubernetes tells every pod of every service, and one may be called `headrace`.
    services = [name.removesuffix("SERVICE_HOST") for name in names if name.endswith("_SERVICE_HOST")]
    others = tuple(f"{service}{end}" for service in services for end in ("SERVICE_", "PORT"))
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known and not name.startswith(others):
            ends = [each.removeprefix(PREFIX) for each in known if each.startswith(PREFIX)]
            near = difflib.get_close_matches(name.removeprefix(PREFIX), ends, 1)
            remedy = f"did you mean {PREFIX}{near[0]}?" if near else ".env.example lists all there are."
            yield f"{name} is not a setting; {remedy}"


def _sentence(fault: Any) -> str:
    """What pydantic found, with the name of the variable as it is written in `.env`."""
    name = ".".join(str(part) for part in fault["loc"]).upper()
    if fault["type"] == "value_error":
        message = str(fault["ctx"]["error"])
        return f"{name}: {message}" if name else message
    value = f"{name} is {str(fault['input'])[:SHOWN_CHARS]!r}"
    if fault["type"] == "literal_error":
        return f"{value}; expected one of {fault['ctx']['expected'].replace(' or ', ', ')}."
    return f"{value}: {fault['msg'][0].lower()}{fault['msg'][1:]}."
