"""Tokens to text, piece by piece: no broken characters, nothing past a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"
_HELD_TOKENS = 16  # a character is at most four tokens; longer runs of broken bytes are what the model means


class Detokenizer:
    """Pieces add up to `decode` of all tokens. A token's text depends on its left neighbour, so each step decodes a small window twice."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = 0  # first token of the window
        self._sent = 0  # tokens whose text is out

    def add(self, token: int) -> str:
        """Text that is now certain; empty in the middle of a character."""
        self._ids.append(token)
        piece = self._piece()
        if piece.endswith(_BROKEN) and len(self._ids) - self._sent < _HELD_TOKENS:
            return ""
        return self._advance(piece)

    def flush(self) -> str:
        """What is left at the end, broken or not."""
        return self._advance(self._piece())

    def _piece(self) -> str:
        window = self._ids[self._start :]
        before = self._decode(window[: self._sent - self._start])
        return self._decode(window)[len(before) :]

    def _advance(self, piece: str) -> str:
        if piece:
            self._start, self._sent = self._sent, len(self._ids)
        return piece


class StopFilter:
    """Lets text through up to the first stop string; holds back what may still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def add(self, piece: str) -> str:
        """Text that no stop string can take back. Nothing more after `stopped`."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = self._undecided(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The end has come: what was held back is plain text."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        longest = max((len(stop) for stop in self._stops), default=0) - 1
        return next((n for n in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in self._stops)), 0)
