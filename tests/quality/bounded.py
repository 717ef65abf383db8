"""Conversations streamed through an index with room for some of their turns: which are left at the end."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ndml.btsp.forgetting import choose, pressure, tie_keys
from tests.quality.embedded import Embedded
from tests.quality.ranking import F64, Bench, Bools

Policy = Literal["salience", "salience and redundancy", "fifo"]


def resident(bench: Bench, share: float, policy: Policy) -> list[Bools]:
    """bool [turns] for each conversation: resident at its end, with room for `share` of its turns and one out at every overflow."""
    return [_streamed(talk, nats, int(share * len(nats)), policy) for talk, nats in zip(bench.talks, bench.information, strict=True)]


def _streamed(talk: Embedded, nats: F64, capacity: int, policy: Policy) -> Bools:
    keys = tie_keys([f"{talk.talk.sample_id}/{turn.dia_id}".encode() for turn in talk.talk.turns])
    rows: list[int] = []
    for row in range(len(nats)):
        rows.append(row)
        if len(rows) > capacity and policy == "fifo":
            rows.pop(0)
        elif len(rows) > capacity:
            here = np.array(rows)
            near = _nearest(talk, here) if policy == "salience and redundancy" else None
            out = choose(pressure(nats[here], redundancy=near), 1, np.zeros(len(here), bool), keys[here])
            rows.pop(int(out[0]))
    kept = np.zeros(len(nats), bool)
    kept[rows] = True
    return kept


def _nearest(talk: Embedded, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> F64:
    cosines = (talk.turns[rows] @ talk.turns[rows].T).astype(np.float64)
    np.fill_diagonal(cosines, -1.0)
    return np.asarray(cosines.max(axis=1), np.float64)
