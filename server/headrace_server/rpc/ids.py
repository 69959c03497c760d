"""Ids of small ingests, distinguishable by their form from the ids that clients choose for uploads.

Rows and events are identified by upload_id, so two uploads, or an upload and a small ingest, must never
share one. So small ingests have UUIDs of version 8 with a mark in them
(RFC 9562, section 5.8), and no upload may have one of those.
"""

import uuid

from headrace_compute.model import DataType

_MARK = 0x8000 | 0x4EA
"""Version 8, and the twelve bits after it."""


def small_id(data_type: DataType, request_id: str) -> str:
    """The upload_id of a small ingest with a request_id; the two data types never share one."""
    return _marked(uuid.uuid5(uuid.UUID(request_id), f"headrace/{data_type}"))


def new_small_id() -> str:
    """An upload_id for a small ingest that nobody will repeat."""
    return _marked(uuid.uuid4())


def is_small(upload_id: str) -> bool:
    """Whether an id has the form of a small ingest's."""
    return (uuid.UUID(upload_id).int >> 64) & 0xFFFF == _MARK


def _marked(made: uuid.UUID) -> str:
    return str(uuid.UUID(int=made.int & ~(0xFFFF << 64) | _MARK << 64))
