"""Receipts: what a commit shared by many small ingests says of each of them.

They are part of the commit itself, so a request is answered from the object that made its rows
visible. Nothing else has to be written, and the two cannot contradict each other.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace_compute.errors import HeadraceError

FORMAT_VERSION = 1
READABLE_VERSIONS = (1,)

GROUP = "headrace.group"
RECEIPTS = "headrace.receipts"
"""Keys in a commit's info. The receipts are packed, and for Headrace alone."""


class ReceiptFormatError(HeadraceError):
    """A commit was written by a newer version of Headrace."""


@dataclass(frozen=True)
class Receipt:
    """One small ingest.

    Attributes:
        upload_id: Its id, which is the client's request_id if there is one.
        digest: Of the rows as sent, to tell a repetition from a mistake.
        answer: What the caller was told, as a JSON value.
    """

    upload_id: str
    digest: str
    answer: Any


@dataclass(frozen=True)
class Group:
    """Small ingests that share a commit.

    Attributes:
        id: A UUID of the commit's own.
        started_us: The `ingested_at` of their rows.
        receipts: One for each request that this commit decides.
        rejects: A JSON value: what another commit, to the rejects table, is to follow this one with.
    """

    id: str
    started_us: int
    receipts: tuple[Receipt, ...] = ()
    rejects: Any = None

    def receipt(self, upload_id: str) -> Receipt | None:
        """The receipt of one request, if it is among these."""
        return next((receipt for receipt in self.receipts if receipt.upload_id == upload_id), None)

    def to_metadata(self) -> dict[str, str]:
        """The group as keys of a commit's info."""
        body = {
            "format_version": FORMAT_VERSION,
            "started_us": self.started_us,
            "rejects": self.rejects,
            "receipts": [[each.upload_id, each.digest, each.answer] for each in self.receipts],
        }
        packed = zlib.compress(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(), 1)
        return {GROUP: self.id, RECEIPTS: base64.b64encode(packed).decode()}

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> "Group | None":
        """The group of a commit's info; None if the commit is no group's.

        Raises:
            ReceiptFormatError: A newer version of Headrace has written it.
        """
        if GROUP not in info:
            return None
        body = json.loads(zlib.decompress(base64.b64decode(info[RECEIPTS])))
        if body["format_version"] not in READABLE_VERSIONS:
            raise ReceiptFormatError(
                f"A commit's receipts have format version {body['format_version']}; this server reads "
                f"{', '.join(map(str, READABLE_VERSIONS))}; use a newer server."
            )
        receipts = tuple(Receipt(*receipt) for receipt in body["receipts"])
        return cls(info[GROUP], body["started_us"], receipts, body["rejects"])
