"""What a memory holds beside its text: which words of it are evidence, and what of it an answer leaves out. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ndml.v1.types_pb2 import Content, MemoryTrace

_CONTENTS = b"\xc2\x02"
"""Tag of MemoryTrace.contents: what does not have these bytes has no contents."""
_MOST_BYTES = 65_536


class Said(Protocol):
    """A trace, or a memory on its way to one."""

    @property
    def text(self) -> str: ...

    @property
    def contents(self) -> Iterable[Content]: ...


def words_of(said: Said) -> str:
    """All words of a memory, a line each: its text, then captions and transcripts of its contents, 65,536 bytes at most, as a text has.

    Empty where it has none.
    """
    captions = [content.text for content in said.contents if content.text]
    if not captions:
        return said.text
    words = "\n".join([said.text, *captions] if said.text else captions).encode()
    return words[:_MOST_BYTES].decode(errors="ignore")


def embedded_as(said: Said) -> str:
    """What stands for a memory among texts: its words; where it has none, what it holds, as "image/png beach.png"."""
    words = words_of(said)
    return words or "\n".join(f"{each.media_type} {each.uri.rstrip('/').rpartition('/')[2]}".strip() for each in said.contents)


def leave_out(trace: MemoryTrace, *, data: bool, embeddings: bool) -> None:
    """Take the data of the trace's contents out of it, and say how much that was; likewise, silently, their vectors."""
    for content in trace.contents:
        if data and content.data:
            content.data_bytes = len(content.data)
            content.ClearField("data")
        if embeddings:
            content.ClearField("embeddings")


def shown(payload: bytes, *, include_data: bool, include_embedding: bool) -> bytes:
    """A serialised MemoryTrace as an answer has it. One without contents, the usual case, goes through unparsed."""
    if _CONTENTS not in payload or (include_data and include_embedding):
        return payload
    trace = MemoryTrace.FromString(payload)
    if not trace.contents:
        return payload
    leave_out(trace, data=not include_data, embeddings=not include_embedding)
    return trace.SerializeToString(deterministic=True)
