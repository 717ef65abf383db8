"""Session consistency: of each owner that this client wrote to or read, what its next calls have to see."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from ndml.seen import joined_seen

Owner = tuple[str, str]


class Tokens:
    """Tokens by (tenant, user), at most `limit`, least recently used out first. Thread-safe.

    An owner's calls may go to one copy now and to another later: the token is the join of theirs.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tokens: OrderedDict[Owner, str] = OrderedDict()
        self._lock = Lock()

    def remember(self, owner: Owner, token: str) -> None:
        """Join what a call gave; an empty token says nothing and changes nothing."""
        if not token:
            return
        with self._lock:
            held = self._tokens.get(owner, "")
            self._tokens[owner] = token if token == held else _joined(owner[1], held, token)
            self._tokens.move_to_end(owner)
            while len(self._tokens) > self._limit:
                self._tokens.popitem(last=False)

    def newest(self, owner: Owner) -> str:
        """The owner's token, or an empty string."""
        with self._lock:
            if owner in self._tokens:
                self._tokens.move_to_end(owner)
            return self._tokens.get(owner, "")


def _joined(user: str, held: str, new: str) -> str:
    """Both; the new one alone where a server of another release gave one of them."""
    try:
        return joined_seen(user, held, new)
    except ValueError:
        return new
