"""How to reach the tests' MinIO."""

from brokers.minio import Minio

from headrace_compute.model import S3Config


def s3_of(minio: Minio) -> S3Config:
    """The configuration of a MinIO's root user."""
    return S3Config(
        endpoint=minio.endpoint,
        access_key=minio.access_key,
        secret_key=minio.secret_key,
        ca_file=str(minio.ca_file or ""),
    )
