"""Searches by text on a real suite: every mode, what a score is made of, and that it stays the same over a restart and a move."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ndml.client import Filter, Link, LinkType, NdmlClient, NewMemory, Query
from ndml.errors import FieldInvalid
from ndml.testing import Suite, SuiteOptions

SAID = [
    ("trip", "Ann", "Which museum did you visit in Friedrichshafen?"),
    ("trip", "Bo", "The one with the zeppelins. It rained all weekend."),
    ("trip", "Ann", "I would rather have gone sailing."),
    ("music", "Ann", "My violin needs new strings before the concert."),
    ("music", "Cy", "The shop by the harbour sells them."),
    ("", "Ann", "I am allergic to walnuts."),
    ("", "Bo", "My sister Maja moved to Oslo in spring."),
]
ASKED = ["Which museum has zeppelins?", "Who sells violin strings?", "What did Bo say about Maja?", "walnuts", "of the"]
MODES = ["", "full", "fast", "dense"]
BEGAN = datetime(2025, 3, 3, 9, tzinfo=UTC)
Rankings = dict[tuple[str, str], list[tuple[str, float]]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    options = SuiteOptions(data_dir=tmp_path_factory.mktemp("modes"), gateways=1, memory_nodes=1, consensus_nodes=1)
    with Suite(options) as running, NdmlClient(running.grpc_address, timeout_s=60) as client:
        for i, (session, speaker, text) in enumerate(SAID):
            client.add(text, user="ann", session=session, speaker=speaker, said_at=BEGAN + timedelta(minutes=i))
        yield running


def rankings(client: NdmlClient, user: str) -> Rankings:
    found = {}
    for text in ASKED:
        for mode in MODES:
            found[text, mode] = [(hit.memory.text, hit.score) for hit in client.search(text, user=user, k=20, mode=mode)]
    return found


def alike(found: Rankings, others: Rankings) -> None:
    """The same memories with the same scores: strength and age play no part, the rest is rounding."""
    assert found.keys() == others.keys()
    for asked, hits in found.items():
        assert dict(hits) == pytest.approx(dict(others[asked]), abs=5e-3), asked


def test_each_mode_ranks_by_its_signals_and_the_shares_are_the_score(small: Suite) -> None:
    with NdmlClient(small.grpc_address, timeout_s=60) as client:
        signals: dict[str, set[str]] = {}
        for mode in MODES:
            for text in ASKED:
                hits = list(client.search(text, user="ann", k=20, mode=mode, explain=True))
                assert len(hits) == len(SAID)
                assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
                for hit in hits:
                    assert hit.score == pytest.approx(sum(hit.signals.values()), abs=1e-3)
                signals.setdefault(mode, set()).update(name for hit in hits for name in hit.signals)
        assert {"dense", "lexical", "late", "late_context", "links", "session", "speaker", "asks"} <= signals["full"] == signals[""]
        assert signals["fast"] == {"dense", "lexical"}
        assert signals["dense"] <= {"dense", "salience", "strength"}


def test_a_reply_is_found_by_the_question_that_it_answers(small: Suite) -> None:
    with NdmlClient(small.grpc_address, timeout_s=60) as client:
        best = [hit.memory.text for hit in client.search("Where can I buy violin strings?", user="ann", k=2)]
        assert set(best) == {SAID[3][2], SAID[4][2]}
        [first, *_] = client.search("walnuts", user="ann")
        assert first.memory.text == "I am allergic to walnuts."


def test_scope_and_batch_hold_in_every_mode(small: Suite) -> None:
    with NdmlClient(small.grpc_address, timeout_s=60) as client:
        one = rankings(client, "ann")
        queries = [Query(text, k=20, mode=mode) for text in ASKED for mode in MODES]
        together = client.search_many(queries, user="ann")
        alike({key: [(hit.memory.text, hit.score) for hit in found] for key, found in zip(one, together, strict=True)}, one)
        for mode in MODES:
            within = client.search("zeppelin museum", user="ann", session="music", k=20, mode=mode)
            assert sorted(hit.memory.text for hit in within) == sorted(text for session, _, text in SAID if session == "music")
            assert list(client.search("zeppelin museum", user="nobody", mode=mode)) == []


def test_a_restart_keeps_every_ranking(small: Suite) -> None:
    with NdmlClient(small.grpc_address, timeout_s=60) as client:
        before = rankings(client, "ann")
    for name in [name for name in small.names if name.startswith("memory-node")]:
        small.kill(name)
        small.restart(name)
    small.wait_healthy()
    with NdmlClient(small.grpc_address, timeout_s=60) as client:
        alike(rankings(client, "ann"), before)


def test_an_export_takes_word_vectors_along_and_the_copy_ranks_alike(small: Suite, tmp_path: Path) -> None:
    with NdmlClient(small.grpc_address, timeout_s=60) as client:
        out = list(client.export(user="ann", include_embedding=True))
        assert all(memory.embedding is not None and len(memory.embedding.word_vectors) % 48 == 0 for memory in out)
        words = {memory.text: memory.embedding.word_vectors for memory in out if memory.embedding is not None}
        assert len(words["I am allergic to walnuts."]) >= 2 * 48
        result = client.import_(out, user="moved")
        assert (result.imported, result.failed) == (len(SAID), 0)
        back = {memory.text: memory.embedding for memory in client.export(user="moved", include_embedding=True)}
        assert {text: embedding.word_vectors for text, embedding in back.items() if embedding is not None} == words
        alike(rankings(client, "moved"), rankings(client, "ann"))


def test_a_new_text_is_found_by_its_own_words_and_the_old_ones_are_gone(small: Suite) -> None:
    with NdmlClient(small.grpc_address, timeout_s=60) as client:
        [added] = client.add_many([NewMemory("My parrot is called Pirate.", speaker="Ann")], user="changing")
        client.add("The weather is fine.", user="changing")
        client.update(added.trace_id, user="changing", text="My tortoise is called Turbo.")
        found = client.search("parrot", user="changing", explain=True)
        assert not any("lexical" in hit.signals for hit in found)
        [first, *_] = client.search("Is there a tortoise?", user="changing", k=1)
        assert first.memory.text == "My tortoise is called Turbo."


def test_what_stands_around_a_hit_and_a_budget_reach_the_caller(small: Suite) -> None:
    with NdmlClient(small.grpc_address, user="ann", timeout_s=60) as client:
        [hit] = client.search("zeppelins and rain all weekend", k=1, neighbours=1)
        assert [each.text for each in (*hit.before, *hit.after)] == [SAID[0][2], SAID[2][2]]
        assert not hit.ancestors
        size = len(SAID[5][2].encode())
        found = client.search("walnuts", k=10, max_tokens=size // 4 + 1)
        assert found[0].memory.text == SAID[5][2] and sum(len(each.memory.text.encode()) for each in found) <= size + 4
        plain = [each.memory.text for each in client.search("walnuts", k=7)]
        unlike = [each.memory.text for each in client.search("walnuts", k=7, diversity=0.9)]
        assert plain != unlike and plain[0] == unlike[0] and set(plain) == set(unlike)
        many = client.search_many(
            [Query("walnuts", k=1, neighbours=1), Query("zeppelins and rain", k=1, neighbours=1), Query("violin", k=1)]
        )
        assert [len(each[0].before) + len(each[0].after) for each in many] == [0, 2, 0]
        with pytest.raises(FieldInvalid) as refused:
            client.search("walnuts", neighbours=6)
        assert refused.value.violations[0].field == "neighbours"


def test_why_and_the_episode_reach_the_caller(small: Suite) -> None:
    with NdmlClient(small.grpc_address, user="why", timeout_s=60) as client:
        failed, full = (client.add(text, session="s") for text in ("The nightly backup failed.", "The disk was full."))
        client.add("We moved the logs.", session="s", links=[Link(LinkType.CAUSED_BY, failed.trace_id, evidence="as it failed")])
        client.add("The logs had grown.", session="s", links=[Link(LinkType.CAUSES, full.trace_id), Link(LinkType.ABOUT, failed.trace_id)])
        client.add("Full disks stop backups.", links=[Link(LinkType.CAUSES, failed.trace_id), Link(LinkType.CAUSED_BY, full.trace_id)])
        [hit] = client.search("We moved the logs.", k=1, mode="dense", ancestors=5, episode=True)
        assert [each.text for each in hit.ancestors] == [
            "The logs had grown.",
            "The disk was full.",
            "Full disks stop backups.",
            "The nightly backup failed.",
        ]
        [link] = [each for each in hit.memory.links if each.evidence]
        assert (link.type, link.evidence) == (LinkType.CAUSED_BY, "as it failed")
        assert hit.episode is not None and (hit.episode.episode_id, hit.episode.turns) == (failed.trace_id, 4)
        with pytest.raises(FieldInvalid, match="CAUSED_BY"):
            client.add("Everything at once.", links=[Link(LinkType.DERIVED_FROM, failed.trace_id)])


def test_a_profile_is_the_user_s_own_and_ends_with_its_traces(small: Suite) -> None:
    with NdmlClient(small.grpc_address, user="profiled", timeout_s=60) as client:
        old = client.add("I live in Berlin.", said_at=BEGAN)
        new = client.add("I moved to Rome.", said_at=BEGAN + timedelta(days=9))
        client.add("I live in Lagos.", user="somebody else")
        [home] = client.profile().properties
        assert (home.kind, home.memory.text, home.since, home.replaced) == (
            "residence", "I moved to Rome.", BEGAN + timedelta(days=9), (old.trace_id,),
        )  # fmt: skip
        [then] = client.profile(filter=Filter(said_until=BEGAN + timedelta(days=2))).properties
        assert (then.memory.text, then.replaced) == ("I live in Berlin.", ())
        client.delete(new.trace_id)
        assert [each.memory.text for each in client.profile().properties] == ["I live in Berlin."]
        assert client.profile(user="nobody").properties == ()


@pytest.mark.parametrize(
    ("old", "new", "asked"),
    [
        ("My manager is Astrid.", "I report to Ivo.", "Who is my boss?"),
        ("Our kitchen may cost 15,500 euros.", "The kitchen budget is 12,000 euros now.", "How much may the kitchen cost?"),
        ("I see Dr Weiss for my teeth.", "My new dentist is called Dr Lund.", "Which dentist do I go to?"),
    ],
)
def test_the_newer_of_two_in_other_words_comes_first_and_the_older_stays(small: Suite, old: str, new: str, asked: str) -> None:
    with NdmlClient(small.grpc_address, user=f"renewed {asked}", timeout_s=60) as client:
        client.add(new, said_at=BEGAN + timedelta(days=9))
        client.add(old, said_at=BEGAN)
        for day in range(3):
            client.add("The weather was fine all day.", said_at=BEGAN + timedelta(days=day))
        assert [hit.memory.text for hit in client.search(asked, k=2)] == [new, old]


def test_who_asks_for_their_own_asks_for_nobody_else_s_but_what_is_told_of_theirs_counts(small: Suite) -> None:
    said = ["Dr Lund looks after my teeth.", "Greta from work has Dr Ferrari as a dentist.", "My dentist moved house.", "It rained."]
    with NdmlClient(small.grpc_address, user="whose dentist", timeout_s=60) as client:
        for text in said:
            client.add(text, said_at=BEGAN)
        hits = client.search("Who is my dentist?", k=4, explain=True)
        lifted, lowered = ([h.memory.text for h in hits if h.signals.get(name)] for name in ("slot", "another"))
        assert (lifted, lowered) == ([said[0]], [said[1]]) and hits[0].memory.text == said[0]


@pytest.mark.parametrize("mode", ["full", "fast", "dense"])
@pytest.mark.parametrize(
    "text",
    [
        "of the and to",
        "?!",
        " \n\t ",
        "🎻🎻 🌊",
        "Скрипка и струны",
        "小提琴需要新的琴弦",
        "كمان",
        "ไวโอลิน",
        "what was on 31 February 2025",
        "what was on 99/99/9999",
        "on the 30th of Febtember, year -5",
        "where do I " + "live " * 30,
        "violin " * 9_000,
        "\u202e\u200b\u0301",
        "a\x00b",
    ],
)
def test_any_query_has_an_answer(small: Suite, text: str, mode: str) -> None:
    with NdmlClient(small.grpc_address, user="ann", timeout_s=60) as client:
        found = client.search(text, k=3, mode=mode, explain=True, neighbours=1, ancestors=1, diversity=0.5, max_tokens=1000)
        assert len(found) == 3
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        for hit in found:
            assert hit.score == pytest.approx(sum(hit.signals.values()), abs=1e-3)


@pytest.mark.parametrize("text", ["", "x" * 100_000])
def test_no_query_and_one_too_long_are_refused_by_name(small: Suite, text: str) -> None:
    with NdmlClient(small.grpc_address, user="ann") as client, pytest.raises(FieldInvalid) as refused:
        client.search(text)
    assert refused.value.violations[0].field == "text"


def test_one_memory_is_found_by_any_query_and_none_by_none(small: Suite) -> None:
    with NdmlClient(small.grpc_address, user="hermit", timeout_s=60) as client:
        assert len(client.search("anything")) == 0
        client.add("My lamp is broken.")
        for text in ("lamp", "of the", "zeppelins", "小提琴"):
            for mode in MODES:
                assert [hit.memory.text for hit in client.search(text, mode=mode, diversity=0.5)] == ["My lamp is broken."]


def test_what_holds_at_a_time_is_asked_by_its_interval(small: Suite) -> None:
    with NdmlClient(small.grpc_address, user="mover", timeout_s=60) as client:
        may, june, july = (datetime(2025, month, 1, tzinfo=UTC) for month in (5, 6, 7))
        told = client.add("I lived in Porto.", said_at=july, valid_from=may, valid_until=june)
        assert [hit.memory.trace_id for hit in client.search("Porto", filter=Filter(valid_at=may))] == [told.trace_id]
        assert not len(client.search("Porto", filter=Filter(valid_at=june)))
        assert client.get(told.trace_id).valid_until == june
        assert client.update(told.trace_id, valid_until="never").valid_until is None
        assert len(list(client.list(filter=Filter(valid_at=july)))) == 1
        exported = list(client.export())
        assert exported[0].valid_from == may
        for wrong in ({"valid_from": june, "valid_until": may}, {"valid_from": june, "valid_until": june}):
            with pytest.raises(FieldInvalid) as refused:
                client.add("never", **wrong)
            assert refused.value.violations[0].field == "memory.valid_until"
