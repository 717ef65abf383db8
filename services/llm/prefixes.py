"""Keys and values of beginnings that prompts share, block by block, so that rules, instructions and history are read once.

A block is kept when it comes for the second time: what only one prompt begins with, such as what was recalled for it, costs no memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

BLOCK = 16  # tokens: small enough to share most of a beginning, large enough that a look-up costs nothing beside reading
_NODE_BYTES = 1024  # of a block that was only seen: its tokens and its place here


@dataclass(eq=False, slots=True)
class Block:
    """Tokens of a beginning from `at` on; kept: their keys and values, each (heads, BLOCK, d), () where they are not."""

    parent: Block | None
    tokens: tuple[int, ...]
    at: int
    kept: tuple[Tensor, ...] = ()
    after: dict[tuple[int, ...], Block] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return _NODE_BYTES + sum(tensor.nbytes for tensor in self.kept)


class Prefixes:
    """At most `limit_bytes`, least recently used out first. One thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._roots: dict[tuple[int, ...], Block] = {}
        self._recent: OrderedDict[Block, None] = OrderedDict()
        self.bytes = self.tokens_found = 0

    def find(self, tokens: Sequence[int]) -> list[Block]:
        """Blocks that `tokens` begins with and that are kept, one after the other, at least one token being left to read."""
        path = [block for block in self._path(tokens) if block.at + BLOCK < len(tokens)]
        kept = next((n for n, block in enumerate(path) if not block.kept), len(path))
        self.tokens_found += kept * BLOCK
        return path[:kept]

    def seen(self, tokens: Sequence[int]) -> list[Block]:
        """Note that a prompt begins so; blocks that another one began with before, and that are to be kept now."""
        if self._limit <= 0:
            return []
        path = self._path(tokens)
        wanted = [block for block in path if not block.kept]
        while (at := len(path) * BLOCK) + BLOCK <= len(tokens):
            block = Block(path[-1] if path else None, tuple(tokens[at : at + BLOCK]), at)
            self._children(block.parent)[block.tokens] = block
            self.bytes += block.bytes
            path.append(block)
        for block in reversed(path):  # the beginning last: what stands after a block goes before it
            self._recent[block] = None
            self._recent.move_to_end(block)
        self._shrink()
        return [block for block in wanted if block in self._recent]

    def keep(self, block: Block, kept: tuple[Tensor, ...]) -> None:
        """Of a block that `seen` gave."""
        if block in self._recent:
            self.bytes -= block.bytes
            block.kept = kept
            self.bytes += block.bytes
            self._shrink()

    def _path(self, tokens: Sequence[int]) -> list[Block]:
        path: list[Block] = []
        for at in range(0, len(tokens) - BLOCK + 1, BLOCK):
            block = self._children(path[-1] if path else None).get(tuple(tokens[at : at + BLOCK]))
            if block is None:
                break
            path.append(block)
        return path

    def _children(self, parent: Block | None) -> dict[tuple[int, ...], Block]:
        return self._roots if parent is None else parent.after

    def _shrink(self) -> None:
        while self.bytes > self._limit:
            block, _ = self._recent.popitem(last=False)
            self.bytes -= block.bytes
            del self._children(block.parent)[block.tokens]
