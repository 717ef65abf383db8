"""What was said becomes memories, behind the answer: statements by rules, through the suite's write gate, in a bounded queue."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from ndml.client import Added, CallOptions, NdmlClient, NewMemory, Provenance
from ndml.errors import LearningBacklog, NdmlError
from ndml.fusion.prompt import Turn
from ndml.integrated.config import labels
from ndml.language import packed, told

_MOST_TRACES = 64  # of one turn, as the gateway has it: what says more has several statements in each
log = logging.getLogger(__name__)


def new_words(messages: Sequence[Turn]) -> list[str]:
    """What the user said since the model spoke last: callers send the whole conversation with every turn."""
    said: list[str] = []
    for message in reversed(messages):
        if message.role == "assistant":
            break
        if message.role == "user":
            said.insert(0, message.content)
    return said


def statements(texts: Sequence[str], context: Mapping[str, object] | None, now: datetime) -> list[NewMemory]:
    """Each statement of the texts as a memory. Times differ by a microsecond, so that of two about one thing the later is known."""
    made = packed([one for text in texts for one in told(text, now.date()).statements], _MOST_TRACES)
    shared = labels(context)
    return [
        NewMemory(
            one.text,
            speaker="user",
            said_at=now + timedelta(microseconds=at),
            metadata=shared | one.labels,
            salience=one.weight,
            provenance=Provenance("chat"),
        )
        for at, one in enumerate(made)
    ]


class Learner:
    """Writes in the order in which things were said, in a thread of its own."""

    def __init__(self, client: NdmlClient, backlog: int) -> None:
        """backlog: statements that may wait."""
        self._client, self._backlog, self._room = client, backlog, backlog
        self._closed = False
        self._queue: queue.Queue[tuple[list[NewMemory], CallOptions] | None] = queue.Queue()
        self._lock = threading.Lock()
        self.written = self.known = self.failed = 0
        self._thread = threading.Thread(target=self._work, name="ndml-learning", daemon=True)
        self._thread.start()

    def reserve(self, count: int) -> None:
        """Room for statements that `put` will bring. Raises LearningBacklog where there is none: they are said, and nothing is lost.

        Where nothing waits there is room for any turn.
        """
        with self._lock:
            if count > 0 and self._room < min(count, self._backlog):
                raise LearningBacklog("statements of earlier turns still wait to be written: try again in a moment, or set learning to off")
            self._room -= count

    def put(self, memories: list[NewMemory], scope: CallOptions) -> None:
        """Write them when there is time, in the room that is reserved for them."""
        with self._lock:
            if not self._closed:
                self._queue.put((memories, scope))
                return
        self._lost(memories, LearningBacklog("the model was closed before this was learned"))
        self.release(len(memories))

    def release(self, count: int) -> None:
        """They are not to be written."""
        with self._lock:
            self._room += count

    def write(self, memories: list[NewMemory], scope: CallOptions) -> list[Added]:
        """Now. What is known is strengthened. Raises NdmlError."""
        added = self._client.add_many(memories, deduplicate=True, request_id=f"integrated/{uuid4().hex}", **scope)
        known = sum(each.deduplicated for each in added)
        with self._lock:
            self.known += known
            self.written += len(added) - known
        return added

    def flush(self) -> None:
        """Until everything that waits is written, or has failed."""
        self._queue.join()

    def close(self) -> None:
        """Write what waits and end; again: nothing."""
        with self._lock:
            if not self._closed:
                self._queue.put(None)
            self._closed = True
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            memories, scope = item
            try:
                self.write(memories, scope)
            except Exception as error:  # whatever it was, later turns are written by this thread too
                self._lost(memories, error)
            finally:
                self.release(len(memories))
                self._queue.task_done()
        self._queue.task_done()

    def _lost(self, memories: list[NewMemory], error: Exception) -> None:
        with self._lock:
            self.failed += len(memories)
        log.error("%d statements were not learned: %s", len(memories), error, exc_info=None if isinstance(error, NdmlError) else error)


def now() -> datetime:
    return datetime.now(UTC)
