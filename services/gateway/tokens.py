"""Opaque tokens that callers carry: consistency and pages. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping

from google.protobuf.message import Message

from ndml.errors import ConsistencyTokenInvalid, PageTokenInvalid

_MAX_SEQUENCE = (1 << 64) - 1


def write_consistency_token(sequences: Mapping[str, int]) -> str:
    """Says which commit of which node a later read must see: node id -> sequence number.

    0 says that nothing was written; a token of nothing but that is "", so that it takes no newer one's place.
    """
    written = {node_id: sequence for node_id, sequence in sorted(sequences.items()) if sequence}
    return _pack({"c": written}) if written else ""


def read_consistency_token(token: str, field: str = "consistency_token") -> dict[str, int]:
    """Inverse; {} for "". Raises ConsistencyTokenInvalid, about `field`."""
    if not token:
        return {}
    found = _unpack(token)
    sequences = found.get("c") if found is not None else None
    if not isinstance(sequences, dict) or not all(isinstance(v, int) and 0 <= v <= _MAX_SEQUENCE for v in sequences.values()):
        raise ConsistencyTokenInvalid("not a token of this suite: pass it on as it came, or leave it out", field=field)
    return sequences


def fingerprint(*parts: str | Message) -> str:
    """Says which query a page token belongs to."""
    digest = hashlib.blake2b(digest_size=9)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part.SerializeToString(deterministic=True)
        digest.update(len(data).to_bytes(8, "little") + data)
    return base64.urlsafe_b64encode(digest.digest()).decode()


def write_page_token(query: str, before_sequence: int) -> str:
    """Where the next page of the query with this fingerprint starts; "" when there is none."""
    return _pack({"q": query, "b": before_sequence}) if before_sequence else ""


def read_page_token(token: str, query: str) -> int:
    """Inverse; 0 for "". Raises PageTokenInvalid for a broken token and for one of another query."""
    if not token:
        return 0
    found = _unpack(token)
    before = found.get("b") if found is not None else None
    if found is None or not isinstance(before, int) or not 0 < before <= _MAX_SEQUENCE:
        raise PageTokenInvalid("not a page token of this suite: use next_page_token as it came", field="page_token")
    if found.get("q") != query:
        raise PageTokenInvalid("the token belongs to another query: keep scope and filter, or start anew", field="page_token")
    return before


def _pack(value: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def _unpack(token: str) -> dict[str, object] | None:
    try:
        value = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
