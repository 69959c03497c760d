"""The server's settings: the only reader of the environment."""

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from headrace_compute.model import StoreConfig


class Settings(BaseSettings):
    """Settings from the environment and `.env`; `.env.example` explains each.

    Variables that Headrace does not know are ignored, so that it can share a
    `.env` with other services.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", populate_by_name=True)

    service_name: str = "data-pipeline"
    version: str = "0.1.0"
    log_level: str = "INFO"

    data_dir: Path = Field(default=Path(".headrace"), alias="HEADRACE_DATA_DIR")
    grpc_address: str = Field(default="127.0.0.1:50051", alias="HEADRACE_GRPC_ADDRESS")
    http_address: str = Field(default="127.0.0.1:9464", alias="HEADRACE_HTTP_ADDRESS")
    block_bytes: int = Field(default=8 << 20, ge=1 << 10, le=64 << 20, alias="HEADRACE_BLOCK_BYTES")
    workers: int = Field(default=0, ge=0, alias="HEADRACE_WORKERS")
    upload_ttl_seconds: float = Field(default=86_400, gt=0, alias="HEADRACE_UPLOAD_TTL_SECONDS")
    idle_seconds: float = Field(default=600, gt=0, alias="HEADRACE_IDLE_SECONDS")
    max_uploads: int = Field(default=256, ge=1, alias="HEADRACE_MAX_UPLOADS")
    max_uploads_per_tenant: int = Field(default=64, ge=1, alias="HEADRACE_MAX_UPLOADS_PER_TENANT")
    max_small_calls: int = Field(default=2048, ge=1, alias="HEADRACE_MAX_SMALL_CALLS")
    blocks_in_flight: int = Field(default=0, ge=0, alias="HEADRACE_BLOCKS_IN_FLIGHT")

    ray_address: str = ""

    kafka_bootstrap_servers: str = ""
    kafka_topic_interactions: str = "interactions-raw"
    kafka_topic_items: str = "items-catalog"
    kafka_topic_features: str = "features-processed"
    kafka_topic_training: str = "training-data"

    s3_endpoint: str = ""
    s3_access_key: str = ""
    s3_secret_key: str = Field(default="", repr=False)
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
            raise ValueError(f"LOG_LEVEL is {value!r}; it must be one of {', '.join(levels)}")
        return value.upper()

    @field_validator("grpc_address", "http_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{value!r} is not an address; write host:port, such as 127.0.0.1:50051")
        return value

    @property
    def alive_seconds(self) -> float:
        """How often an upload that has a stream gets a record, if only to say that it is alive."""
        return min(300.0, self.upload_ttl_seconds / 4)

    def store(self) -> StoreConfig:
        """Where objects live, for the store and the workers."""
        return StoreConfig(
            root=str(self.data_dir.resolve()),
            raw=self.s3_bucket_raw,
            processed=self.s3_bucket_processed,
            training=self.s3_bucket_training,
            features=self.s3_bucket_features,
        )

    def unsupported(self) -> list[str]:
        """Settings that are given but that this version cannot honour."""
        given = {
            "S3_ENDPOINT": self.s3_endpoint,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap_servers,
        }
        return [name for name, value in given.items() if value]
