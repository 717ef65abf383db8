"""ndml doctor: one check after the other, each with what it found and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ndml import __version__, wire
from ndml.cli.admin import drained
from ndml.cli.output import table
from ndml.cli.session import Session
from ndml.client import ClusterStatus, NdmlClient, Placement
from ndml.client._channel import open_channel
from ndml.errors import NdmlError

PROBE_USER = "ndml-doctor"
_PROBE_TEXT = "The doctor checks that what is written is found again."
# Long enough for a name look-up and a TLS handshake over a slow link, short enough to wait for.
_CONNECT_S = 5.0
# Times of memories are shown to the second and tokens live for minutes: a skew below this does no harm.
_SKEW = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found; `ok` None means that it was left out. `fix` says what to do where it failed."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    read_only: Annotated[bool, typer.Option("--read-only", help="Write no probe memory; the clock is then not checked.")] = False,
) -> None:
    """Check the suite end to end. Writes one memory of the user "ndml-doctor" and removes it again."""
    session: Session = context.obj
    checks = list(examine(session, read_only=read_only))
    marks = {True: "ok", False: "FAIL", None: "left out"}
    rows = [(marks[check.ok], check.name, check.detail, check.fix) for check in checks]
    healthy = all(check.ok is not False for check in checks)
    session.output.result({"healthy": healthy, "checks": checks}, table("=", "check", "found", "fix", rows=rows))
    if not healthy:
        raise typer.Exit(4 if checks[0].ok is False else 1)


def examine(session: Session, *, read_only: bool = False) -> Iterator[Check]:
    """The checks in order; none after the first where there is no connection."""
    with open_channel(session.address, session.client_options) as channel, session.client(needs_user=False) as client:
        connected = _connect(channel, session.address)
        yield connected
        if not connected.ok:
            return
        yield _health(channel)
        yield _reflection(channel)
        yield from _cluster(client)
        yield from _memory(client, read_only)


def _connect(channel: grpc.Channel, address: str) -> Check:
    started = time.perf_counter()
    try:
        grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
    except grpc.FutureTimeoutError:
        fix = "start it (make run), or give --address host:port; with TLS on the server give --tls or --tls-roots"
        return Check("connection", False, f"nothing answers at {address}", fix)
    return Check("connection", True, f"{address} in {(time.perf_counter() - started) * 1000:.0f} ms")


def _health(channel: grpc.Channel) -> Check:
    fix = "the gateway starts or drains: wait, then look into its log"
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_CONNECT_S)
    except grpc.RpcError as error:
        return _failed("health", wire.rpc_error_to_ndml(error), fix)
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Check("health", name == "SERVING", name, "" if name == "SERVING" else fix)


def _reflection(channel: grpc.Channel) -> Check:
    fix = "only tools such as buf curl need it: see that the address is NDML's gateway and not another service"
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    try:
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=_CONNECT_S)
        names = {row.name for answer in answers for row in answer.list_services_response.service}
    except grpc.RpcError as error:
        return _failed("reflection", wire.rpc_error_to_ndml(error), fix)
    ours = sorted(name for name in names if name.startswith("ndml.v1."))
    found = "ndml.v1.MemoryService" in ours
    return Check("reflection", found, ", ".join(ours) or "no service of NDML", "" if found else fix)


def _cluster(client: NdmlClient) -> Iterator[Check]:
    status, silent = _tried(client.cluster_status)
    placement, failure = _tried(lambda: client.placement(user=PROBE_USER))
    left = drained(placement.members) if failure is None else frozenset()
    if silent is None:
        yield _services(status, left)
        yield _versions(status)
    else:
        yield _failed("services", silent, "look into the gateway's log; where authentication is on, give the operator's --token")
    if failure is None:
        yield _owners(placement)
    else:
        yield _failed("owners", failure, "look into the consensus nodes' logs")


def _services(status: ClusterStatus, left: frozenset[str]) -> Check:
    down = [
        f"{row.service} {row.instance or row.address}: {row.error}"
        for row in status.services
        if not row.reachable and row.instance not in left
    ]
    if down:
        return Check("services", False, "; ".join(down), "start it again, and look into its log for why it ended")
    return Check("services", True, f"{sum(row.reachable for row in status.services)} answer")


def _versions(status: ClusterStatus) -> Check:
    other = {f"{row.service} {row.instance}: {row.version}" for row in status.services if row.reachable and row.version != __version__}
    if other:
        return Check("version", False, f"this is {__version__}; " + ", ".join(sorted(other)), "bring all to one version")
    return Check("version", True, __version__)


def _owners(placement: Placement) -> Check:
    states = {row.node_id: row.state for row in placement.members if row.phase != "left"}
    detail = ", ".join(f"{name} {state}" for name, state in states.items()) or "no memory node"
    alive = bool(placement.owners) and all(states.get(owner) == "alive" for owner in placement.owners)
    dead = sum(state in ("down", "suspect") for state in states.values())
    if alive and not dead:
        return Check("owners", True, f"{detail}; epoch {placement.epoch}")
    return Check("owners", False, detail, "start the memory nodes that are not alive; their data is on their disks")


def _memory(client: NdmlClient, read_only: bool) -> Iterator[Check]:
    fix = "see that the llm service and the memory nodes run; their logs say more"
    if read_only:
        found, failure = _tried(lambda: client.search(_PROBE_TEXT, user=PROBE_USER))
        yield _failed("memory", failure, fix) if failure else Check("memory", True, f"a search took {found.stats.total_ms:.1f} ms")
        yield Check("clock", None, "needs a write")
        return
    before = datetime.now(UTC)
    added, failure = _tried(lambda: client.add(_PROBE_TEXT, user=PROBE_USER))
    after = datetime.now(UTC)
    if failure:
        yield _failed("memory", failure, fix)
        yield Check("clock", None, "needs a write")
        return
    yield _found_again(client, added.trace_id, fix)
    yield _clock(before, after, added.learned_at)


def _found_again(client: NdmlClient, trace_id: str, fix: str) -> Check:
    found, failure = _tried(lambda: client.search(_PROBE_TEXT, user=PROBE_USER, k=100))
    _, left = _tried(lambda: client.delete(trace_id, user=PROBE_USER, allow_missing=True))
    if failure or left:
        return _failed("memory", failure or left, fix)
    if trace_id not in {hit.memory.trace_id for hit in found}:
        return Check(
            "memory", False, "a memory that was written is not found", "report it with the memory node's log: this must not happen"
        )
    return Check("memory", True, f"written, embedded, found ({found.stats.total_ms:.1f} ms) and removed")


def _clock(before: datetime, after: datetime, there: datetime | None) -> Check:
    if there is None:
        return Check("clock", False, "the server gave no time", "bring gateway and client to one version")
    ahead = there - after if there > after else there - before if there < before else timedelta()
    if abs(ahead) <= _SKEW:
        return Check("clock", True, f"within {_SKEW.total_seconds():.0f} s")
    where = "ahead of" if ahead > timedelta() else "behind"
    return Check("clock", False, f"the server is {abs(ahead).total_seconds():.1f} s {where} this machine", "run NTP on both")


def _tried(action: Callable[[], Any]) -> tuple[Any, NdmlError | None]:
    try:
        return action(), None
    except NdmlError as error:
        return None, error


def _failed(name: str, error: NdmlError | None, fix: str) -> Check:
    return Check(name, False, f"{error.reason}: {error.message}" if error else "", fix)
