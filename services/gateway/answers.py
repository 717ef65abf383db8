"""Answer ids: which traces an answer of Chat cited, as a token that carries them. The gateway keeps nothing, so nothing expires. Pure.

Layout: version (1 byte), 16 bytes for each cited trace in prompt order, 4 bytes of BLAKE2b over both; base64url without padding. The owner
is not in it: feedback looks the traces up inside the caller's own scope, so a made-up token reaches no more than a trace id would.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence

from ndml.errors import FieldInvalid

MAX_CITED = 50
"""As ChatRequest.recall_k: no answer cites more."""
_VERSION = b"\x01"
_ID_BYTES = 16
_CHECK_BYTES = 4


def write_answer_id(trace_ids: Sequence[str]) -> str:
    """Token of an answer that cited these traces; "" where it cited none. Raises ValueError for more than MAX_CITED."""
    if len(trace_ids) > MAX_CITED:
        raise ValueError(f"an answer cites at most {MAX_CITED} traces, not {len(trace_ids)}")
    if not trace_ids:
        return ""
    body = _VERSION + b"".join(bytes.fromhex(trace_id) for trace_id in trace_ids)
    return base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def read_answer_id(token: str, field: str) -> list[str]:
    """Inverse: the trace ids, in prompt order. Raises FieldInvalid, about `field`, for anything that write_answer_id did not give."""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _broken(field) from None
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    cited = body[len(_VERSION) :]
    whole = 0 < len(cited) <= MAX_CITED * _ID_BYTES and len(cited) % _ID_BYTES == 0
    if not whole or body[: len(_VERSION)] != _VERSION or check != _check(body):
        raise _broken(field)
    trace_ids = [cited[at : at + _ID_BYTES].hex() for at in range(0, len(cited), _ID_BYTES)]
    if write_answer_id(trace_ids) != token:  # base64 has spare bits at its end: one answer has one spelling
        raise _broken(field)
    return trace_ids


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, person=b"ndml-answer").digest()


def _broken(field: str) -> FieldInvalid:
    return FieldInvalid("not an answer id of this suite: pass on answer_id of the chat's last message as it came", field=field)
