"""Which request wrote what, for a while: so that what is told to other copies later can be linked to its trace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import TypeVar

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.internal.v1 import replication_pb2 as rpb

K = TypeVar("K")

_KEPT = 4096  # as many as updates of the journal that a consensus node has: past it a trace is too old to be looked at


class RecentRequests:
    """Trace contexts of sampled requests, by what they wrote; the oldest go. Any thread. A fresh process knows none."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._by_update: OrderedDict[tuple[int, int], str] = OrderedDict()
        self._by_trace: OrderedDict[bytes, str] = OrderedDict()
        self._turn = Lock()

    def note(self, operation: pb.Operation, update: rpb.OwnerUpdate | None) -> None:
        """A sampled operation has written `update`, or joined what another node wrote."""
        brought = operation.merge.updates if operation.HasField("merge") else () if update is None else (update,)
        with self._turn:
            for each in brought:
                self._put(self._by_update, (each.replica, each.counter), operation.traceparent)
                for record in each.records:
                    self._put(self._by_trace, record.trace_id, operation.traceparent)

    def _put(self, kept: OrderedDict[K, str], key: K, traceparent: str) -> None:
        kept[key] = traceparent
        kept.move_to_end(key)
        if len(kept) > self._kept:
            kept.popitem(last=False)

    def of_update(self, replica: int, counter: int) -> str:
        """Of the request that a store carried out at this position; "" where none is known."""
        return self._by_update.get((replica, counter), "")

    def of_traces(self, trace_ids: Iterable[bytes]) -> Iterator[str]:
        """Of the requests that wrote these traces last, as far as they are known; looked up as they are taken."""
        return filter(None, map(self._by_trace.get, trace_ids))


recent = RecentRequests()
"""Of this process, as its tracer is."""
