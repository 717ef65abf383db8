"""Consistency tokens: what a session has written, so that its reads are not answered by a copy that lacks it. Pure.

A token is a set of entries (user, store, position): the store with this number has, of this user, everything up to its sequence number
`position`. Layout: one byte, the version 2; then at most MAX_ENTRIES entries of 20 bytes in ascending order: 4 bytes of BLAKE2b over the
user's name, then the store's number and the position, 8 bytes each, little-endian; base64url without padding. Anybody who holds two tokens
may join them: of entries with the same first 12 bytes the larger position stays.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from struct import Struct

Entry = tuple[bytes, int]
"""Key of the user, number of the store."""

MAX_ENTRIES = 300
"""Their token has 8,002 characters; a request takes 8,192. A batch of 256 owners has 256."""
_VERSION = b"\x02"
_ENTRY = Struct("<4sQQ")
_KEY_BYTES = 4
_NUMBERS = range(1, 1 << 63)


@lru_cache(maxsize=1024)  # a session asks for few users, each again and again
def user_key(user: str) -> bytes:
    """Stands for a user in entries. Two that collide (1 in 4 billion) cost a read its choice of copies, nothing else."""
    return blake2b(user.encode(), digest_size=_KEY_BYTES, person=b"ndml-seen").digest()


def write_seen(seen: Mapping[Entry, int]) -> str:
    """The token; "" for nothing seen. Past MAX_ENTRIES the entries with the smallest positions are left out."""
    if not seen:
        return ""
    kept = sorted(seen.items())
    if len(kept) > MAX_ENTRIES:
        kept = sorted(sorted(kept, key=lambda item: -item[1])[:MAX_ENTRIES])
    data = _VERSION + b"".join(_ENTRY.pack(key, replica, position) for (key, replica), position in kept)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def read_seen(token: str) -> dict[Entry, int]:
    """Inverse; {} for "". Raises ValueError for anything that write_seen did not give."""
    if not token:
        return {}
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    body = data[1:]
    if data[:1] != _VERSION or not body or len(body) % _ENTRY.size or len(body) > MAX_ENTRIES * _ENTRY.size:
        raise ValueError("another layout")
    found = {(key, replica): position for key, replica, position in _ENTRY.iter_unpack(body)}
    if write_seen(found) != token or not all(replica in _NUMBERS and position in _NUMBERS for (_, replica), position in found.items()):
        raise ValueError("not in order")
    return found


def joined_seen(user: str, *tokens: str) -> str:
    """What the tokens say of one user, as one token. Raises ValueError as read_seen does."""
    key, best = user_key(user), dict[Entry, int]()
    for token in tokens:
        for entry, position in read_seen(token).items():
            if entry[0] == key:
                best[entry] = max(position, best.get(entry, 0))
    return write_seen(best)
