"""Trace ids (16 bytes as 32 hexadecimal digits) and what stands for a request. Pure."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from services.gateway.scopes import Owner

RANDOM_BYTES = 10


def fresh_trace_id(now_ms: int, random: bytes) -> str:
    """Time-ordered, in the layout of UUID version 7: 48 bits of milliseconds, then 74 of the 80 in `random`."""
    value = (now_ms & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def trace_id_of_request(owner: Owner, request_id: str, index: int) -> str:
    """The same for the same request, so that the store itself recognises a retry; no table of past requests is needed.

    12 bytes of digest, 4 of index: a batch's ids are neighbours in the store's index, which halves what a commit of 64 must write.
    """
    return f"{_trace_prefix(owner, request_id)}{index:08x}"


def request_digest(owner: Owner, request_id: str) -> bytes:
    """16 bytes that stand for a request of this owner, by which the node knows a repeat; b"" without a request_id: nothing is known."""
    return _digest(owner, request_id, 16, b"ndml-feedback") if request_id else b""


@lru_cache(maxsize=16)  # a batch asks for the same one again and again
def _trace_prefix(owner: Owner, request_id: str) -> str:
    return _digest(owner, request_id, 12, b"ndml-request").hex()


def _digest(owner: Owner, request_id: str, size: int, person: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=size, person=person)
    for part in (owner.tenant, owner.user, request_id):
        data = part.encode()
        digest.update(len(data).to_bytes(4, "little") + data)
    return digest.digest()
