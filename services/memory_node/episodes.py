"""The episode around a hit: the stretch of its session between two surprises. Derived when somebody asks, never stored; ranking does not
look at it. Runs on the engine's thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ndml.btsp.episodes import EpisodeOptions, boundaries, episode_of
from ndml.v1.memory_pb2 import Episode
from services.memory_node.filters import Mask
from services.memory_node.partition import Partition
from services.memory_node.ranking import I64
from services.memory_node.records import timestamp

MOST_TURNS = 32
"""On either side of a hit: where nothing surprises for so long, the episode is shown so far."""
MOST_HITS = 100
"""Of a search that asks for episodes: each costs some 70 products of vectors."""
_OPTIONS = EpisodeOptions()


def episodes(partition: Partition, rows: I64, allowed: Mask | None) -> list[I64]:
    """For each row the rows of its episode, in the order in which they were said, itself among them; none for a row without a session.

    allowed: rows that the caller may see; the others are as if they were not there.
    """
    before = MOST_TURNS + _OPTIONS.reach + 1
    lines = partition.evidence.sessions.around(rows, before, partition.columns)[:, : before + MOST_TURNS + 1]
    sessions = partition.columns.ints("session")
    return [_one(partition, row, line, allowed) if sessions[row] else line[:0] for row, line in zip(rows.tolist(), lines, strict=True)]


def _one(partition: Partition, row: int, line: I64, allowed: Mask | None) -> I64:
    turns = line[line >= 0]
    if allowed is not None:
        turns = turns[allowed[turns]]
    at = np.flatnonzero(turns == row)
    if not len(at):  # it expired a moment ago
        return turns[:0]
    place = int(at[0])
    begins = boundaries(partition.index.reconstruct(turns), partition.columns.ints("session")[turns], _OPTIONS)
    first, last = episode_of(begins, place)
    return turns[max(first, place - MOST_TURNS) : min(last, place + MOST_TURNS) + 1]


def shown(partition: Partition, turns: I64) -> Episode | None:
    """As a search gives it; None for no turns."""
    if not len(turns):
        return None
    said = partition.columns.ints("said_at_us")[turns]
    episode = Episode(episode_id=partition.columns.trace_ids(turns[:1])[0].hex(), turns=len(turns))
    episode.first_said_at.CopyFrom(timestamp(int(said[0])))
    episode.last_said_at.CopyFrom(timestamp(int(said[-1])))
    return episode


def within(around: I64, turns: Sequence[I64]) -> I64:
    """[n, w] rows, -1 where one is not of the episode [n] of its line; a line without an episode stays as it is."""
    kept = around.copy()
    for line, episode in zip(kept, turns, strict=True):
        if len(episode):
            line[~np.isin(line, episode)] = -1
    return kept
