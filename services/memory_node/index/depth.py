"""How many candidates of the quantised scan must be refined to find the true neighbours: measured, because it grows with the data."""

from __future__ import annotations

import math

import numpy as np

from services.memory_node.index.options import IndexOptions
from services.memory_node.index.ports import I64

TEN = 10
"""Hits a probe looks for; depth for more hits scales with their number, fewer need no less (a single hit still wants most of it)."""

LOOK_AHEAD = 4
"""A probe looks this many times deeper than the present depth, so it sees what the present depth misses."""

MARGIN = 1.25
"""Surplus over the measured depth: the quantile comes from some hundred positions, of which a handful lie above it."""

REMEMBERED = 1024
"""Positions remembered: some hundred probes, enough to see a share of .995 and few enough to follow a growing partition."""


class Depth:
    """Candidates per search, from the positions at which the scan ranked rows that turned out to be true neighbours."""

    def __init__(self, options: IndexOptions) -> None:
        self._options = options
        self._least = TEN * options.k_factor
        self._most = TEN * options.k_factor_max
        self._positions = np.zeros(REMEMBERED, dtype=np.int64)
        self._seen = 0
        self._until_probe = options.probe_every
        self.for_ten = self._least

    def candidates(self, k: int) -> int:
        """Candidates to refine for `k` hits."""
        return math.ceil(self.for_ten * max(k, TEN) / TEN)

    @property
    def look_ahead(self) -> int:
        """Depth of a probe."""
        return LOOK_AHEAD * self.for_ten

    def due(self, queries: int) -> bool:
        """Count `queries`; True when it is time that one of them is a probe."""
        self._until_probe -= queries
        if self._until_probe > 0:
            return False
        self._until_probe = self._options.probe_every
        return True

    def forget(self) -> None:
        """The partition has changed: drop old positions, keep the depth until new ones are there."""
        self._seen = 0

    def record(self, ranked: I64, found: I64) -> None:
        """Learn from probes: `ranked` [p, depth] rows as the scan ordered them, `found` [p, 10] the true neighbours among them."""
        hits = ranked[:, :, None] == found[:, None, :]
        positions = hits.argmax(axis=1)[(found >= 0) & hits.any(axis=1)]
        for position in np.array_split(positions, math.ceil(positions.size / REMEMBERED) or 1):
            slots = (self._seen + np.arange(position.size)) % REMEMBERED
            self._positions[slots] = position
            self._seen += position.size
        known = self._positions[: min(self._seen, REMEMBERED)]
        if known.size:
            needed = math.ceil(MARGIN * (1 + float(np.quantile(known, self._options.recall_target))))
            self.for_ten = min(max(needed, self._least), self._most)
            if LOOK_AHEAD * needed > 2 * ranked.shape[1]:  # these probes may have missed what lies deeper: look again from the new depth
                self.forget()
