"""What is shown of the ranked, and what stands beside it: unlike hits, a budget, neighbours, ancestors. Through the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ndml.errors import FieldInvalid
from ndml.v1.memory_pb2 import SearchHit, SearchMemoriesResponse
from ndml.v1.types_pb2 import (
    LINK_TYPE_CAUSED_BY,
    LINK_TYPE_CAUSES,
    LINK_TYPE_DERIVED_FROM,
    LINK_TYPE_RELATED,
    LINK_TYPE_SUPERSEDES,
    MemoryTrace,
    Scope,
    TraceLink,
)
from services.memory_node.ranking import Ranked
from services.memory_node.selection import diverse, only, within
from tests.unit.memory_node import node_harness as harness


def hit_texts(found: list[SearchHit]) -> list[str]:
    return [hit.trace.text for hit in found]


async def hits(node: harness.Driver, query: int | str, **fields: Any) -> list[SearchHit]:
    result = await node.one(harness.search("ann", query, **fields))
    return list(SearchMemoriesResponse.FromString(result.search.responses[0]).hits)


def session(name: str, *said: str, agent: str = "") -> list[MemoryTrace]:
    turns = [harness.trace(text, text, said_at_us=1_000_000 * (i + 1)) for i, text in enumerate(said)]
    for turn in turns:
        turn.scope.CopyFrom(Scope(tenant="t", user="ann", session=name, agent=agent))
    return turns


async def test_neighbours_stand_beside_a_hit_in_the_order_they_were_said(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *session("s", "one", "two", "three", "four", "five"), *session("other", "alone"))
        [hit] = await hits(node, "three", k=1, neighbours=2)
        assert [t.text for t in hit.before] == ["one", "two"] and [t.text for t in hit.after] == ["four", "five"]
        [hit] = await hits(node, "five", k=1, neighbours=3)
        assert [t.text for t in hit.before] == ["two", "three", "four"] and not hit.after
        [hit] = await hits(node, "alone", k=1, neighbours=5)
        assert not hit.before and not hit.after
        await node.one(harness.operation("ann", delete={"trace_id": harness.trace_id("two")}))
        [hit] = await hits(node, "three", k=1, neighbours=1)
        assert [t.text for t in hit.before] == ["one"], "what is deleted is no neighbour"


async def test_neighbours_of_another_agent_are_not_shown_to_one(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        mine, other = session("s", "mine", agent="a"), session("s", "x", "theirs", agent="b")
        await node.put("ann", *mine, *other)
        [hit] = await hits(node, "mine", k=1, neighbours=5, agent="a")
        assert not hit.before and not hit.after
        [hit] = await hits(node, "mine", k=1, neighbours=5)
        assert {t.text for t in (*hit.before, *hit.after)} == {"x", "theirs"}


def linked(name: str, said: int, **links: int) -> MemoryTrace:
    made = harness.trace(name, name, said_at_us=1_000_000 * said)
    made.links.extend(TraceLink(type=kind, trace_id=harness.trace_id(other)) for other, kind in links.items())
    return made


async def test_ancestors_are_what_it_was_made_of_and_replaced_first_said_first(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        chain = [
            linked("a", 1),
            linked("b", 2, a=LINK_TYPE_SUPERSEDES),
            linked("c", 3, b=LINK_TYPE_SUPERSEDES, r=LINK_TYPE_RELATED),
            linked("d", 4, c=LINK_TYPE_DERIVED_FROM, gone=LINK_TYPE_DERIVED_FROM, d=LINK_TYPE_DERIVED_FROM),
            linked("r", 0),
        ]
        await node.put("ann", *chain)
        for steps, expected in ((0, []), (1, ["c"]), (2, ["b", "c"]), (5, ["a", "b", "c"])):
            [hit] = await hits(node, "d", k=1, ancestors=steps)
            assert [t.text for t in hit.ancestors] == expected


async def test_ancestors_tell_why_causes_before_effects_from_whichever_end_it_was_told(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        chain = [
            linked("failed", 1),
            linked("disk full", 5, failed=LINK_TYPE_CAUSES),  # said after what it explains
            linked("logs grew", 3),
            linked("disk full again", 6, **{"logs grew": LINK_TYPE_CAUSES}),
            linked("moved", 2, failed=LINK_TYPE_CAUSED_BY),
        ]
        await node.put("ann", *chain)
        [hit] = await hits(node, "moved", k=1, ancestors=5)
        assert [t.text for t in hit.ancestors] == ["disk full", "failed"], "the cause first, although it was said last"
        [hit] = await hits(node, "failed", k=1, ancestors=1)
        assert [t.text for t in hit.ancestors] == ["disk full"]
        await node.one(harness.operation("ann", delete={"trace_id": harness.trace_id("disk full")}))
        [hit] = await hits(node, "moved", k=1, ancestors=5)
        assert [t.text for t in hit.ancestors] == ["failed"], "what is deleted explains nothing"


async def test_causes_in_a_circle_end(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        a, b, c = LINK_TYPE_CAUSED_BY, LINK_TYPE_CAUSED_BY, LINK_TYPE_CAUSES
        await node.put("ann", linked("x", 1, y=a), linked("y", 2, z=b), linked("z", 3, x=a, y=c), linked("hit", 4, x=a))
        [hit] = await hits(node, "hit", k=1, ancestors=5)
        assert sorted(t.text for t in hit.ancestors) == ["x", "y", "z"]


async def test_a_link_to_another_owner_leads_nowhere(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("bob", linked("secret", 1), linked("teller", 2, mine=LINK_TYPE_CAUSES))
        await node.put("ann", linked("mine", 3, secret=LINK_TYPE_CAUSED_BY))
        [hit] = await hits(node, "mine", k=1, ancestors=5)
        assert not hit.ancestors


async def test_a_budget_keeps_what_fits_and_nothing_twice(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        said = ["a" * 40, "b" * 400, "c" * 40, "C" * 40]
        await node.put("ann", *(harness.trace(i, text) for i, text in enumerate(said)))
        found = hit_texts(await hits(node, 0, k=10, max_tokens=25))
        assert "b" * 400 not in found and len({text.casefold() for text in found}) == len(found) == 2
        assert sum(map(len, found)) <= 100
        assert len(await hits(node, 0, k=1, max_tokens=1000)) == 1
        assert await hits(node, 0, k=10, max_tokens=5) == []
        explained = await hits(node, 0, k=10, max_tokens=1000, explain=True)
        assert [hit.score for hit in explained] == sorted((hit.score for hit in explained), reverse=True)


async def test_diversity_puts_back_what_is_like_a_hit_before_it(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        near = np.frombuffer(harness.vector("q"), "<f4")
        copies = [(near + 0.05 * i * np.frombuffer(harness.vector("x"), "<f4")) for i in range(3)]
        traces = [harness.trace(f"copy {i}", f"copy {i}") for i in range(3)] + [harness.trace("else", "else")]
        for made, vector in zip(traces, copies, strict=False):
            made.embedding.vector = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
        await node.put("ann", *traces)
        assert "else" not in hit_texts(await hits(node, "q", k=3))
        found = await hits(node, "q", k=3, diversity=0.7, explain=True)
        assert found[0].trace.text == "copy 0" and found[1].trace.text == "else"
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        for hit in found:
            assert hit.score == pytest.approx(sum(each.share for each in hit.signals), abs=1e-4)


async def test_too_much_around_the_hits_is_refused_by_name(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path, engine={"result_bytes": 1 << 16})) as node:
        await node.put("ann", *session("s", *(f"{i} " + "x" * 9_000 for i in range(9))))
        assert len(await hits(node, 4, k=2)) == 2
        with pytest.raises(FieldInvalid, match="result_bytes") as refused:
            await hits(node, 4, k=2, neighbours=5)
        assert refused.value.violations[0].field == "neighbours"


def ranked(scores: list[float]) -> Ranked:
    found = np.array([scores], np.float32)
    return Ranked(found, np.arange(len(scores))[None], found, {"dense": found})


def test_without_diversity_the_order_stays() -> None:
    given_ = ranked([0.9, 0.5, 0.1])
    same = diverse(given_, np.tile(np.eye(3, dtype=np.float32)[0], (1, 3, 1)), 0.0, 3)
    assert same.rows.tolist() == given_.rows.tolist()
    np.testing.assert_allclose(same.scores, given_.scores, rtol=1e-6)


@given(arrays.arrays(np.float32, st.integers(1, 8), elements=st.floats(-3, 3, width=32)), st.floats(0, 1), st.integers(1, 9))
def test_scores_descend_and_every_row_is_shown_once(scores: np.ndarray, diversity: float, k: int) -> None:
    vectors = np.random.default_rng(len(scores)).normal(size=(1, len(scores), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = diverse(ranked(np.sort(scores)[::-1].tolist()), vectors, diversity, k)
    count = min(k, len(scores))
    assert found.rows.shape == (1, count) and len(set(found.rows[0].tolist())) == count
    assert (np.diff(found.scores[0]) <= 1e-5).all()


def test_places_within_a_budget() -> None:
    said = [("ann", "x" * 8), ("ann", "X" * 8), ("bo", "x" * 8), ("ann", "y" * 40), ("ann", "z")]
    assert within(said, 100, 10) == [0, 2, 3, 4]
    assert within(said, 5, 10) == [0, 2, 4]
    assert within(said, 100, 2) == [0, 2]
    assert within(said, 0, 9) == [] and within([], 9, 9) == []
    kept = only(ranked([3, 2, 1]), [[0, 2]])
    assert kept.rows.tolist() == [[0, 2]] and only(ranked([3, 2, 1]), [[]]).rows.shape == (1, 0)
