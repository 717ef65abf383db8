"""The file form of a backup: everything in it is hashed, so that what was cut off or changed is found before anything is sent. Pure.

Frames one after the other: a letter, the length of the content (4 bytes, little-endian), its SHA-256 (32 bytes), the content. First comes
H, a JSON object; then P, a part of the backup as the suite gave it, as often as there are parts; last T, a JSON object with counts and
`chain`: SHA-256 over the hashes of all frames before it, which no part can be missing from, nor stand elsewhere in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any, BinaryIO

from ndml.errors import FieldInvalid

FORMAT = 1
MOST_BYTES = 48 << 20
"""Of one frame: more than a server puts into one message."""
_HEAD = Struct("<cI32s")
_HEADER, _PART, _TRAILER = b"H", b"P", b"T"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file says of itself."""

    created_at: str
    owners: int
    parts: int
    size_bytes: int


class Writer:
    """Writes header, parts and trailer; without the trailer the file is none."""

    def __init__(self, sink: BinaryIO, created_at: str) -> None:
        self._sink = sink
        self._chain = hashlib.sha256()
        self.parts = 0
        self._frame(_HEADER, json.dumps({"backup_format": FORMAT, "created_at": created_at}).encode())

    def part(self, content: bytes) -> None:
        self._frame(_PART, content)
        self.parts += 1

    def close(self, owners: int) -> None:
        counts = {"owners": owners, "parts": self.parts, "chain": self._chain.hexdigest()}
        self._frame(_TRAILER, json.dumps(counts).encode())

    def _frame(self, kind: bytes, content: bytes) -> None:
        digest = hashlib.sha256(kind + content).digest()
        self._sink.write(_HEAD.pack(kind, len(content), digest) + content)
        self._chain.update(digest)


def verified(source: BinaryIO) -> Contents:
    """Read the file to its end. Raises FieldInvalid, about `file`, for anything that Writer did not write."""
    header: dict[str, Any] = {}
    chain, parts = hashlib.sha256(), 0
    for kind, content, digest in _frames(source):
        if kind == _TRAILER:
            return _checked(header, _json(content), parts, chain.hexdigest(), source)
        if (kind == _HEADER) == bool(header):
            raise _broken("it does not begin as a backup does")
        header = header or _json(content)
        parts += kind == _PART
        chain.update(digest)
    raise _broken("it ends before its end: it was cut off")


def parts(source: BinaryIO) -> Iterator[bytes]:
    """The parts of a file that `verified` has read, each checked once more."""
    return (content for kind, content, _ in _frames(source) if kind == _PART)


def _frames(source: BinaryIO) -> Iterator[tuple[bytes, bytes, bytes]]:
    while head := source.read(_HEAD.size):
        if len(head) < _HEAD.size:
            raise _broken("it ends inside a part: it was cut off")
        kind, size, digest = _HEAD.unpack(head)
        if kind not in (_HEADER, _PART, _TRAILER) or size > MOST_BYTES:
            raise _broken("it is no backup, or was changed")
        content = source.read(size)
        if len(content) < size:
            raise _broken("it ends inside a part: it was cut off")
        if hashlib.sha256(kind + content).digest() != digest:
            raise _broken("a part is not as it was written: it was changed, or its disk has errors")
        yield kind, content, digest


def _checked(header: dict[str, Any], trailer: dict[str, Any], parts: int, chain: str, source: BinaryIO) -> Contents:
    if header.get("backup_format") != FORMAT:
        raise _broken(f"format {header.get('backup_format')!r} is not known here: use the release that wrote it")
    owners = trailer.get("owners", 0)
    if trailer.get("chain") != chain or trailer.get("parts") != parts or not isinstance(owners, int):
        raise _broken("parts are missing, doubled or in another order")
    size = source.tell()
    if source.read(1):
        raise _broken("something stands behind its end")
    return Contents(str(header.get("created_at", "")), owners, parts, size)


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise _broken("its header or trailer cannot be read") from None
    return value if isinstance(value, dict) else {}


def _broken(why: str) -> FieldInvalid:
    return FieldInvalid(f"not a whole backup: {why}; nothing was sent", field="file")
