"""The episode around a hit, through the engine: where it begins and ends, who sees what of it, and that it moves no hit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndml.errors import FieldInvalid
from ndml.v1.memory_pb2 import SearchHit
from ndml.v1.types_pb2 import MemoryTrace, Scope
from services.memory_node.episodes import MOST_TURNS
from tests.unit.memory_node import node_harness as harness


def turns(session: str, *topics: tuple[str, int], agent: str = "") -> list[MemoryTrace]:
    """So many turns about one topic after the other, a second apart; "b3" is the fourth of topic b."""
    made: list[MemoryTrace] = []
    for topic, count in topics:
        for i in range(count):
            name = f"{session}-{topic}{i}"
            near = np.frombuffer(harness.vector(topic), "<f4") + 0.1 * np.frombuffer(harness.vector(name), "<f4")
            each = harness.trace(name, name, said_at_us=harness.T0_US + 1_000_000 * len(made))
            each.embedding.vector = (near / np.linalg.norm(near)).astype("<f4").tobytes()
            each.scope.CopyFrom(Scope(tenant="t", user="ann", session=session, agent=agent))
            made.append(each)
    return made


async def one(node: harness.Driver, seed: str, **fields: Any) -> SearchHit:
    """The hit that is this very trace."""
    found = await node.search("ann", seed, k=50, **fields)
    return next(hit for hit in found.hits if hit.trace.text == seed)


async def test_hits_of_one_topic_are_of_one_episode_and_sessions_are_apart(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *turns("s", ("a", 8), ("b", 7), ("a", 6)), *turns("other", ("a", 6)), harness.trace("alone"))
        first = (await one(node, "s-a3", episode=True)).episode
        assert (first.episode_id, first.turns) == (harness.trace_id("s-a0"), 8)
        assert first.first_said_at.ToMicroseconds() == harness.T0_US
        assert first.last_said_at.ToMicroseconds() == harness.T0_US + 7_000_000
        assert (await one(node, "s-a7", episode=True)).episode == first
        second = (await one(node, "s-b0", episode=True)).episode
        assert second.episode_id == harness.trace_id("s-b0") and second.turns <= 7
        assert (await one(node, "other-a5", episode=True)).episode.episode_id == harness.trace_id("other-a0")
        assert not (await one(node, "text alone", episode=True)).HasField("episode"), "it has no session"
        assert not (await one(node, "s-a3")).HasField("episode"), "nobody asked"


async def test_neighbours_stay_in_the_episode_and_the_order_of_hits_is_the_same(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *turns("s", ("a", 8), ("b", 7)))
        hit = await one(node, "s-a7", episode=True, neighbours=3)
        assert [t.text for t in hit.before] == ["s-a4", "s-a5", "s-a6"] and not hit.after
        assert [t.text for t in (await one(node, "s-a7", neighbours=1)).after] == ["s-b0"]
        plain = await node.search("ann", "s-a7", k=15)
        asked = await node.search("ann", "s-a7", k=15, episode=True)
        assert [(h.trace.text, h.score) for h in plain.hits] == [(h.trace.text, h.score) for h in asked.hits]


async def test_what_another_agent_said_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        said = turns("s", ("a", 8))
        for turn in said[::2]:
            turn.scope.agent = "theirs"
        for turn in said[1::2]:
            turn.scope.agent = "mine"
        await node.put("ann", *said)
        assert (await one(node, "s-a5", episode=True)).episode.episode_id == harness.trace_id("s-a0")
        mine = (await one(node, "s-a5", episode=True, agent="mine")).episode
        assert (mine.episode_id, mine.turns) == (harness.trace_id("s-a1"), 4)


async def test_a_session_without_a_surprise_is_shown_so_far_and_many_hits_are_refused(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        same = turns("s", ("a", 3 * MOST_TURNS))
        for turn in same:
            turn.embedding.vector = harness.vector("a")
        await node.put("ann", *same)
        hit = next(h for h in (await node.search("ann", "a", k=96, episode=True)).hits if h.trace.text == f"s-a{MOST_TURNS + 10}")
        assert (hit.episode.episode_id, hit.episode.turns) == (harness.trace_id("s-a10"), 2 * MOST_TURNS + 1)
        with pytest.raises(FieldInvalid, match="episodes") as refused:
            await node.search("ann", "a", k=101, episode=True)
        assert refused.value.violations[0].field == "k"
