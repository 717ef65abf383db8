"""Opaque tokens that callers carry: consistency and pages. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping

from google.protobuf.message import Message

from ndml.errors import ConsistencyTokenInvalid, NdmlError, PageTokenInvalid
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.seen import read_seen, user_key, write_seen
from services.gateway.scopes import Owner

TOKEN = "consistency_token"
"""Its name in requests, answers, and in the metadata of an error."""
_ID_BYTES = 16
_ERROR_TOKEN = 1_500
"""Characters of a token in an error: 56 stores of the owner. Errors travel as metadata, of which 8 KiB arrive for sure."""
_TIMES = range(-(1 << 63), 1 << 63)


def write_consistency_token(seen: Mapping[Owner, Mapping[int, int]]) -> str:
    """Says what a later read must see: for each owner the positions of stores. "" where nothing was written."""
    return write_seen({(user_key(owner.user), store): at for owner, stores in seen.items() for store, at in stores.items() if store and at})


def read_consistency_token(token: str, owner: Owner, field: str = TOKEN) -> dict[int, int]:
    """What the token says of this owner: store -> position. Raises ConsistencyTokenInvalid, about `field`."""
    try:
        found = read_seen(token)
    except ValueError:
        text = "not a token of this release: pass it on as a write gave it, or leave it out until the next write gives one"
        raise ConsistencyTokenInvalid(text, field=field) from None
    key = user_key(owner.user)
    return {store: at for (user, store), at in found.items() if user == key}


def joined(*seen: Mapping[int, int]) -> dict[int, int]:
    """What is seen by whoever has seen each of these: of each store the largest position."""
    best: dict[int, int] = {}
    for each in seen:
        for store, at in each.items():
            best[store] = max(at, best.get(store, 0))
    return best


def tell_seen(error: NdmlError, owner: Owner, seen: Mapping[int, int]) -> None:
    """Say in the error, beside what it says already, what was seen by whoever gets it: that something is gone must be seen later, too."""
    told = read_consistency_token(error.metadata.get(TOKEN, ""), owner)
    token = write_consistency_token({owner: joined(told, seen)})
    error.metadata.pop(TOKEN, None)
    if 0 < len(token) <= _ERROR_TOKEN:
        error.metadata[TOKEN] = token


def fingerprint(*parts: str | Message) -> str:
    """Says which query a page token belongs to."""
    digest = hashlib.blake2b(digest_size=9)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part.SerializeToString(deterministic=True)
        digest.update(len(data).to_bytes(8, "little") + data)
    return base64.urlsafe_b64encode(digest.digest()).decode()


def write_page_token(query: str, place: node_pb2.ListPlace | None) -> str:
    """Where the next page of the query with this fingerprint starts; "" when there is none."""
    return "" if place is None else _pack({"q": query, "t": place.learned_us, "i": place.trace_id.hex()})


def read_page_token(token: str, query: str) -> node_pb2.ListPlace | None:
    """Inverse; None for "". Raises PageTokenInvalid for a broken token and for one of another query."""
    if not token:
        return None
    found = _unpack(token) or {}
    place = _place(found.get("t"), found.get("i"))
    if place is None:
        raise PageTokenInvalid("not a page token of this release: use next_page_token as it came, or start anew", field="page_token")
    if found.get("q") != query:
        raise PageTokenInvalid("the token belongs to another query: keep scope and filter, or start anew", field="page_token")
    return place


def _place(learned_us: object, trace_id: object) -> node_pb2.ListPlace | None:
    if not isinstance(learned_us, int) or learned_us not in _TIMES or not isinstance(trace_id, str):
        return None
    try:
        id_bytes = bytes.fromhex(trace_id)
    except ValueError:
        return None
    return node_pb2.ListPlace(learned_us=learned_us, trace_id=id_bytes) if len(id_bytes) == _ID_BYTES else None


def _pack(value: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def _unpack(token: str) -> dict[str, object] | None:
    try:
        value = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
