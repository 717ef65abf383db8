"""Dialogues through a running suite: every message is a chat that learns; questions are asked without memory and with all of it, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ndml import tiny
from ndml.client import AsyncNdmlClient, ChatMessage, Sampling
from ndml.client._streams import AsyncChatStream
from ndml.fusion.prompt import PromptLimits, write_block
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.testing import SuiteOptions
from services.gateway.settings import ChatSettings
from tests.quality.personal.dialogues import Message
from tests.quality.personal.scoring import WAYS, Foreign, Outcome, Read, Traces, Way

CANDIDATES = ChatSettings().candidates
"""Traces that a chat looks at (chat.candidates)."""
_AT_ONCE = 24  # chats under way: below what the llm service takes
_ANSWER = Sampling(max_new_tokens=48)
_NOTES_TOKENS = 1900  # of the boxed model's 2,048: the rest is for the question and its answer
_MOST_TURNS = 255  # of one request, beside the question
_CALL_S = 120.0


def options(data_dir: Path) -> SuiteOptions:
    """A suite with the boxed model, each owner on one of two memory nodes."""
    # On a busy machine the first embedding takes seconds; an answer without memory for that reason would be measured as a wrong one.
    settings: Any = {"llm": {"CHAT__MODEL": tiny.NAME}, "gateway": {"CHAT__RECALL_TIMEOUT_S": "60"}}
    return SuiteOptions(data_dir=data_dir, memory_nodes=2, consensus_nodes=1, settings=settings, log_level="warning")


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said and answered in one turn."""

    session: int
    said: str
    answer: str

    def messages(self) -> list[ChatMessage]:
        return [ChatMessage(self.said), ChatMessage(self.answer, "assistant")]


@dataclass(frozen=True, slots=True)
class Leak:
    """A value of another user in what this one was shown after saying `said`: the answer, then what the model read."""

    user: int
    value: str
    said: str
    shown: tuple[str, ...]


class Stream:
    """One run over the dialogues of all users."""

    def __init__(self, client: AsyncNdmlClient, dialogues: Sequence[Sequence[Message]], ways: Sequence[Way] = WAYS) -> None:
        self._client, self._dialogues, self._ways = client, dialogues, ways
        self._past: list[list[Turn]] = [[] for _ in dialogues]
        self._foreign = Foreign(dialogues)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._tokenizer = Tokenizer.from_file(str(tiny.path() / "tokenizer.json"))
        self.leaks: list[Leak] = []
        """Of every answer and every trace that was read, questions or not."""
        self.chats = 0

    async def run(self, tell: Callable[[str], None] = lambda text: None) -> list[Outcome]:
        """All sessions in their order, the users of each at once; the questions' outcomes. Raises NdmlError where a call fails."""
        parts = [{n: list(m) for n, m in groupby(messages, attrgetter("session"))} for messages in self._dialogues]
        outcomes: list[Outcome] = []
        for session in range(1 + max(n for part in parts for n in part)):
            found = await asyncio.gather(*(self._session(part.get(session, [])) for part in parts))
            outcomes += [outcome for part in found for outcome in part]
            tell(f"session {session + 1}: {self.chats} chats, {len(outcomes)} questions")
        return outcomes

    async def _session(self, messages: Sequence[Message]) -> list[Outcome]:
        outcomes = [await self._turn(message) for message in messages]
        return [outcome for outcome in outcomes if outcome is not None]

    async def _turn(self, message: Message) -> Outcome | None:
        past = self._past[message.user]
        here = [m for turn in past if turn.session == message.session for m in turn.messages()]
        others = [way for way in self._ways if way != "memory"] if message.question else []
        answers = await asyncio.gather(
            self._chat(message, [*here, ChatMessage(message.text)], learning="wait"),
            *(self._without(way, message, past, here) for way in others),
        )
        ours = answers[0]
        past.append(Turn(message.session, message.text, ours.text))
        shown = [ours.text, *(citation.text for citation in ours.citations)]
        self.leaks += [Leak(message.user, value, message.text, tuple(shown)) for value in self._foreign.found(message.user, shown)]
        if message.question is None:
            return None
        read = tuple(Read(c.number, c.text, mentioned=c.mentioned) for c in ours.citations)
        outcome = Outcome(message, {way: a.text for way, a in zip(("memory", *others), answers, strict=True)}, read)
        if outcome.verdict() != "right":
            await self._look_up(outcome)
        return outcome

    async def _without(self, way: Way, message: Message, past: Sequence[Turn], here: Sequence[ChatMessage]) -> AsyncChatStream:
        """The answer of the same model with nothing recalled and nothing learned."""
        before = list(here)
        if way == "full":
            before = [m for turn in past for m in turn.messages()][-_MOST_TURNS:]
        elif way == "notes":
            before = [*self._notes(past), *here]
        return await self._chat(message, [*before, ChatMessage(message.text)], learning="off", recall_k=0)

    def _notes(self, past: Sequence[Turn]) -> list[ChatMessage]:
        """All that the user has said, printed as memory is printed; where it does not fit, the latest of it."""
        now = datetime.now(UTC)
        entries = (Entry(n, t.said, "user", now + timedelta(seconds=n), strength=n / len(past)) for n, t in enumerate(past, 1))
        count = lambda text: len(self._tokenizer.encode(text, add_special_tokens=False).ids)  # noqa: E731
        block = write_block(MemoryReadout(tuple(entries)), count, PromptLimits(_NOTES_TOKENS))
        return [ChatMessage(block.text, "system")] if block.text else []

    async def _chat(self, message: Message, messages: Sequence[ChatMessage], **wishes: Any) -> AsyncChatStream:
        async with self._room:
            self.chats += 1
            answer = self._client.chat(messages, sampling=_ANSWER, timeout_s=_CALL_S, **self._whose(message), **wishes)
            async for _ in answer:
                pass
        return answer

    async def _look_up(self, outcome: Outcome) -> None:
        whose = {"user": self._whose(outcome.message)["user"], "timeout_s": _CALL_S}
        stored = tuple([memory.text async for memory in self._client.list(**whose)])
        hits = [hit.memory for hit in await self._client.search(outcome.message.text, k=CANDIDATES, **whose)]
        said = {memory.text: memory.said_at.isoformat() for memory in hits if memory.said_at is not None}
        outcome.read = tuple(Read(r.number, r.text, said.get(r.text, ""), r.mentioned) for r in outcome.read)
        outcome.traces = Traces(stored, tuple(memory.text for memory in hits))

    def _whose(self, message: Message) -> dict[str, Any]:
        return {"user": f"user-{message.user}", "session": f"session-{message.session}"}
