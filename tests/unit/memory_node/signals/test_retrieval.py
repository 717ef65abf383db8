"""Searches with words through the engine: every signal finds, follows changes at once, and keeps to scope and filter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid, NdmlError
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.language.terms import content_words
from ndml.v1.memory_pb2 import SearchHit, SearchMemoriesResponse
from ndml.v1.types_pb2 import MemoryTrace, SearchMode
from ndml.wire import status_to_error
from services.memory_node.records import timestamp
from tests.unit.memory_node import dynamics_harness as dynamics
from tests.unit.memory_node import node_harness as harness

FULL, FAST, DENSE = SearchMode.SEARCH_MODE_FULL, SearchMode.SEARCH_MODE_FAST, SearchMode.SEARCH_MODE_DENSE
FILLERS = [f"{a} {b} {c}" for a in ("green", "heavy", "quiet") for b in ("river", "ladder", "window") for c in ("opens", "falls")]


def asked(text: str) -> bytes:
    """Word vectors of a query: each word its own direction, signed bytes."""
    vectors = [np.frombuffer(harness.vector("".join(word.terms)), "<f4") for word in content_words(text)[:128]]
    return b"".join(np.round(127 * each / np.abs(each).max()).astype(np.int8).tobytes() for each in vectors)


def kept(text: str) -> bytes:
    """The same of a memory: signs."""
    vectors = np.frombuffer(asked(text), np.int8).reshape(-1, harness.DIMENSION)
    return np.packbits(vectors >= 0, axis=1).tobytes()


def turn(seed: int | str, text: str, **fields: Any) -> MemoryTrace:
    """A trace with word vectors; its sentence vector follows from `seed` alone."""
    made = harness.trace(seed, text, **fields)
    made.embedding.word_vectors = kept(text)
    return made


def query(user: str, text: str, seed: int | str = "elsewhere", k: int = 10, mode: int = FULL, **fields: Any) -> pb.Operation:
    words = pb.QueryText(text=text, word_vectors=asked(text))
    return harness.search(user, seed, k, texts=[words], mode=mode, **fields)


async def hits(node: harness.Driver, user: str, text: str, *given_: Any, **fields: Any) -> list[SearchHit]:
    result = await node.one(query(user, text, *given_, **fields))
    return list(SearchMemoriesResponse.FromString(result.search.responses[0]).hits)


async def ranking(node: harness.Driver, user: str, text: str, *given_: Any, **fields: Any) -> list[tuple[str, float]]:
    """Texts and scores."""
    return [(hit.trace.text, round(hit.score, 4)) for hit in await hits(node, user, text, *given_, **fields)]


async def texts(node: harness.Driver, user: str, text: str, *given_: Any, **fields: Any) -> list[str]:
    return [hit.trace.text for hit in await hits(node, user, text, *given_, **fields)]


def conversation() -> list[MemoryTrace]:
    """Two sessions of two people, and some turns without."""
    said = [
        ("a", "Ann", "Which zeppelin museum did you visit?"),
        ("a", "Bo", "Friedrichshafen, it rained all weekend."),
        ("a", "Ann", "I bought plum jam there once."),
        ("b", "Ann", "My violin needs new strings."),
        ("b", "Cy", "The shop by the harbour sells them."),
    ]
    turns = [turn(i, text, session=session, speaker=speaker) for i, (session, speaker, text) in enumerate(said)]
    return turns + [turn(100 + i, text) for i, text in enumerate(FILLERS)]


async def test_full_finds_a_memory_by_its_neighbour_and_by_rare_words(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation())
        by_words = await texts(node, "ann", "violin strings", k=1)
        assert by_words == ["My violin needs new strings."]
        best = await texts(node, "ann", "zeppelin museum", k=2)
        assert set(best) == {"Which zeppelin museum did you visit?", "Friedrichshafen, it rained all weekend."}
        assert "Friedrichshafen, it rained all weekend." not in await texts(node, "ann", "zeppelin museum", k=2, mode=FAST)


async def test_modes_rank_by_what_they_say(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation())
        signals = {}
        for mode in (0, FULL, FAST, DENSE):
            found = await hits(node, "ann", "zeppelin museum", 3, k=23, mode=mode, explain=True)
            signals[mode] = {each.signal for hit in found for each in hit.signals}
            assert len(found) == 23
            for hit in found:
                assert hit.score == pytest.approx(sum(each.share for each in hit.signals), abs=1e-4)
        assert {"dense", "lexical", "late", "late_context", "links", "session", "asks"} <= signals[FULL] == signals[0]
        assert signals[FAST] == {"dense", "lexical"}
        assert signals[DENSE] <= {"dense", "salience", "strength"}
        cosine = await ranking(node, "ann", "zeppelin museum", 3, k=23, mode=DENSE)
        without = await node.search("ann", 3, 23)
        assert cosine == [(hit.trace.text, round(hit.score, 4)) for hit in without.hits]
        orders = [await texts(node, "ann", "zeppelin museum", 3, mode=mode) for mode in (FULL, FAST, DENSE)]
        assert len({tuple(order) for order in orders}) == 3


async def test_a_request_may_weigh_the_signals_itself(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation())
        nothing = dict.fromkeys(("dense", "lexical", "late", "late_context", "links", "session", "date", "speaker", "asks"), 0.0)
        only = await hits(node, "ann", "violin", k=3, explain=True, weights=nothing | {"late": 1.0})
        assert only[0].trace.text == "My violin needs new strings."
        assert {each.signal for each in only[0].signals} == {"late"}
        none = await hits(node, "ann", "violin", k=3, explain=True, weights=nothing)
        assert [(hit.score, list(hit.signals)) for hit in none] == [(0.0, [])] * 3


async def test_days_and_speakers_that_a_query_names_count(tmp_path: Path) -> None:
    day = 1_678_000_000_000_000  # 5 March 2023
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation(), turn("then", "ordinary evening", said_at_us=day), turn("now", "ordinary evening too"))
        assert (await texts(node, "ann", "ordinary evening on 5 March 2023", k=1)) == ["ordinary evening"]
        dated = await hits(node, "ann", "what was on 5 March 2023", k=40, explain=True)
        assert [hit.trace.text for hit in dated if any(s.signal == "date" for s in hit.signals)] == ["ordinary evening"]
        until = {"filter": {"said_at": {"until": timestamp(day + 1)}}}
        held = await hits(node, "ann", "what was on 5 March 2023", k=40, explain=True, **until)
        assert held and not any(s.signal == "date" for hit in held for s in hit.signals), "the filter says when: the day adds nothing"
        named = await hits(node, "ann", "what did Cy say", k=40, explain=True)
        assert {hit.trace.speaker for hit in named if any(s.signal == "speaker" for s in hit.signals)} == {"Cy", ""}


NARROWED: list[tuple[dict[str, Any], list[int]]] = [
    ({"session": "a"}, [0, 1, 2]),
    ({"filter": {"speakers": ["Ann"]}}, [0, 2, 3]),
    ({"filter": {"metadata": [{"key": "open", "equals": "yes"}]}}, [1, 3]),
    ({"filter": {"speakers": ["nobody"]}}, []),
    ({"session": "none"}, []),
]


@pytest.mark.parametrize(("narrowed", "allowed"), NARROWED)
@pytest.mark.parametrize("mode", [FULL, FAST, DENSE])
async def test_what_is_excluded_is_not_found_and_is_no_evidence(
    tmp_path: Path, narrowed: dict[str, Any], allowed: list[int], mode: int
) -> None:
    turns = conversation()
    for i in (1, 3):
        turns[i].metadata["open"] = "yes"
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *turns)
        for text in ("zeppelin museum", "plum jam harbour", "what did Bo say"):
            found = await hits(node, "ann", text, 1, k=30, mode=mode, explain=True, **narrowed)
            assert sorted(hit.trace.text for hit in found) == sorted(turns[i].text for i in allowed)
            for hit in found:
                assert hit.score == pytest.approx(sum(each.share for each in hit.signals), abs=1e-4)


async def test_an_excluded_neighbour_lifts_nobody(tmp_path: Path) -> None:
    """The question is shut out; its reply then gets nothing for standing behind it."""
    turns = conversation()
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *turns)
        narrowed = {"filter": {"speakers": ["Bo", "Cy"]}}
        with_words = await hits(node, "ann", "zeppelin museum", k=5, explain=True, **narrowed)
        assert {hit.trace.speaker for hit in with_words} == {"Bo", "Cy"}
        assert not any(each.signal in ("links", "lexical") for hit in with_words for each in hit.signals)


async def test_expired_rows_are_neither_found_nor_evidence(tmp_path: Path) -> None:
    clock = dynamics.Clock()
    turns = conversation()
    turns[0].expires_at.CopyFrom(timestamp(int((clock.now_s + 60) * 1e6)))
    async with dynamics.node(tmp_path / "n", clock, lifecycle={"interval_s": 1e6}) as node:
        await node.put("u", *turns)
        assert turns[0].text in await texts(node, "u", "zeppelin museum", k=30)
        clock.now_s += 61
        for mode in (FULL, FAST, DENSE):
            assert turns[0].text not in await texts(node, "u", "zeppelin museum", k=30, mode=mode)
        found = await hits(node, "u", "zeppelin museum", k=30, explain=True)
        assert not any(each.signal == "lexical" for hit in found for each in hit.signals)


async def test_update_and_delete_are_followed_by_every_signal_at_once(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation())
        changed = turn(0, "A telescope stands there.", session="a", speaker="Ann")
        fields = ["text", "embedding"]
        await node.one(harness.operation("ann", update={"trace": changed, "fields": fields}))
        found = await hits(node, "ann", "zeppelin museum", k=30, explain=True)
        assert not any(each.signal == "lexical" for hit in found for each in hit.signals), "its old words are nobody's"
        found = await hits(node, "ann", "telescope", k=30, explain=True)
        assert found[0].trace.text == changed.text
        linked = [hit.trace.text for hit in found if any(s.signal == "links" and s.share > 0 for s in hit.signals)]
        assert "Friedrichshafen, it rained all weekend." in linked, "it stands where it stood"
        await node.one(harness.operation("ann", delete={"trace_id": harness.trace_id(0)}))
        found = await hits(node, "ann", "telescope", k=30, explain=True)
        assert changed.text not in [hit.trace.text for hit in found]
        assert not any(each.signal == "lexical" for hit in found for each in hit.signals)


Rankings = list[list[tuple[str, float]]]


async def everything(node: harness.Driver, user: str) -> Rankings:
    """The whole rankings of some queries, mode by mode."""
    asked_for = ("zeppelin museum", "plum jam", "what did Ann say about strings", "green window on 14 November 2023", "the of")
    return [
        await ranking(node, user, text, seed, k=500, mode=mode) for text in asked_for for seed in (1, "x") for mode in (FULL, FAST, DENSE)
    ]


def alike(found: Rankings, others: Rankings) -> None:
    """The same memories with the same scores, but for rounding; equal scores may stand in any order."""
    for one, other in zip(found, others, strict=True):
        assert [score for _, score in one] == pytest.approx([score for _, score in other], abs=2e-3)
        assert dict(one) == pytest.approx(dict(other), abs=2e-3)


async def test_a_loaded_partition_ranks_as_the_appended_one(tmp_path: Path) -> None:
    config = harness.settings(tmp_path)
    async with harness.running(config) as node:
        await node.put("ann", *conversation())
        await texts(node, "ann", "plum")
        late = turn("late", "I visited a zeppelin too.", session="a", speaker="Bo", said_at_us=harness.T0_US + 1)
        await node.put("ann", late)
        changed = turn(4, "The shop by the market sells strings.", session="b", speaker="Cy")
        await node.one(harness.operation("ann", update={"trace": changed, "fields": ["text", "embedding"]}))
        await node.one(harness.operation("ann", delete={"trace_id": harness.trace_id(105)}))
        before = await everything(node, "ann")
    async with harness.running(config) as node:
        alike(await everything(node, "ann"), before)


async def test_compaction_changes_no_ranking(tmp_path: Path) -> None:
    config = harness.settings(tmp_path)
    rows = [turn(1000 + i, f"{FILLERS[i % 18]} {i}", session=str(i % 40), speaker="AB"[i % 2]) for i in range(700)]
    async with harness.running(config) as node:
        await node.put("ann", *rows, *conversation())
        await texts(node, "ann", "plum")
        gone = [harness.operation("ann", delete={"trace_id": harness.trace_id(1000 + i)}) for i in range(700) if i % 7]
        await node.batch(gone)
        after = await everything(node, "ann")
        await node.put("ann", turn("more", "A second zeppelin.", session="a", speaker="Ann"))
        more = await everything(node, "ann")
        assert "A second zeppelin." in [text for text, _ in more[0]] and len(after) == len(more)
    async with harness.running(config) as node:
        alike(await everything(node, "ann"), more)


async def test_k_beyond_the_owner_and_an_owner_of_one(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        assert await texts(node, "nobody", "plum") == []
        await node.put("one", turn(1, "only a plum", session="s", speaker="Ann"))
        for mode in (FULL, FAST, DENSE):
            assert await texts(node, "one", "plum", k=1000, mode=mode) == ["only a plum"]
        await node.put("many", *[turn(i, f"{FILLERS[i % 18]} {i}", session=str(i % 9)) for i in range(200)])
        for k in (1, 64, 150, 200, 900):
            found = await texts(node, "many", "green river 7", k=k)
            assert len(found) == len(set(found)) == min(k, 200)


@pytest.mark.parametrize("text", ["", "the of and", "?!", "🙂", "\x00", "x" * 100_000, "plum " * 10_000])
async def test_queries_without_content_or_of_any_length_are_answered(tmp_path: Path, text: str) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation())
        for mode in (FULL, FAST, DENSE):
            assert len(await texts(node, "ann", text, 1, k=5, mode=mode)) == 5
        words = pb.QueryText(text=text)  # the llm service made no word vectors
        assert len((await node.search("ann", 1, 5, texts=[words])).hits) == 5


async def test_several_queries_in_one_operation_are_those_of_one_each(tmp_path: Path) -> None:
    asked_for = ["zeppelin museum", "", "violin", "what did Cy say"]
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation())
        queries = [pb.QueryText(text=text, word_vectors=asked(text)) for text in asked_for]
        vectors = b"".join(harness.vector(i) for i in range(4))
        together = (await node.one(harness.search("ann", vectors, 6, texts=queries))).search.responses
        for i, text in enumerate(asked_for):
            found = SearchMemoriesResponse.FromString(together[i]).hits
            assert [(hit.trace.text, round(hit.score, 4)) for hit in found] == await ranking(node, "ann", text, i, k=6)


def _wrong(text: pb.QueryText, count: int) -> pb.Operation:
    return harness.search("ann", harness.vector(1), 3, texts=[text] * count)


WRONG = [
    (_wrong(pb.QueryText(text="plum"), 2), "texts"),
    (_wrong(pb.QueryText(text="plum", word_vectors=bytes(15)), 1), "texts.word_vectors"),
    (_wrong(pb.QueryText(text="plum", word_vectors=bytes(17)), 1), "texts.word_vectors"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG)
async def test_a_wrong_query_gets_its_reason_and_its_neighbours_succeed(tmp_path: Path, wrong: pb.Operation, field: str) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation())
        good = query("ann", "plum", 1, k=3)
        good.search.mode = 0
        results = await node.batch([good, wrong, good])
        error = status_to_error(results[1].error)
        assert isinstance(error, FieldInvalid) and [violation.field for violation in error.violations] == [field]
        for result in (results[0], results[2]):
            assert len(SearchMemoriesResponse.FromString(result.search.responses[0]).hits) == 3


@pytest.mark.parametrize("size", [1, 3, 129 * 2])
async def test_word_vectors_of_a_wrong_size_are_refused_and_nothing_is_lost(tmp_path: Path, size: int) -> None:
    wrong = harness.trace("wrong", "wrong words")
    wrong.embedding.word_vectors = bytes(size)
    config = harness.settings(tmp_path)
    async with harness.running(config) as node:
        errors = harness.errors_of(await node.put("ann", turn(1, "a plum"), wrong, turn(2, "a pear")))
        assert [type(error) for error in errors] == [type(None), FieldInvalid, type(None)]
        assert errors[1] is not None and errors[1].violations[0].field == "embedding.word_vectors"
        change = MemoryTrace(trace_id=harness.trace_id(1), text="a plum tree", embedding=wrong.embedding)
        with pytest.raises(NdmlError) as refused:
            await node.one(harness.operation("ann", update={"trace": change, "fields": ["text", "embedding"]}))
        assert isinstance(refused.value, FieldInvalid)
        assert sorted(await texts(node, "ann", "plum")) == ["a pear", "a plum"]
    async with harness.running(config) as node:
        [first, *_] = await hits(node, "ann", "plum", include_embedding=True)
        assert (first.trace.text, first.trace.embedding.word_vectors) == ("a plum", kept("a plum"))


async def test_memories_without_word_vectors_are_found_by_their_other_signals(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        bare = harness.trace("bare", "the last zeppelin", session="a")
        await node.put("ann", bare, *(harness.trace(100 + i, text) for i, text in enumerate(FILLERS)))
        [found] = await hits(node, "ann", "zeppelin", k=1, include_embedding=True, explain=True)
        assert (found.trace.text, found.trace.embedding.word_vectors) == ("the last zeppelin", b"")
        assert not any(each.signal.startswith("late") for each in found.signals)


async def test_a_memory_without_word_vectors_is_not_pushed_behind_those_that_have_them(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        bare, silent = harness.trace("bare", "the last zeppelin"), harness.trace("silent", "of the")
        await node.put("ann", bare, silent, *(turn(100 + i, text) for i, text in enumerate(FILLERS)))
        found = {
            hit.trace.text: {s.signal: s.share for s in hit.signals} for hit in await hits(node, "ann", "zeppelin", k=30, explain=True)
        }
        late = {text: shares.get("late", 0.0) for text, shares in found.items()}
        known = [late[text] for text in FILLERS]
        assert late["the last zeppelin"] == pytest.approx(np.mean(known), abs=1e-3)
        assert late["of the"] < np.mean(known), "it has no content, which is known"


async def test_archived_memories_are_no_evidence_and_come_back_with_all_of_theirs(tmp_path: Path) -> None:
    clock = dynamics.Clock()
    async with dynamics.node(tmp_path / "n", clock, lifecycle={"owner_capacity": 12, "grace_s": 0.0}) as node:
        turns = conversation()
        await node.put("u", *turns)

        async def archived() -> bool:
            clock.now_s += 60
            await texts(node, "u", "plum")
            return (await node.one(harness.operation("u", stats={}))).stats.archived_traces > 0

        await dynamics.until(archived, "archiving past the capacity")
        left = set(await texts(node, "u", "plum", k=100))
        [back, *_] = [each for each in turns if each.text not in left]
        words = await hits(node, "u", back.text, k=100, explain=True)
        assert back.text not in [hit.trace.text for hit in words]
        feedback = pb.ReinforceAction(feedback=[pb.TraceFeedback(trace_id=back.trace_id, grade=1.0)])
        await node.one(harness.operation("u", reinforce=feedback))
        found = await hits(node, "u", back.text, k=100, explain=True)
        [again] = [hit for hit in found if hit.trace.text == back.text]
        assert {"lexical", "late"} <= {each.signal for each in again.signals}
        assert max(found, key=lambda hit: {each.signal: each.share for each in hit.signals}["late"]).trace.text == back.text


changes = st.lists(st.tuples(st.sampled_from(["add", "update", "delete"]), st.integers(0, 9), st.integers(0, 17)), min_size=1, max_size=25)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes)
async def test_after_any_changes_the_ranking_is_that_of_a_partition_built_anew(made: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        config = harness.settings(Path(directory))
        living: set[int] = set()
        erased: set[int] = set()
        async with harness.running(config) as node:
            for number, (what, key, which) in enumerate(made):
                fields = {"session": ["", "a", "b"][key % 3], "speaker": ["Ann", "assistant", "Bo"][which % 3]}
                given_ = turn(key, f"{FILLERS[which]}{'?' if which % 4 == 0 else ''}", **fields)
                given_.said_at.CopyFrom(timestamp(harness.T0_US + 1000 * ((key * 7 + number) % 5)))
                if what == "add" and key not in living | erased:
                    await node.put("u", given_)
                    living.add(key)
                elif what == "update" and key in living:
                    change = harness.operation("u", update={"trace": given_, "fields": ["text", "speaker", "said_at", "embedding"]})
                    await node.one(change)
                elif what == "delete" and key in living:
                    await node.one(harness.operation("u", delete={"trace_id": harness.trace_id(key)}))
                    living.discard(key)
                    erased.add(key)
                await texts(node, "u", "green river")  # the partition is in memory and has to follow
            asked_for = ["green river opens", "what did Ann say of the ladder", "quiet"]
            grown = [await ranking(node, "u", text, 1, k=20) for text in asked_for]
        async with harness.running(config) as node:
            alike([await ranking(node, "u", text, 1, k=20) for text in asked_for], grown)
        assert len(grown[0]) == len(living)
