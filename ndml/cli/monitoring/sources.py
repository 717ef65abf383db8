"""Where the monitor reads: AdminService of one gateway, /metrics of each process, and one user's strengths."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from ndml.cli.monitoring.samples import Scrape, Unreadable, parse
from ndml.client import ClusterStatus, NdmlClient, Placement, PlacementMember, ServiceStatus
from ndml.errors import FieldInvalid, NdmlError

METRICS_OFFSET = 1000
# A process on the same network answers within milliseconds; one that hangs must not hold up the others' figures.
FETCH_S = 2.0
# The gateway waits for its peers before it says that they are silent.
CALL_S = 5.0
# What a process exports is below 1 MiB.
MOST_BYTES = 8 << 20
# Threads that read at once, and processes that are read at all: of more the first are.
_READERS, MOST_TARGETS = 16, 256
# Strengths change by the hour, and reading them is a search that the figures count: seldom, and not more traces than this.
STRENGTHS_EVERY_S, MOST_STRENGTHS = 30.0, 500
_ANY_HOST = ("0.0.0.0", "::", "*", "")


@dataclass(frozen=True, slots=True)
class Target:
    """A process's metrics: `name` is its instance where that is known, host:port otherwise."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Strengths:
    """Strengths (0 to 1) of so many of a user's `traces`; `error` says why there are none."""

    user: str
    values: tuple[float, ...] = ()
    traces: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one round found: without a `cluster` there is an `error`; a target's answer is a scrape, or why there is none.

    `services` and `members` are those of the cluster; without one those that were last known, none of the services reachable.
    """

    at_s: float
    cluster: ClusterStatus | None = None
    placement: Placement | None = None
    services: tuple[ServiceStatus, ...] = ()
    members: tuple[PlacementMember, ...] = ()
    error: NdmlError | None = None
    answers: Mapping[Target, Scrape | str] = field(default_factory=dict)
    strengths: Strengths | None = None

    @property
    def silent(self) -> bool:
        """Nothing answered."""
        return self.cluster is None and not any(isinstance(answer, Scrape) for answer in self.answers.values())


def named(texts: Sequence[str]) -> tuple[Target, ...]:
    """[instance=]host:port as it was typed. Raises FieldInvalid."""
    found: dict[str, Target] = {}
    for text in texts:
        name, _, address = text.rpartition("=")
        place = split(address)
        if place is None or (not name and "=" in text):
            raise FieldInvalid(
                f"--metrics is [instance=]host:port, for example memory-node-1=127.0.0.1:8710; got {text!r}", field="metrics"
            )
        target = Target(name or address, *place)
        if target.name in found:
            raise FieldInvalid(f"--metrics names {target.name!r} twice: leave one out", field="metrics")
        found[target.name] = target
    if len(found) > MOST_TARGETS:
        raise FieldInvalid(f"--metrics names {len(found)} processes; at most {MOST_TARGETS} are read", field="metrics")
    return tuple(found.values())


def split(address: str) -> tuple[str, int] | None:
    """host:port, [v6]:port, or either in gRPC's form (dns:///host:port); None where it is none of these."""
    scheme, mark, rest = address.partition(":")
    if mark and scheme in ("dns", "ipv4", "ipv6"):
        address = rest.rpartition("/")[2]
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port) if host and port and not (parts.path or parts.query or parts.fragment or parts.username) else None


def derived(services: Sequence[ServiceStatus], dialled: str) -> tuple[Target, ...]:
    """Metrics at gRPC port + 1000 of each process. One that listens everywhere is where the gateway was `dialled`."""
    found: dict[tuple[str, int], Target] = {}
    for row in services:
        if (place := split(row.address)) is None or place[1] + METRICS_OFFSET > 65_535:
            continue
        host, port = place
        if host in _ANY_HOST:
            host = (split(dialled) or ("127.0.0.1", 0))[0]
        where = (host, port + METRICS_OFFSET)
        found.setdefault(where, Target(row.instance or row.address, *where))
    return tuple(found.values())[:MOST_TARGETS]


def fetch(target: Target, clock: Callable[[], float] = time.monotonic) -> Scrape | str:
    """One process's /metrics, or why there is none, in a few words."""
    deadline = clock() + FETCH_S
    connection = http.client.HTTPConnection(target.host, target.port, timeout=FETCH_S)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        response = connection.getresponse()
        if response.status != 200:
            return f"HTTP {response.status}"
        body = bytearray()
        while part := response.read1(65_536):
            body += part
            if len(body) > MOST_BYTES or clock() > deadline:
                return "too long an answer" if len(body) > MOST_BYTES else "too slow an answer"
        return parse(body.decode(errors="replace"), clock())
    except Unreadable as error:
        return str(error)
    except TimeoutError:
        return "no answer in time"
    except ConnectionRefusedError:
        return "nobody listens"
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


class Sources:
    """Reads all of them. `targets` that were named by hand stand for those that the cluster's status gives; `user` for strengths."""

    def __init__(
        self,
        client: NdmlClient,
        dialled: str,
        *,
        targets: Sequence[Target] = (),
        user: str = "",
        timeout_s: float = CALL_S,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self._client = client
        self._dialled = dialled
        self._named = bool(targets)
        self._targets = tuple(targets)
        self._user = user
        self._timeout_s = min(timeout_s, CALL_S)
        self._clock = clock
        self._chance = chance or random.Random()
        self._services: tuple[ServiceStatus, ...] = ()
        self._members: tuple[PlacementMember, ...] = ()
        self._strengths: Strengths | None = None
        self._strengths_at_s = float("-inf")

    def read(self) -> Reading:
        """One round: the status, then every process's metrics at once. Never raises for what is away."""
        cluster, placement, error = None, None, None
        try:
            cluster = self._client.cluster_status(timeout_s=self._timeout_s)
            placement = self._client.placement(timeout_s=self._timeout_s)
        except NdmlError as failure:
            cluster, error = None, failure
            self._services = tuple(replace(row, reachable=False, error="", details={}) for row in self._services)
        if cluster is not None and placement is not None:
            self._services, self._members = cluster.services, placement.members
        if cluster is not None and not self._named:
            self._targets = derived(cluster.services, self._dialled) or self._targets
        with ThreadPoolExecutor(max_workers=_READERS) as readers:
            answers = dict(zip(self._targets, readers.map(lambda target: fetch(target, self._clock), self._targets), strict=True))
        known = (self._services, self._members)
        return Reading(self._clock(), cluster, placement, *known, error, answers, self._read_strengths())

    def _read_strengths(self) -> Strengths | None:
        """Now and then anew: other traces each time, where the user has more than are read."""
        if not self._user or self._clock() < self._strengths_at_s + STRENGTHS_EVERY_S:
            return self._strengths
        self._strengths_at_s = self._clock()
        try:
            about = self._client.stats(timeout_s=self._timeout_s)
            values: tuple[float, ...] = ()
            if about.traces and about.dimension:
                # Whatever lies nearest to a random direction: no other call gives strengths of many traces.
                anywhere = [self._chance.gauss(0.0, 1.0) for _ in range(about.dimension)]
                hits = self._client.search(
                    embedding=anywhere, k=MOST_STRENGTHS, mode="dense", include_strength=True, timeout_s=self._timeout_s
                )
                values = tuple(hit.memory.strength.strength for hit in hits if hit.memory.strength is not None)
            self._strengths = Strengths(self._user, values, about.traces)
        except NdmlError as error:
            self._strengths = Strengths(self._user, error=error.message)
        return self._strengths
