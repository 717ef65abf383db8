"""Trace ids: 16 bytes as 32 hexadecimal digits. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from services.gateway.scopes import Owner


def fresh_trace_id(now_ms: int, random_bytes: Callable[[int], bytes]) -> str:
    """Time-ordered, in the layout of UUID version 7: 48 bits of milliseconds, then 74 random ones."""
    value = (now_ms & (1 << 48) - 1) << 80 | int.from_bytes(random_bytes(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def trace_id_of_request(owner: Owner, request_id: str, index: int) -> str:
    """The same for the same request, so that the store itself recognises a retry; no table of past requests is needed."""
    digest = hashlib.blake2b(digest_size=16, person=b"ndml-request")
    for part in (owner.tenant, owner.user, request_id):
        data = part.encode()
        digest.update(len(data).to_bytes(4, "little") + data)
    digest.update(index.to_bytes(4, "little"))
    return digest.hexdigest()
