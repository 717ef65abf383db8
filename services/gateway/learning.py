"""Learning while serving: what a user says in a chat becomes memories, after the answer and off its path.

A chat reserves its room before it begins, so that nothing that was said is lost for want of it: where the outbox is full, the chat is
refused. The write gate decides what is new; what is known is strengthened.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple
from uuid import uuid4

from ndml.errors import Cancelled, DeadlineExceeded, DeadlinePassed, Internal, NdmlError, RequestIdReused, Unavailable
from ndml.language import Statement, packed
from ndml.runtime import metrics, semconv
from ndml.runtime.call import Call
from ndml.runtime.interceptors import as_ndml_error
from ndml.runtime.log import get_logger
from ndml.runtime.telemetry import current_traceparent, linked_span, tenant_carried
from ndml.v1 import chat_pb2, memory_pb2, types_pb2
from services.gateway.extraction import Extractor, day_of, memory
from services.gateway.outbox import Outbox, may_pass
from services.gateway.ports import Seen
from services.gateway.remember import Added, AddedAll, Remember
from services.gateway.scopes import Owner, owner_of
from services.gateway.settings import LearningSettings
from services.gateway.surprise import Surprise
from services.gateway.tokens import joined, write_consistency_token

log = get_logger(__name__)

_OVERHEAD_BYTES = 1024  # of a turn that waits, beside its texts

_OUTCOMES = {name: metrics.LEARNED.labels(name) for name in ("written", "reinforced", "ignored", "failed")}


class Learned(NamedTuple):
    """Traces written or strengthened, and a token with which a read sees them."""

    trace_ids: tuple[str, ...] = ()
    token: str = ""


@dataclass(slots=True)
class Material:
    """What one turn has to tell. `key` makes its writing repeatable; `memories` are made at the first try and kept for the next, which
    leaves out those that are `done`, by place: what was known would be strengthened by each try.
    """

    scope: types_pb2.Scope
    owner: Owner
    said: tuple[str, ...]
    said_us: int
    key: str
    traceparent: str
    answer: str = ""
    memories: list[memory_pb2.NewMemory] | None = None
    done: dict[int, Added] = field(default_factory=dict)
    seen: dict[Owner, Seen] = field(default_factory=dict)


class Learning:
    """Turns chats into memories. Attach it before the doors that take chats, behind what it writes to."""

    def __init__(self, remember: Remember, extractor: Extractor, surprise: Surprise, settings: LearningSettings) -> None:
        self._remember = remember
        self._extractor = extractor
        self._surprise = surprise
        self._settings = settings
        self._outbox: Outbox[Material] = Outbox(self._work, self._gave_up, settings)

    async def start(self) -> None:
        await self._outbox.start()

    async def stop(self) -> None:
        """Write what waits."""
        await self._outbox.stop()

    def turn(self, request: chat_pb2.ChatRequest, call: Call) -> Turn:
        """A context around one chat. Raises LearningBacklog, FieldInvalid, TenantDenied, before anything is done."""
        material = self._material(request, call)
        if material is None:
            return Turn(self, None, 0, call, wait=False)
        size = _OVERHEAD_BYTES + sum(len(text.encode()) for text in material.said)
        size += self.answer_bytes
        self._outbox.reserve(size)
        return Turn(self, material, size, call, wait=request.learning == chat_pb2.LEARNING_WAIT)

    def put(self, material: Material, size: int) -> None:
        """Learn it when there is time, in the room that is reserved for it."""
        self._outbox.put(material, size)

    def release(self, size: int) -> None:
        """Nothing is to be learned, or it has been."""
        self._outbox.release(size)

    @property
    def answer_bytes(self) -> int:
        """Bytes of an answer that are kept."""
        return self._settings.answer_bytes if self._settings.answers else 0

    async def write_now(self, material: Material, deadline: float | None) -> Learned:
        """Write it before this returns, trying for as long as the caller waits and `wait_s` allows. Raises NdmlError."""
        ends = time.monotonic() + self._settings.wait_s
        ends = ends if deadline is None else min(ends, deadline)
        delay_s = self._settings.backoff_s
        reason: NdmlError | None = None
        while True:
            try:
                async with asyncio.timeout(max(0.0, ends - time.monotonic())):
                    return await self._work(material, ends)
            except Exception as error:
                # That time is up says less than what took it.
                reason = reason if reason and isinstance(error, TimeoutError) else as_ndml_error(error)
                if not may_pass(reason) or time.monotonic() + delay_s >= ends:
                    raise reason from error
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, self._settings.max_backoff_s)

    def _material(self, request: chat_pb2.ChatRequest, call: Call) -> Material | None:
        wanted = request.learning not in (chat_pb2.LEARNING_OFF, chat_pb2.LEARNING_UNSPECIFIED)
        if not wanted and (request.learning == chat_pb2.LEARNING_OFF or not self._settings.enabled):
            return None
        said = new_words(request.messages)
        if not said:
            return None
        owner = owner_of(request.scope, call)
        scope = types_pb2.Scope()
        scope.CopyFrom(request.scope)
        scope.tenant = owner.tenant
        return Material(scope, owner, said, time.time_ns() // 1000, _key(request.request_id, said), call.traceparent)

    async def _work(self, material: Material, ends: float | None = None) -> Learned:
        """One try at what is not done yet. Raises the first error that the next one may not meet.

        ends: on the monotonic clock, where somebody waits; what may fail without harm then takes a part of the time alone.
        """
        attributes = {semconv.MEMORY_COUNT: len(material.memories or ())}
        of = [material.traceparent] if material.traceparent else []
        with linked_span(semconv.SPAN_LEARN, of, attributes), tenant_carried(tenant := material.owner.tenant) as hashed:
            call = Call(semconv.SPAN_LEARN, tenant=tenant, traceparent=current_traceparent(), tenant_hash=hashed, deadline=ends)
            if material.memories is None:
                material.memories = await self._memories(material, call)
            rest = [i for i in range(len(material.memories)) if i not in material.done]
            if rest:
                call.deadline = time.monotonic() + self._settings.write_timeout_s
                memories = [material.memories[i] for i in rest]
                added = await self._remember.add(memories, material.key, call, _path, deduplicate=True, places=rest)
                self._note(material, rest, added)
        kept = [material.done[i] for i in sorted(material.done)]
        return Learned(tuple(item.trace_id for item in kept if item.error is None), write_consistency_token(material.seen))

    async def _memories(self, material: Material, call: Call) -> list[memory_pb2.NewMemory]:
        """Each statement of the user's as one memory, then those of the answer where it is kept. Times differ by a microsecond, so that
        of two statements about the same thing the later said is known.
        """
        day = day_of(material.said_us)
        parts = [("chat", self._settings.speaker, material.said), ("answer", self._settings.answer_speaker, (material.answer,))]
        told: list[tuple[str, str, list[Statement]]] = []
        ignored = 0
        for source, speaker, texts in parts:
            found = [await self._extractor.extract(text, day, call) for text in texts if text]
            ignored += sum(each.ignored for each in found)
            told.append((source, speaker, [one for each in found for one in each.statements]))
        most = max(1, self._settings.most_traces // max(1, sum(bool(statements) for *_, statements in told)))
        made = [(source, speaker, one) for source, speaker, statements in told for one in packed(statements, most)]
        surprise = await self._surprise.of([one.text for _, _, one in made], call) if made else []
        _OUTCOMES["ignored"].inc(ignored)
        return [
            memory(one, material.scope, speaker, source, material.said_us + i, self._salience(one, surprised))
            for i, ((source, speaker, one), surprised) in enumerate(zip(made, surprise, strict=True))
        ]

    def _salience(self, one: Statement, surprised: float | None) -> float:
        """Either reason to keep it is one: salience is what the words leave open, filled up by the surprise."""
        return 1.0 - (1.0 - one.weight) * (1.0 - self._settings.surprise_weight * (surprised or 0.0))

    def _note(self, material: Material, places: Sequence[int], added: AddedAll) -> None:
        """What of these is done, well or ill. Raises the first error that another try may not meet."""
        for owner, seen in added.seen.items():
            material.seen[owner] = joined(material.seen.get(owner, {}), seen)
        passing: NdmlError | None = None
        for place, item in zip(places, added.items, strict=True):
            if isinstance(item.error, RequestIdReused):
                # The key stands for these words: a repeat of the request, later, and read with other eyes. The first one counts.
                item.error, item.existed = None, True
            if item.error is not None and may_pass(item.error):
                passing = passing or item.error
                continue
            material.done[place] = item
            _OUTCOMES["failed" if item.error else "reinforced" if item.deduplicated else "written"].inc()
            if item.error is not None:
                log.error("not_learned", reason=item.error.reason, message=item.error.message)
        if passing is not None:
            raise passing

    def _gave_up(self, material: Material, error: NdmlError) -> None:
        lost = len(material.said) if material.memories is None else len(material.memories) - len(material.done)
        _OUTCOMES["failed"].inc(lost)
        log.error("not_learned", statements=lost, reason=error.reason, message=error.message)


class Turn:
    """One chat as learning sees it. Leaving it puts what was said into the outbox, unless the chat was refused."""

    def __init__(self, learning: Learning, material: Material | None, size: int, call: Call, *, wait: bool) -> None:
        self._learning = learning
        self._material = material
        self._size = size
        self._call = call
        self._wait = wait
        self._begun = False
        self._written = False
        self._answer: list[str] = []
        self._room = learning.answer_bytes

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._material is None:
            return
        if self._written or (_refused(error) and not self._begun):
            self._learning.release(self._size)
            return
        self._material.answer = "".join(self._answer)
        self._learning.put(self._material, self._size)

    def answered(self, delta: str) -> None:
        """The model has begun, or gone on."""
        self._begun = True
        if delta and self._room > 0:
            part = delta.encode()[: self._room].decode(errors="ignore")
            self._answer.append(part)
            self._room -= len(delta.encode())

    async def learned(self) -> Learned:
        """After the last token: with LEARNING_WAIT what was written, else nothing yet.

        Raises NdmlError where it could not be written while the caller waits; it is tried further then.
        """
        if self._material is None or not self._wait:
            return Learned()
        self._material.answer = "".join(self._answer)
        if self._call.remaining() == 0:
            raise DeadlinePassed("the deadline passed before this turn was learned: it is learned in the background")
        learned = await self._learning.write_now(self._material, self._call.deadline)
        self._written = True
        return learned


def _refused(error: BaseException | None) -> bool:
    """Whether the request was at fault, or came when there was no room: then its caller sends it again, put right.

    Nobody says a thing twice because a model was away, or because they left before it answered.
    """
    return isinstance(error, NdmlError) and not isinstance(error, Cancelled | DeadlineExceeded | Internal | Unavailable)


def new_words(messages: Sequence[chat_pb2.ChatMessage]) -> tuple[str, ...]:
    """What the user said since the model spoke last: callers send the whole conversation with every turn."""
    said: list[str] = []
    for message in reversed(messages):
        if message.role == chat_pb2.ROLE_ASSISTANT:
            break
        if message.role == chat_pb2.ROLE_USER and message.content.strip():
            said.append(message.content)
    return tuple(reversed(said))


def _key(request_id: str, said: Sequence[str]) -> str:
    """Names what this turn writes: the same for a repeated request with the same words; another for every request without an id."""
    if not request_id:
        return f"chat/{uuid4().hex}"
    digest = hashlib.blake2b(digest_size=16, person=b"ndml-learning")
    for text in said:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return f"chat/{request_id}/{digest.hexdigest()}"


def _path(index: int) -> str:
    return f"statements[{index}]"
