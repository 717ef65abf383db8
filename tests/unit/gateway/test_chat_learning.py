"""Learning while serving: what becomes a memory, when, what happens where writing fails, and that nothing is lost without a word."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import (
    CapacityReached,
    DeadlinePassed,
    FieldInvalid,
    FusionUnsupported,
    InternalFault,
    LearningBacklog,
    ModelUnavailable,
    ModelUnknown,
    NdmlError,
    Overloaded,
    OwnerUnavailable,
    RequestIdReused,
    ScoresUnsupported,
)
from ndml.internal.v1 import llm_pb2
from ndml.language import Statement, packed
from ndml.runtime import metrics
from ndml.v1 import chat_pb2, types_pb2
from services.gateway.extraction import LlmExtractor, RulesExtractor
from services.gateway.learning import new_words
from services.gateway.outbox import Outbox
from services.gateway.scopes import Owner
from services.gateway.settings import LearningSettings
from services.gateway.surprise import Surprise
from services.gateway.tokens import read_consistency_token
from tests.unit.gateway.talking import IDS, Memory, Model, Scorer, Talk, asking, call

WAIT, OFF, BACKGROUND = chat_pb2.LEARNING_WAIT, chat_pb2.LEARNING_OFF, chat_pb2.LEARNING_BACKGROUND
HOME = "I live in Oslo."


def counted(outcome: str) -> float:
    return float(metrics.LEARNED.labels(outcome)._value.get())


class Held(Memory):
    """Writes wait until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.writing = asyncio.Event(), asyncio.Event()

    async def execute(self, owner: Owner, operation: Any, *args: Any, **known: Any) -> Any:
        if operation.WhichOneof("action") == "put":
            self.writing.set()
            await self.go.wait()
        return await super().execute(owner, operation, *args, **known)


# What becomes a memory


async def test_each_statement_of_the_turn_is_one_trace_with_what_is_known_of_it() -> None:
    talk = Talk()
    said = "Hello! I live in Oslo with Ann Lee. What time is it? On 2026-03-05 I fly to Rome."
    before = counted("ignored"), counted("written")
    await talk.say("My old words.", "Noted.", said)
    assert await talk.learned() == ["I live in Oslo with Ann Lee.", "On 2026-03-05 I fly to Rome."]
    home, trip = talk.memory.stored.values()
    assert talk.memory.puts[0].deduplicate
    assert (home.speaker, home.scope.session, home.scope.tenant, home.provenance.source) == ("user", "s1", "t", "chat")
    assert dict(home.metadata) == {"entities": "Oslo; Ann Lee"}
    assert dict(trip.metadata) == {"entities": "Rome", "dates": "2026-03-05"}
    assert 0 < home.salience < 1 and trip.said_at.ToMicroseconds() - home.said_at.ToMicroseconds() == 1
    assert (counted("ignored"), counted("written")) == (before[0] + 2, before[1] + 2)


def test_new_are_the_users_words_since_the_model_spoke() -> None:
    tool = chat_pb2.ChatMessage(role=chat_pb2.ROLE_TOOL, content="42")
    twice = [*asking("a", "b").messages, *asking("c").messages, tool, *asking("d").messages]
    assert new_words(twice) == ("c", "d")
    assert new_words(asking("a", "b").messages) == ()


@pytest.mark.parametrize(("learning", "enabled", "kept"), [(0, True, 1), (0, False, 0), (BACKGROUND, False, 1), (OFF, True, 0)])
async def test_the_request_says_whether_else_the_setting_does(learning: int, enabled: bool, kept: int) -> None:
    talk = Talk(enabled=enabled)
    await talk.say(HOME, learning=learning)
    assert len(await talk.learned()) == kept


async def test_with_nothing_to_learn_nothing_is_written_and_nobody_needs_to_be_named() -> None:
    talk = Talk()
    await talk.say("What is the capital of Peru?", learning=WAIT)
    await talk.say("Hello!", learning=OFF, recall_k=0, scope=types_pb2.Scope())
    assert await talk.learned() == [] and not talk.scorer.requests


async def test_waiting_names_the_traces_and_a_token_that_sees_them() -> None:
    talk = Talk()
    talk.memory.duplicates = {"My cat is Miso.": IDS[5]}
    end = (await talk.say("I live in Oslo. My cat is Miso.", learning=WAIT))[-1]
    assert list(end.learned_trace_ids) == [*talk.memory.stored, IDS[5]]
    assert read_consistency_token(end.consistency_token, Owner("t", "ann")) == {7: 3}
    assert not (await talk.say(HOME))[-1].learned_trace_ids


async def test_answers_are_kept_only_where_that_is_set_and_say_whose_they_are() -> None:
    kept = Talk(model=Model("You live in ", "Oslo, Ann."), answers=True)
    await kept.say(HOME)
    assert await kept.learned() == [HOME, "You live in Oslo, Ann."]
    answer = list(kept.memory.stored.values())[1]
    assert (answer.speaker, answer.provenance.source) == ("assistant", "answer")
    cut = Talk(model=Model("You live in é"), answers=True, answer_bytes=13)
    await cut.say("Where?")
    assert await cut.learned() == ["You live in"]


async def test_a_long_text_is_kept_whole_in_as_many_traces_as_are_allowed() -> None:
    talk = Talk(most_traces=3)
    said = [f"I own book number {i}." for i in range(10)]
    await talk.say(" ".join(said))
    texts = await talk.learned()
    assert len(texts) == 3 and " ".join(texts) == " ".join(said)


async def test_many_messages_are_packed_as_one_is_and_an_answer_has_its_part() -> None:
    said = [f"I own book number {i}." for i in range(10)]
    for answers, count in ((False, 4), (True, 2)):
        talk = Talk(model=Model("You own ten books."), most_traces=4, answers=answers)
        messages = [message for text in said for message in asking(text).messages]
        [_ async for _ in talk.chat.chat(chat_pb2.ChatRequest(scope=asking("").scope, messages=messages), call())]
        await talk.learned()
        texts = [trace.text for trace in talk.memory.stored.values() if trace.speaker == "user"]
        assert len(texts) == count and " ".join(texts) == " ".join(said)
        assert len(talk.memory.stored) == count + answers


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(1, 20))
def test_packing_keeps_every_statement_in_order_and_evenly(count: int, most: int) -> None:
    given_ = [Statement(f"s{i}", (f"e{i}",), (), 0.1) for i in range(count)]
    made = packed(given_, most)
    assert len(made) == min(count, most)
    assert " ".join(one.text for one in made).split() == [one.text for one in given_]
    sizes = [len(one.entities) for one in made]
    assert not sizes or max(sizes) - min(sizes) <= 1


# Surprise


async def test_surprise_raises_salience_and_is_asked_in_one_batch() -> None:
    plain, astonished = Talk(scorer=Scorer(0.0)), Talk(scorer=Scorer(1e9))
    for talk in (plain, astonished):
        await talk.say("I live in Oslo. My cat is Miso.")
        await talk.learned()
        assert [list(request.texts) for request in talk.scorer.requests] == [talk.memory.texts]
    for one, other in zip(plain.memory.stored.values(), astonished.memory.stored.values(), strict=True):
        assert other.salience == pytest.approx(1 - (1 - one.salience) * 0.8, abs=1e-5)


@pytest.mark.parametrize("error", [ScoresUnsupported("no"), ModelUnavailable("gone")])
async def test_without_scores_rules_decide_and_a_model_that_cannot_is_not_asked_again(error: NdmlError) -> None:
    talk = Talk(scorer=Scorer(error=error), backoff_s=60.0)
    first = Talk(surprise_weight=0.0)
    for each in (talk, first):
        await each.say(HOME, learning=WAIT)
        await each.say("My cat is Miso.", learning=WAIT)
    assert len(talk.scorer.requests) == 1 and not first.scorer.requests
    assert [t.salience for t in talk.memory.stored.values()] == [t.salience for t in first.memory.stored.values()]


async def test_who_waits_gets_what_the_rules_find_though_the_model_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: Any) -> Any:
        await asyncio.Event().wait()

    options = LearningSettings(extractor="llm", wait_s=2.0)
    talk = Talk(extractor=LlmExtractor(Model(silent), RulesExtractor(), options), wait_s=2.0)
    monkeypatch.setattr(talk.scorer, "score", silent)
    assert list((await talk.say(HOME, learning=WAIT))[-1].learned_trace_ids) == list(talk.memory.stored)
    assert talk.memory.texts == [HOME]
    await talk.surprise.stop()


async def test_scores_that_nobody_waits_for_any_more_are_not_asked_for() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(Scorer):
        async def score(self, request: llm_pb2.ScoreRequest, timeout_s: float) -> llm_pb2.ScoreResponse:
            asked.set()
            await go.wait()
            return await super().score(request, timeout_s)

    scorer = Slow()
    surprise = Surprise(scorer, LearningSettings())
    first = asyncio.create_task(surprise.of(["one"], call()))
    await asked.wait()
    left = asyncio.create_task(surprise.of(["two"], call()))
    stays = asyncio.create_task(surprise.of(["three"], call()))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await first == await stays == [0.0]
    assert [list(request.texts) for request in scorer.requests] == [["one"], ["three"]]


# Where writing fails


async def test_a_write_is_tried_again_and_is_the_same_write() -> None:
    talk = Talk()
    talk.memory.write_failures = [OwnerUnavailable("gone"), OwnerUnavailable("gone")]
    await talk.say(HOME)
    assert await talk.learned() == [HOME]
    once = Talk()
    once.memory.outcome_error = {"My cat is Miso.": OwnerUnavailable("half of it")}
    await once.say("I live in Oslo. My cat is Miso.")
    while len(once.memory.puts) < 2:
        await asyncio.sleep(0.001)
    once.memory.outcome_error.clear()
    assert sorted(await once.learned()) == sorted([HOME, "My cat is Miso."])
    first, *again = [list(put.traces) for put in once.memory.puts]
    assert len(first) == 2 and all(each == first[1:] for each in again), "what is done is not written again"


async def test_what_is_known_is_said_once_however_often_the_rest_is_tried() -> None:
    talk = Talk()
    talk.memory.duplicates = {HOME: IDS[0]}
    talk.memory.outcome_error = {"My cat is Miso.": OwnerUnavailable("half of it")}
    before = counted("reinforced"), counted("written")
    telling = asyncio.create_task(talk.say("I live in Oslo. My cat is Miso.", learning=WAIT))
    while len(talk.memory.puts) < 3:
        await asyncio.sleep(0.001)
    talk.memory.outcome_error.clear()
    assert list((await telling)[-1].learned_trace_ids) == [IDS[0], *talk.memory.stored]
    assert [trace.text for put in talk.memory.puts for trace in put.traces].count(HOME) == 1
    assert (counted("reinforced"), counted("written")) == (before[0] + 1, before[1] + 1)


async def test_what_was_done_is_not_counted_as_lost() -> None:
    talk = Talk(retry_for_s=0.001)
    talk.memory.outcome_error = {"My cat is Miso.": OwnerUnavailable("half of it")}
    before = counted("failed"), counted("written")
    await talk.say("I live in Oslo. My cat is Miso.")
    await talk.learned()
    assert (counted("failed"), counted("written")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize(("error", "limits"), [(CapacityReached("full"), {}), (OwnerUnavailable("gone"), {"retry_for_s": 0.001})])
async def test_what_cannot_be_written_is_given_up_counted_and_its_room_is_free_again(error: NdmlError, limits: dict[str, Any]) -> None:
    talk = Talk(max_entries=1, **limits)
    talk.memory.write_failures = [error]
    before = counted("failed")
    await talk.say(HOME)
    while counted("failed") == before:
        await asyncio.sleep(0.001)
    assert counted("failed") == before + 1
    await talk.say(HOME)
    assert await talk.learned() == [HOME]


async def test_one_statement_that_is_refused_does_not_stop_the_others() -> None:
    talk = Talk()
    talk.memory.outcome_error = {HOME: FieldInvalid("no", field="text")}
    before = counted("failed"), counted("written")
    end = (await talk.say("I live in Oslo. My cat is Miso.", learning=WAIT))[-1]
    assert (counted("failed"), counted("written")) == (before[0] + 1, before[1] + 1)
    assert list(end.learned_trace_ids) == list(talk.memory.stored)


async def test_waiting_that_fails_is_said_and_tried_further_in_the_background() -> None:
    talk = Talk(wait_s=0.2, backoff_s=0.01)
    talk.memory.write_failures = [OwnerUnavailable("gone")] * 1000
    with pytest.raises((OwnerUnavailable, DeadlinePassed)):
        await talk.say(HOME, learning=WAIT)
    talk.memory.write_failures.clear()
    assert await talk.learned() == [HOME]
    late = Talk()
    with pytest.raises(DeadlinePassed):
        await late.say(HOME, learning=WAIT, recall_k=0, known=call(deadline=0.0))
    assert await late.learned() == [HOME]


# Room


async def test_a_full_outbox_refuses_a_chat_before_it_begins_and_only_one_that_is_to_be_learned() -> None:
    talk = Talk(Held(), max_entries=2)
    assert isinstance(talk.memory, Held)
    await talk.say(HOME)
    await talk.memory.writing.wait()
    under_way = talk.begin("I like tea.")
    await anext(under_way)
    with pytest.raises(LearningBacklog) as refused:
        await talk.say("I like rain.")
    assert refused.value.retry_after_s and len(talk.model.requests) == 2
    assert (await talk.say("I like rain.", learning=OFF))[-1].finish_reason
    talk.memory.go.set()
    await under_way.aclose()
    assert set(await talk.learned()) == {HOME, "I like tea."}


async def test_bytes_are_a_bound_too() -> None:
    talk = Talk(Held(), max_bytes=1 << 16)
    assert isinstance(talk.memory, Held)
    await talk.say("I said: " + "x" * 60_000)
    with pytest.raises(LearningBacklog, match="bytes"):
        await talk.say("I said: " + "y" * 10_000)
    talk.memory.go.set()
    await talk.learned()


@pytest.mark.parametrize("refusal", [ModelUnknown("x"), FieldInvalid("x", field="messages"), Overloaded("x"), FusionUnsupported("x")])
async def test_a_chat_that_is_refused_has_learned_nothing_and_holds_no_room(refusal: NdmlError) -> None:
    talk = Talk(model=Model(refusal), max_entries=1)
    for _ in range(3):
        with pytest.raises(type(refusal)):
            await talk.say(HOME)
    with pytest.raises(FieldInvalid):
        await talk.say(HOME, scope=types_pb2.Scope())
    assert await talk.learned() == []


@pytest.mark.parametrize("failure", [ModelUnavailable("gone"), DeadlinePassed("slow"), InternalFault("bug")])
async def test_what_the_user_said_is_learned_though_the_model_fails_before_its_first_token(failure: NdmlError) -> None:
    talk = Talk(model=Model(failure))
    for _ in range(2):
        with pytest.raises(type(failure)):
            await talk.say(HOME, request_id="tried again by the client")
    assert await talk.learned() == [HOME]


@pytest.mark.parametrize("parts", [("one", "two"), ("one", ModelUnavailable("gone"))])
async def test_what_the_user_said_is_learned_though_the_answer_never_ends(parts: tuple[Any, ...]) -> None:
    talk = Talk(model=Model(*parts))
    stream = talk.begin(HOME)
    await anext(stream)
    if isinstance(parts[-1], str):
        await stream.aclose()
    else:
        with pytest.raises(ModelUnavailable):
            await anext(stream)
    assert await talk.learned() == [HOME]


async def test_a_caller_who_leaves_before_the_first_token_has_still_said_it() -> None:
    waits = asyncio.Event()
    talk = Talk(model=Model(waits.wait))
    task = asyncio.create_task(talk.say(HOME))
    while not talk.model.requests:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await talk.learned() == [HOME]


async def test_stopping_writes_what_waits_and_says_what_it_could_not() -> None:
    talk = Talk(backoff_s=30.0, max_backoff_s=60.0)
    talk.memory.write_failures = [OwnerUnavailable("gone")]
    await talk.say(HOME)
    while talk.memory.write_failures:
        await asyncio.sleep(0.001)
    assert await talk.learned() == [HOME], "a pause does not outlast a stop"
    stuck = Talk(Held(), drain_s=0.02, workers=1)
    for text in (HOME, "I like tea."):
        await stuck.say(text)
    before = counted("failed")
    assert await stuck.learned() == [] and counted("failed") == before + 2


async def test_what_fails_until_the_gateway_has_stopped_is_counted_once_and_never_tried_again() -> None:
    talk = Talk(backoff_s=0.1, max_backoff_s=0.1, drain_s=0.05, workers=1)
    talk.memory.write_failures = [OwnerUnavailable("gone")] * 10_000
    before = counted("failed")
    for text in (HOME, "I like tea.", "I like rain."):
        await talk.say(text)
    assert await talk.learned() == [] and counted("failed") == before + 3
    tried = len(talk.memory.write_failures)
    await asyncio.sleep(0.15)
    assert len(talk.memory.write_failures) == tried and len(asyncio.all_tasks()) == 1


async def test_a_stop_waits_for_a_turn_that_is_reserved_and_says_what_comes_after_it() -> None:
    talk, late = Talk(), Talk(drain_s=0.01)
    before = counted("failed")
    for each in (talk, late):
        under_way = each.begin(HOME)
        await anext(under_way)
        stopping = asyncio.create_task(each.learned())
        if each is late:
            await stopping
        await asyncio.sleep(0)
        await under_way.aclose()
        assert await stopping == ([HOME] if each is talk else [])
    assert counted("failed") == before + 1


async def test_a_worker_that_is_cancelled_before_its_first_step_has_said_what_it_lost() -> None:
    lost: list[str] = []

    async def work(item: str) -> None:
        raise AssertionError("it never begins")

    outbox = Outbox(work, lambda item, error: lost.append(item), LearningSettings())
    outbox.reserve(1)
    outbox.put("said", 1)
    (worker,) = asyncio.all_tasks() - {asyncio.current_task()}
    worker.cancel()
    await outbox.stop()
    assert lost == ["said"]


async def test_what_fails_while_the_gateway_stops_is_tried_again_within_its_time() -> None:
    talk = Talk(Held(), backoff_s=30.0, max_backoff_s=60.0)
    assert isinstance(talk.memory, Held)
    talk.memory.write_failures = [OwnerUnavailable("gone")] * 2
    await talk.say(HOME)
    await talk.memory.writing.wait()
    stopping = asyncio.create_task(talk.learned())
    await asyncio.sleep(0)
    talk.memory.go.set()
    assert await stopping == [HOME]


async def test_a_fault_of_ours_in_learning_is_counted_and_does_not_stop_the_next_turn() -> None:
    class Faulty(RulesExtractor):
        async def extract(self, text: str, *args: Any) -> Any:
            if text == HOME:
                raise ZeroDivisionError
            return await super().extract(text, *args)

    talk = Talk(extractor=Faulty())
    before = counted("failed")
    await talk.say(HOME)
    await talk.say("I like tea.")
    assert await talk.learned() == ["I like tea."] and counted("failed") == before + 1


# Repeats


async def test_a_repeated_request_learns_once_and_an_id_with_other_words_learns_those() -> None:
    talk = Talk()
    ids = [list((await talk.say(text, learning=WAIT, request_id="r"))[-1].learned_trace_ids) for text in (HOME, HOME, "I like tea.")]
    assert ids[0] == ids[1] != ids[2] and talk.memory.texts == [HOME, "I like tea."]
    free = [list((await talk.say(HOME, learning=WAIT))[-1].learned_trace_ids) for _ in range(2)]
    assert free[0] != free[1]


async def test_a_repeat_that_reads_otherwise_is_the_first_one_still() -> None:
    talk = Talk()
    talk.memory.outcome_error = {HOME: RequestIdReused("other said_at")}
    end = (await talk.say(HOME, learning=WAIT, request_id="r"))[-1]
    assert len(end.learned_trace_ids) == 1


async def test_a_fault_is_not_a_passing_trouble() -> None:
    talk = Talk()
    talk.memory.write_failures = [InternalFault("bug")]
    before = counted("failed")
    await talk.say(HOME)
    assert await talk.learned() == [] and counted("failed") == before + 1
