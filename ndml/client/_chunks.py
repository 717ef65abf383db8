"""Items into messages, bounded in count and bytes, so that input may be endless. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from ndml.errors import NdmlError

Item = TypeVar("Item")
Part = TypeVar("Part", bound=Message)
Packed = TypeVar("Packed")


class Chunks(Generic[Item, Part, Packed]):
    """`push` each item, send what comes back, `finish` at the end and send that too.

    `encode` turns an item into a message, `pack` a full list of them and the position of its first item into what is sent.
    """

    def __init__(
        self, encode: Callable[[Item], Part], pack: Callable[[list[Part], int], Packed], *, max_items: int, max_bytes: int
    ) -> None:
        self._encode, self._pack = encode, pack
        self._max_items, self._max_bytes = max_items, max_bytes
        self._parts: list[Part] = []
        self._bytes = 0
        self._first = 0

    def push(self, item: Item) -> Packed | None:
        """Take one more; gives the chunk before it once that is full. A single item above `max_bytes` travels alone.

        Raises what `encode` raises, with the item's position in the input as metadata "index".
        """
        try:
            part = self._encode(item)
        except NdmlError as error:
            error.metadata["index"] = str(self._first + len(self._parts))
            raise
        size = part.ByteSize()
        full = len(self._parts) == self._max_items or self._bytes + size > self._max_bytes
        done = self.finish() if full else None
        self._parts.append(part)
        self._bytes += size
        return done

    def finish(self) -> Packed | None:
        """The last chunk, None when nothing is left."""
        if not self._parts:
            return None
        parts, first = self._parts, self._first
        self._parts, self._bytes, self._first = [], 0, first + len(parts)
        return self._pack(parts, first)
