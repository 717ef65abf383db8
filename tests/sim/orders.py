"""Sessions over three stores whose updates reach each other in any order, or never, or as records without positions; stores restart.

No network, no clock: a step is a commit. What the simulator of the whole suite meets now and then happens here all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from google.protobuf.timestamp_pb2 import Timestamp

from ndml.errors import NdmlError, OwnerUnavailable
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.v1.types_pb2 import Embedding, MemoryTrace
from services.gateway.tokens import joined
from services.memory_node.commit import WriteAction, WriteJob
from services.memory_node.heads import Heads
from services.memory_node.housekeeping import SettleOwner
from services.memory_node.positions import noted
from services.memory_node.records import Owner
from tests.sim.clients import number_of, vector_of
from tests.sim.history import GONE
from tests.sim.loop import EPOCH_NS
from tests.sim.stores import Files, template

OWNER = Owner("t", "u")
_COPIES = 3
_TRACES = 4
_STEPS = 150
_SESSIONS = 3


class _Copy:
    """One store."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.start()

    def start(self) -> None:
        self.store = self._files.open()
        self.reader = self.store.reader()
        self.heads = Heads(self.reader, 2)

    def stop(self) -> None:
        self.reader.close()
        self.store.close()

    def do(self, action: WriteAction) -> rpb.OwnerUpdate | None:
        """What it changed. Raises NdmlError."""
        job = WriteJob(OWNER, action)
        job.wanted = job.journal = not isinstance(action, pb.MergeAction | SettleOwner)
        commit = self.store.committer.commit([job])
        self.heads.follow(commit)
        if isinstance(commit.results[0], NdmlError):
            raise commit.results[0]
        return job.update

    def number(self, trace_id: bytes) -> int:
        """Of the write that it shows; GONE: deleted; 0: nothing."""
        row = self.reader.owner(OWNER)
        stored = None if row is None else self.reader.stored(row.owner_id, trace_id)
        if stored is not None:
            return number_of(MemoryTrace.FromString(stored.row.payload).text)
        return GONE if row is not None and self.reader.erased(row.owner_id, trace_id) else 0

    def read(self, trace_id: bytes, seen: dict[int, int]) -> tuple[int, dict[int, int]]:
        """The number, and what a session has seen then. Raises OwnerUnavailable."""
        applied = self.store.committer.last_sequence
        self.heads.check(OWNER, [rpb.Head(replica=replica, counter=at) for replica, at in seen.items()], applied)
        found = self.heads.shown(OWNER, applied, stored=True)
        return self.number(trace_id), joined(seen, *({head.replica: head.counter} for head in found))


class Orders:
    """One seed."""

    def __init__(self, seed: int, directory: Path) -> None:
        self._random = Random(seed)
        self._ticks = count(EPOCH_NS, 1_000_000)
        numbers = count(1)
        names = [f"m{i}" for i in range(_COPIES)]
        files = [Files(directory / name, name, _template(), lambda: 100 + next(numbers), lambda: next(self._ticks)) for name in names]
        self._copies = [_Copy(each) for each in files]
        self._authors = self._random.choice([1, 1, 2, 3])
        self._written = [0] * _TRACES
        self._last = 0, 0
        self._under_way: list[tuple[_Copy, rpb.OwnerUpdate]] = []
        self._seen: list[dict[int, int]] = [{} for _ in range(_SESSIONS)]
        self._shown: dict[tuple[int, int], int] = {}
        self.refused = 0
        self.reads = 0

    def run(self) -> list[str]:
        """What was wrong."""
        steps: Sequence[tuple[int, Callable[[], list[str]]]] = (
            (6, self._write),
            (9, self._deliver),
            (4, self._repair),
            (1, self._reconcile),
            (1, self._restart),
            (1, self._settle),
            (2, self._begin_anew),
            (16, self._read),
        )
        weights, acts = [weight for weight, _ in steps], [act for _, act in steps]
        wrong = [each for _ in range(_STEPS) for each in self._random.choices(acts, weights)[0]()]
        wrong += self._end()
        for copy in self._copies:
            copy.stop()
        return wrong

    def _write(self) -> list[str]:
        trace = self._random.randrange(_TRACES)
        if self._written[trace] == GONE:
            return []
        self._written[trace] += 1
        author, at = self._copies[trace % self._authors], Timestamp()
        at.FromNanoseconds(next(self._ticks))
        text = f"t#{self._written[trace]}"
        made = MemoryTrace(trace_id=_id(trace).hex(), text=text, version=1, learned_at=at, updated_at=at)
        made.embedding.CopyFrom(Embedding(vector=vector_of(text)))
        action: WriteAction = pb.UpdateAction(trace=made, fields=["text", "embedding"])
        if self._written[trace] == 1:
            action = pb.PutAction(traces=[made])
        elif self._random.random() < 0.05:
            self._written[trace] = GONE
            action = pb.DeleteAction(trace_id=made.trace_id)
        update = author.do(action)
        assert update is not None
        # One in six never comes.
        self._under_way += [(copy, update) for copy in self._copies if copy is not author and self._random.random() < 5 / 6]
        return []

    def _deliver(self) -> list[str]:
        if self._under_way:
            copy, update = self._under_way.pop(self._random.randrange(len(self._under_way)))
            copy.do(pb.MergeAction(updates=[update]))
        return []

    def _repair(self) -> list[str]:
        """What a quorum read does: one trace's record, and what its sender shows."""
        source, target = self._random.sample(self._copies, 2)
        record = source.reader.record(OWNER, _id(self._random.randrange(_TRACES)))
        if record is not None:
            target.do(pb.MergeAction(records=[record], updates=noted(OWNER, source.reader.shown(OWNER))))
        return []

    def _reconcile(self) -> list[str]:
        """All that differs: first some records, then the others with the sender's heads."""
        source, target = self._random.sample(self._copies, 2)
        self._fetch(source, target, self._random.random() < 0.5)
        return []

    def _fetch(self, source: _Copy, target: _Copy, whole: bool) -> None:
        records, state = list(source.reader.records(OWNER, None)), source.reader.owner_state(OWNER)
        notes, some = noted(OWNER, source.reader.shown(OWNER)), self._random.randint(0, len(records))
        target.do(pb.MergeAction(records=records[:some], updates=notes))
        if whole:
            others = [head for head in state.heads if head.replica != target.store.replica]
            target.do(pb.MergeAction(records=records[some:], updates=notes, heads=others))

    def _restart(self) -> list[str]:
        copy = self._random.choice(self._copies)
        copy.stop()
        copy.start()
        return []

    def _settle(self) -> list[str]:
        digests = {copy.reader.owner_state(OWNER).digest for copy in self._copies}
        if len(digests) == 1:
            self._random.choice(self._copies).do(SettleOwner(digests.pop()))
        return []

    def _begin_anew(self) -> list[str]:
        """A session ends. One that has seen everything of a store is served by that store alone for a while."""
        session = self._random.randrange(len(self._seen))
        self._seen[session] = {}
        self._shown = {key: number for key, number in self._shown.items() if key[0] != session}
        return []

    def _read(self) -> list[str]:
        """Often what was looked at just now."""
        if self._random.random() < 0.5:
            self._last = self._random.randrange(len(self._seen)), self._random.randrange(_TRACES)
        return self._look(*self._last, self._random.choice(self._copies))

    def _look(self, session: int, trace: int, copy: _Copy) -> list[str]:
        self.reads += 1
        try:
            number, self._seen[session] = copy.read(_id(trace), self._seen[session])
        except OwnerUnavailable:
            self.refused += 1
            return []
        before = self._shown.get((session, trace), 0)
        self._shown[session, trace] = max(number, before)
        return [f"session {session} saw {number} of trace {trace} after {before}"] if number < before else []

    def _end(self) -> list[str]:
        """Two rounds of all with all: then nothing is over a gap, and every copy serves every session."""
        for source in self._copies * 2:
            for target in self._copies:
                if source is not target:
                    self._fetch(source, target, True)
        wrong = [f"{copy.store.replica} is over a gap in the end" for copy in self._copies if copy.reader.unsettled(1)]
        before = self.refused
        wrong += [each for s in range(len(self._seen)) for t in range(_TRACES) for copy in self._copies for each in self._look(s, t, copy)]
        return wrong + (["a session is refused in the end"] if self.refused > before else [])


def _id(trace: int) -> bytes:
    return bytes((trace + 1,)) * 16


@cache
def _template() -> bytes:
    with TemporaryDirectory() as directory:
        return template(Path(directory))


def orders(seed: int) -> list[str]:
    """What was wrong with a seed."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="ndml-orders-", dir=memory if memory.is_dir() else None) as directory:
        return Orders(seed, Path(directory)).run()
