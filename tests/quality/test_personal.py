"""The bench of personal memory is what it says: users differ, questions come later, marks are right; and a few users are remembered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ndml.client import AsyncNdmlClient
from ndml.testing import Suite
from ndml.tiny.grammar import Subject
from ndml.tiny.relations import BY_NAME
from ndml.tiny.scenes import Fact
from ndml.tiny.smalltalk import UNKNOWN
from ndml.tiny.words import is_test
from tests.perf.tables import as_json, as_markdown
from tests.quality.personal import page
from tests.quality.personal.dialogues import Message, Question, Told, World, plain, says
from tests.quality.personal.scoring import STAGES, Foreign, Outcome, Read, Share, Traces, Verdict, losses, lost_at, right, verdict
from tests.quality.personal.stream import Stream, Turn, options

HOME = Fact(BY_NAME["home"], Subject(), "", "Zanzibar")
MOVED = Told(HOME, "I moved to Zanzibar.", message=7, session=1, held_out=False, old=("Oslo", "Rome"), marked=True)
WHERE = Question("corrected", HOME, held_out=False, told=MOVED)
NEVER = Question("unknown", Fact(BY_NAME["work"], Subject(), "", ""), held_out=False)


def asked(question: Question, answer: str, read: tuple[Read, ...] = (), traces: Traces | None = None, number: int = 9) -> Outcome:
    return Outcome(Message(0, 2, number, "Where do I live?", (), question), {"memory": answer, "none": UNKNOWN}, read, traces)


@pytest.fixture(scope="module")
def dialogues() -> list[list[Message]]:
    return World(5, users=6).dialogues(60)


def test_the_same_seed_gives_the_same_words(dialogues: list[list[Message]]) -> None:
    assert World(5, users=6).dialogues(60) == dialogues
    assert World(6, users=6).dialogues(60) != dialogues
    assert [len(messages) for messages in dialogues] == [60] * 6


def test_values_belong_to_one_user_and_one_telling(dialogues: list[list[Message]]) -> None:
    told = [t for messages in dialogues for m in messages for t in m.told]
    values = [t.fact.value for t in told]
    assert len(values) > 100
    assert not any(says(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j)
    assert all(says(t.text, t.fact.value) for t in told)
    made_up = [value for value in values if value.isalpha() and value[0].isupper()]
    assert made_up and all(is_test(value) for value in made_up)


def test_questions_ask_for_what_holds_and_was_told_in_an_earlier_session(dialogues: list[list[Message]]) -> None:
    kinds = dict.fromkeys(("fact", "corrected", "unknown", "another's"), 0)
    for messages in dialogues:
        known: dict[object, Told] = {}
        for message in messages:
            known |= {told.fact.key: told for told in message.told}
            if message.question is None:
                continue
            question = message.question
            kinds[question.kind] += 1
            if question.told is None:
                assert question.fact.key not in known
                continue
            assert known[question.fact.key] == question.told
            assert question.told.session < message.session
            assert not says(message.text, question.fact.value)
            assert bool(question.told.old) == (question.kind == "corrected")
    assert min(kinds.values()) >= 5


def test_what_was_corrected_is_asked_soon_and_its_old_values_are_known(dialogues: list[list[Message]]) -> None:
    corrected = [t for messages in dialogues for m in messages for t in m.told if t.old]
    assert {t.marked for t in corrected} == {True, False}
    assert all(t.fact.value not in t.old and not any(says(t.text, old) for old in t.old) for t in corrected)
    asked_for = [m.question.told for messages in dialogues for m in messages if m.question and m.question.kind == "corrected"]
    assert len(asked_for) > 0.7 * len(corrected)


@pytest.mark.parametrize(
    ("question", "answer", "mark"),
    [
        (WHERE, "You live in Zanzibar. [3]", "right"),
        (WHERE, "You live in zanzibar.", "right"),
        (WHERE, "You live in Zanzibars.", "wrong"),
        (WHERE, "You live in Oslo. [1]", "out of date"),
        (WHERE, "You lived in Rome and live in Zanzibar.", "out of date"),
        (WHERE, UNKNOWN, "does not know"),
        (WHERE, "", "wrong"),
        (NEVER, UNKNOWN, "right"),
        (NEVER, "You work at Oslo.", "wrong"),
    ],
)
def test_marks(question: Question, answer: str, mark: Verdict) -> None:
    assert verdict(question, answer) == mark


def test_a_right_answer_cites_only_what_says_it() -> None:
    says_so, says_not = Read(1, "I moved to Zanzibar.", mentioned=True), Read(2, "I live in Oslo.", mentioned=True)
    assert asked(WHERE, "Zanzibar [1]", (says_so,)).cited
    assert not asked(WHERE, "Zanzibar [1, 2]", (says_so, says_not)).cited
    assert not asked(WHERE, "Zanzibar", (Read(1, "I moved to Zanzibar."),)).cited


@pytest.mark.parametrize(
    ("stage", "said", "read", "stored", "candidates", "answer"),
    [
        (0, "Zanzibar?", (), ("I like tea.",), (), UNKNOWN),
        (1, "I moved to Zanzibar.", (), ("I moved to Oslo.",), (), UNKNOWN),
        (2, "I moved to Zanzibar.", ("I like tea.",), ("I moved to Zanzibar.",), ("I like tea.",), UNKNOWN),
        (3, "I moved to Zanzibar.", ("I like tea.",), ("I moved to Zanzibar.",), ("I moved to Zanzibar.", "I like tea."), UNKNOWN),
        (4, "I moved to Zanzibar.", tuple("abcde"), ("I moved to Zanzibar.",), (*"abcde", "I moved to Zanzibar."), UNKNOWN),
        (5, "I moved to Zanzibar.", ("I moved to Zanzibar.",), ("I moved to Zanzibar.",), ("I moved to Zanzibar.",), UNKNOWN),
        (6, "I moved to Zanzibar.", ("I moved to Zanzibar.",), ("I moved to Zanzibar.",), ("I moved to Zanzibar.",), "You live in Oslo."),
        (7, "I moved to Zanzibar.", ("I moved to Zanzibar.",), ("I moved to Zanzibar.",), ("I moved to Zanzibar.",), "You live in Zan."),
    ],
)
def test_a_loss_is_put_down_to_the_first_stage_that_lost_it(
    stage: int, said: str, read: tuple[str, ...], stored: tuple[str, ...], candidates: tuple[str, ...], answer: str
) -> None:
    told = Told(HOME, said, 7, 1, held_out=False, old=("Oslo",))
    outcome = asked(Question("corrected", HOME, False, told), answer, tuple(Read(n, t) for n, t in enumerate(read, 1)))
    with pytest.raises(ValueError, match="looked up"):
        lost_at(outcome)
    outcome.traces = Traces(stored, candidates)
    assert lost_at(outcome) == STAGES[stage]
    assert losses([outcome, asked(WHERE, "Zanzibar"), asked(NEVER, "Oslo")]) == {name: int(name == STAGES[stage]) for name in STAGES}


def test_a_leak_is_anothers_value_that_the_user_has_not_said(dialogues: list[list[Message]]) -> None:
    foreign = Foreign(dialogues)
    ours, theirs = (dialogues[user][0].told[0].fact.value for user in (0, 1))
    assert foreign.found(0, [f"You are called {theirs}. [2]"]) == (theirs,)
    assert foreign.found(0, [f"Your name is {ours}.", plain(theirs)[:-1]]) == ()
    both = [[*dialogues[0], Message(0, 9, 60, f"I met {theirs}.")], *dialogues[1:]]
    assert Foreign(both).found(0, [f"You met {theirs}."]) == ()


def test_intervals_are_wilsons() -> None:
    low, high = Share(8, 10).interval
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert Share(20, 20).interval[0] < 0.9 and Share(20, 20).interval[1] == 1.0
    assert (Share(0, 0).interval, str(Share(0, 0))) == ((0.0, 1.0), "-")
    assert str(Share(1, 2)).startswith("50.0 % [")


def test_a_missed_target_is_told_and_errors_are_listed(tmp_path: Path) -> None:
    read = Read(1, "I moved to Zanzibar.", "2026-01-01")
    stale = asked(WHERE, "You live in Oslo. [1]", (read,), Traces((read.text,), (read.text,)))
    found = [*(asked(WHERE, "You live in Zanzibar. [1]", (read,), number=n) for n in range(18)), stale, asked(NEVER, UNKNOWN)]
    made = page.part(found, ["Ana"])
    assert [row.met for row in made.targets] == [True, False, False, False, False, True]
    text = as_markdown([made], page.ABOVE.format(users=1, messages=20, chats=20, seconds=1.0))
    assert "94.7 %" in text and "**no**" in text and "img/personal.png" in text
    listed = page.errors(found)
    assert (
        "model: answers with a value that was replaced; home: 1" in listed and "You live in Oslo. [1]" in listed and "[1] I moved" in listed
    )
    points = page.curve(found, 20)
    assert sum(p["of"] for p in points if p["way"] == "memory") == 19 and points[0]["hits"] <= points[0]["of"]
    for name in ("a.png", "b.png"):
        page.draw(points, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.integration
async def test_a_few_users_are_remembered_and_kept_apart(tmp_path: Path) -> None:
    dialogues = World(3, users=4).dialogues(20)
    with Suite(options(tmp_path)) as suite:
        async with AsyncNdmlClient(suite.grpc_address) as client:
            stream = Stream(client, dialogues, ("memory", "none", "notes"))
            outcomes = await stream.run()
            again = await asyncio.gather(*(stream._without("notes", o.message, [Turn(0, "I live in Oslo.", "")], []) for o in outcomes[:1]))
    questions = sum(m.question is not None for messages in dialogues for m in messages)
    assert len(outcomes) == questions and stream.chats == 80 + 2 * questions + 1
    assert again[0].citations == () and stream.leaks == []
    told = [o for o in outcomes if o.question.told is not None]
    assert right(told).interval[0] > right(told, "none").interval[1]
    assert right(told).value >= 0.6
    assert sum(losses(told).values()) == sum(o.verdict() != "right" for o in told)
    assert json.loads(json.dumps(as_json([page.part(outcomes, stream.leaks)], {})))["targets"][4]["met"]
