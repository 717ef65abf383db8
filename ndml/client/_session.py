"""Session consistency: the newest consistency token of each owner that this client wrote to."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

Owner = tuple[str, str]


class Tokens:
    """Tokens by (tenant, user), at most `limit`, least recently used out first. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tokens: OrderedDict[Owner, str] = OrderedDict()
        self._lock = Lock()

    def remember(self, owner: Owner, token: str) -> None:
        """Keep what a write gave; an empty token says nothing and changes nothing."""
        if not token:
            return
        with self._lock:
            self._tokens[owner] = token
            self._tokens.move_to_end(owner)
            while len(self._tokens) > self._limit:
                self._tokens.popitem(last=False)

    def newest(self, owner: Owner) -> str:
        """The owner's token, or an empty string."""
        with self._lock:
            if owner in self._tokens:
                self._tokens.move_to_end(owner)
            return self._tokens.get(owner, "")
