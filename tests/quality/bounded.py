"""Conversations streamed through an index with room for some of their turns: which are left at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.forgetting import choose, pressure, tie_keys
from tests.quality.embedded import Embedded
from tests.quality.ranking import F64, Bench, Bools

I64 = NDArray[np.int64]
Policy = Literal["random", "first in first out", "salience", "salience and redundancy"]


def resident(bench: Bench, share: float, policy: Policy) -> list[Bools]:
    """bool [turns] for each conversation: resident at its end, with room for `share` of its turns and one out at every overflow."""
    return [_streamed(talk, nats, int(share * len(nats)), policy) for talk, nats in zip(bench.talks, bench.information, strict=True)]


def evicted_at_once(talk: Embedded, force: F64, share: float) -> Bools:
    """bool [turns]: left when the turns of the largest pressure `force` [turns] make room at the end, down to `share` of all."""
    kept = np.ones(len(force), bool)
    kept[choose(force, len(force) - int(share * len(force)), np.zeros(len(force), bool), keys_of(talk))] = False
    return kept


def keys_of(talk: Embedded) -> NDArray[np.uint64]:
    """Keys of the turns, unrelated to time and words."""
    return tie_keys([f"{talk.talk.sample_id}/{turn.dia_id}".encode() for turn in talk.talk.turns])


def _streamed(talk: Embedded, nats: F64, capacity: int, policy: Policy) -> Bools:
    keys = keys_of(talk)
    forces: dict[str, Callable[[I64], F64]] = {
        # Equal pressures go by the keys, which are as good as drawn: what is left is a uniform sample.
        "random": lambda rows: np.zeros(len(rows)),
        "first in first out": lambda rows: -rows.astype(np.float64),
        "salience": lambda rows: pressure(nats[rows]),
        "salience and redundancy": lambda rows: pressure(nats[rows], redundancy=_nearest(talk, rows)),
    }
    rows: list[int] = []
    for row in range(len(nats)):
        rows.append(row)
        if len(rows) > capacity:
            here = np.array(rows)
            rows.pop(int(choose(forces[policy](here), 1, np.zeros(len(here), bool), keys[here])[0]))
    kept = np.zeros(len(nats), bool)
    kept[rows] = True
    return kept


def _nearest(talk: Embedded, rows: I64) -> F64:
    cosines = (talk.turns[rows] @ talk.turns[rows].T).astype(np.float64)
    np.fill_diagonal(cosines, -1.0)
    return np.asarray(cosines.max(axis=1), np.float64)
