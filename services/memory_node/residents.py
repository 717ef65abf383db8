"""Which owners' partitions are in memory: loaded on first touch by a thread of their own, dropped least recently used first.

Belongs to the engine's thread; only `_load` runs elsewhere.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ndml.errors import InternalFault, NdmlError
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from ndml.v1.types_pb2 import MemoryTrace
from services.memory_node.commit import Commit
from services.memory_node.partition import Partition
from services.memory_node.reader import Reader
from services.memory_node.records import Owner
from services.memory_node.spaces import Spaces

log = get_logger(__name__)

# Partitions looked after while nothing else happens: an index trained in the background is swapped in for these without waiting for a use.
_IDLE_UPKEEP = 16


@dataclass(frozen=True, slots=True)
class Loaded:
    """A partition came in, or could not; None: the store knows no such owner."""

    owner: Owner
    outcome: Partition | NdmlError | None


class Residents:
    """`load` reads a partition with the loader's reader; `post` hands a Loaded to the engine."""

    def __init__(
        self,
        limit_bytes: int,
        open_reader: Callable[[], Reader],
        load: Callable[[Reader, Owner], Partition | None],
        post: Callable[[Loaded], None],
    ) -> None:
        self._limit_bytes = limit_bytes
        self._open_reader = open_reader
        self._load_with = load
        self._post = post
        self._partitions: OrderedDict[Owner, Partition] = OrderedDict()
        self._charged: dict[Owner, tuple[int, int]] = {}
        self._loading: dict[Owner, list[Commit]] = {}
        # One thread: loading is bound by the disk and the interpreter lock, two would only make both owners wait.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._local = threading.local()
        self._readers: list[Reader] = []
        self.nbytes = 0
        self.traces = 0

    def get(self, owner: Owner) -> Partition | None:
        """The partition if it is in memory; it counts as used now."""
        partition = self._partitions.get(owner)
        if partition is not None:
            self._partitions.move_to_end(owner)
        return partition

    def check(self, owner: Owner, traces: Sequence[MemoryTrace]) -> None:
        """Raises FieldInvalid, CapacityReached where the vectors of these traces' contents cannot come to the owner's."""
        partition = self._partitions.get(owner)
        spaces, used = (Spaces(), 0) if partition is None else (partition.spaces, partition.nbytes)
        spaces.check(traces, self._limit_bytes - used)

    def all(self) -> list[Partition]:
        """Those in memory, least recently used first."""
        return list(self._partitions.values())

    def count(self, owner: Owner) -> int:
        """Traces of the owner in memory."""
        return self._charged.get(owner, (0, 0))[1]

    def counts(self) -> list[tuple[Owner, int]]:
        """Of every owner in memory. The one look that another thread may take: a list of a dict's items is made in one step."""
        return [(owner, traces) for owner, (_, traces) in list(self._charged.items())]

    def count_tenant(self, tenant: str) -> int:
        return sum(traces for owner, (_, traces) in self._charged.items() if owner.tenant == tenant)

    def request(self, owner: Owner) -> None:
        """Have the owner loaded, once; the engine gets a Loaded."""
        if owner not in self._loading:
            self._loading[owner] = []
            self._loader.submit(self._load, owner).add_done_callback(self._report)

    def _load(self, owner: Owner) -> Loaded:
        if not hasattr(self._local, "reader"):
            self._local.reader = self._open_reader()
            self._readers.append(self._local.reader)
        try:
            return Loaded(owner, self._load_with(self._local.reader, owner))
        except NdmlError as error:
            return Loaded(owner, error)
        except Exception as error:  # the requests that wait need an answer, whatever it was
            log.error("load_fault", exc_info=error)
            return Loaded(owner, InternalFault("internal fault while loading the owner's index: the node's log has the details"))

    def _report(self, done: Future[Loaded]) -> None:
        if not done.cancelled():
            self._post(done.result())

    def install(self, loaded: Loaded) -> None:
        """Take a loaded partition in, and what was committed since it was read."""
        missed = self._loading.pop(loaded.owner)
        if isinstance(loaded.outcome, Partition):
            metrics.INDEX_LOADS.inc()
            self._partitions[loaded.owner] = loaded.outcome
            # Up to a commit that it cannot follow, or that lets the owner go: it is not kept then.
            if all(self._apply_to(loaded.outcome, commit) for commit in missed):
                self.settle(loaded.outcome)

    def apply(self, commit: Commit) -> None:
        """Make a commit visible in the partitions that are in memory; the others will read it from the store."""
        for owner in commit.owners():
            partition = self._partitions.get(owner)
            if owner in self._loading:
                self._loading[owner].append(commit)
            elif partition is not None and self._apply_to(partition, commit):
                self.settle(partition)

    def _apply_to(self, partition: Partition, commit: Commit) -> bool:
        owner, new = partition.owner, commit.last_sequence > partition.through
        if owner in commit.dropped:
            self._drop(owner)
            return False
        try:
            partition.apply(commit.added.get(owner, ()), commit.removed.get(owner, ()), commit.last_sequence)
            partition.regroup(commit.membership.merged.get(owner, ()), commit.membership.freed.get(owner, ()))
            if new and commit.states.get(owner):
                partition.overwrite(commit.states[owner], commit.last_sequence)
        except Exception as error:
            # The commit stands on disk: a partition that cannot follow is dropped and read anew, never left behind.
            log.error("index_fault", exc_info=error)
            self._drop(owner)
            return False
        return True

    def settle(self, partition: Partition) -> None:
        """After a use: upkeep, and room if memory ran over. The partition just used stays."""
        if not self._keep_up(partition):
            return
        # One whose states are on their way to the disk stays: read anew it would be without them.
        others = [each for each in self._partitions.values() if each is not partition and not each.unwritten]
        for oldest in others:
            if self.nbytes <= self._limit_bytes:
                break
            self._drop(oldest.owner)

    def idle(self) -> None:
        """Upkeep while nothing else is to do."""
        for owner in list(reversed(self._partitions))[:_IDLE_UPKEEP]:
            self._keep_up(self._partitions[owner])

    def _keep_up(self, partition: Partition) -> bool:
        try:
            partition.upkeep()
        except Exception as error:
            log.error("index_fault", exc_info=error)
            self._drop(partition.owner)
            return False
        self._charge(partition)
        return True

    def _charge(self, partition: Partition) -> None:
        size, traces = self._charged.get(partition.owner, (0, 0))
        now = self._charged[partition.owner] = (partition.nbytes, partition.live)
        self.nbytes += now[0] - size
        self.traces += now[1] - traces

    def _drop(self, owner: Owner) -> None:
        partition = self._partitions.pop(owner, None)
        size, traces = self._charged.pop(owner, (0, 0))
        self.nbytes -= size
        self.traces -= traces
        if partition is not None:
            partition.close()

    def forget(self, owner: Owner) -> None:
        """Have the owner read anew at its next use."""
        self._drop(owner)

    def close(self) -> None:
        self._loader.shutdown(wait=True, cancel_futures=True)
        for owner in list(self._partitions):
            self._drop(owner)
        for reader in self._readers:
            reader.close()
