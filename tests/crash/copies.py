"""What each memory node's disk says in the end, asked of the node itself and not of the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import grpc

from ndml.internal.v1 import replication_pb2, replication_pb2_grpc
from ndml.v1.types_pb2 import MemoryTrace
from tests.crash.clients import number_of
from tests.sim.history import GONE

_LIMIT = (("grpc.max_receive_message_length", 64 << 20),)


def owner_digests(addresses: Mapping[str, str]) -> dict[str, dict[str, bytes]]:
    """For each user the digest at each node that holds something of it. `addresses`: host:port by node."""
    found: dict[str, dict[str, bytes]] = {}
    for node, address in addresses.items():
        with grpc.insecure_channel(address, options=_LIMIT) as channel:
            stub = replication_pb2_grpc.ReplicationServiceStub(channel)
            for part in stub.ListOwners(replication_pb2.ListOwnersRequest(), timeout=60):
                for owner in part.owners:
                    found.setdefault(owner.user, {})[node] = owner.digest
    return found


def converged(addresses: Mapping[str, str], copies: int, within_s: float) -> float:
    """Seconds until every owner has `copies` copies with one digest. Raises AssertionError after `within_s`."""
    began = time.monotonic()
    while True:
        digests = owner_digests(addresses)
        apart = {user: at for user, at in digests.items() if len(at) != copies or len(set(at.values())) != 1}
        if digests and not apart:
            return time.monotonic() - began
        assert time.monotonic() - began < within_s, f"after {within_s} s these differ: { {u: sorted(a) for u, a in apart.items()} }"
        time.sleep(0.2)


def shown(addresses: Mapping[str, str], users: Mapping[str, Mapping[str, str]], tenant: str = "default") -> dict[str, dict[str, int]]:
    """For each node the number that it holds of each trace; GONE where it knows of the delete. `users`: trace ids by trace, by user.

    Of several contents that stand beside each other the highest: a checker asks what was lost, not what is shown.
    """
    finals: dict[str, dict[str, int]] = {}
    for node, address in addresses.items():
        with grpc.insecure_channel(address, options=_LIMIT) as channel:
            final = finals[node] = {}
            for user, ids in users.items():
                names = {trace_id: trace for trace, trace_id in ids.items()}
                for record in _records(channel, user, tenant):
                    trace = names.get(record.trace_id.hex())
                    if trace is not None:
                        final[trace] = _number(record)
    return finals


def _records(channel: grpc.Channel, user: str, tenant: str) -> Iterator[replication_pb2.TraceRecord]:
    """Everything of the user at the node."""
    request = replication_pb2.FetchRecordsRequest(tenant=tenant, user=user, all=True)
    for part in replication_pb2_grpc.ReplicationServiceStub(channel).FetchRecords(request, timeout=60):
        yield from part.records


def _number(record: replication_pb2.TraceRecord) -> int:
    if record.length % 2 == 0:
        return GONE
    return max(number_of(MemoryTrace.FromString(version.content).text) for version in record.versions)


def standing(addresses: Mapping[str, str], user: str, tenant: str = "default") -> dict[str, int]:
    """How many of the user's traces each node holds that are not erased."""
    counts = {}
    for node, address in addresses.items():
        with grpc.insecure_channel(address, options=_LIMIT) as channel:
            counts[node] = sum(record.length % 2 for record in _records(channel, user, tenant))
    return counts
