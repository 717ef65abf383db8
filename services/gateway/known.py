"""What this gateway has been told of owners: so that a write goes to a copy that has the writes before it, whoever made them here."""

from __future__ import annotations

from collections import OrderedDict

from services.gateway.ports import NOTHING_SEEN, Seen
from services.gateway.scopes import Owner
from services.gateway.tokens import joined

_OWNERS = 16_384
_STORES = 64
"""Numbers kept of an owner; it has a few copies, and each gets a new number only when its disk is new."""


class Known:
    """Positions by owner, joined; least recently written owners go first. A hint: losing it loses no write."""

    def __init__(self, owners: int = _OWNERS) -> None:
        self._most = owners
        self._seen: OrderedDict[Owner, dict[int, int]] = OrderedDict()

    def note(self, owner: Owner, seen: Seen) -> None:
        """A write was carried out, up to here."""
        if not seen:
            return
        known = joined(self._seen.pop(owner, NOTHING_SEEN), seen)
        self._seen[owner] = known if len(known) <= _STORES else dict(seen)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def of(self, owner: Owner) -> Seen:
        """What a copy must know to have all that was noted."""
        return self._seen.get(owner, NOTHING_SEEN)
