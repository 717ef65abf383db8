"""Replicas of a service as Kubernetes sees them: its EndpointSlices, listed once and watched from then on.

The API server is not needed to serve: while it is away what was known last stays, and before anything was known the configured addresses.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from ndml.errors import FieldInvalid
from ndml.runtime import metrics
from ndml.runtime.addresses import Addresses
from ndml.runtime.kube_api import ApiError, KubeApi, find_cluster
from ndml.runtime.log import get_logger
from ndml.runtime.settings import KubernetesSettings

if TYPE_CHECKING:
    from ndml.runtime.service import Service

log = get_logger(__name__)

ZONE_LABEL = "topology.kubernetes.io/zone"
_SERVICE_LABEL = "kubernetes.io/service-name"
_PORT_NAME = "grpc"
_SHORT_S = 1.0
"""A watch that ends sooner counts as a failure: something between us and the API server does not let it live."""
_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_AWAY = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)
"""What a request raises when the API server is not there, or says what it should not: JSON of another shape is the last three."""


class Endpoint(NamedTuple):
    """A replica: host:port, its zone and its pod, "" where the slice does not say; and whether it takes new work."""

    address: str
    zone: str
    pod: str
    ready: bool


@dataclass(slots=True)
class _Known:
    """Slices by name, and the version of the list up to which they are known; "" before the first list."""

    slices: dict[str, dict[str, Any]]
    version: str = ""


class _Expired(Exception):
    """The version from which we watch is no longer kept: list again."""


class ServiceEndpoints(Addresses):
    """Component. The addresses of a Service's ready replicas; where none is ready, of those that still serve while they end.

    `without_pod` is left out: a service that follows itself does not call itself.
    """

    def __init__(
        self,
        service: str,
        settings: KubernetesSettings,
        fallback: Sequence[str],
        without_pod: str = "",
        *,
        rng: random.Random | None = None,
    ) -> None:
        """Raises FieldInvalid where there is no cluster."""
        super().__init__(fallback)
        self.service = service
        self._settings = settings
        self._without_pod = without_pod
        self._rng = rng or random.Random()
        self._cluster = find_cluster(settings.kubeconfig, settings.namespace)
        self._api = KubeApi(self._cluster, settings.timeout_s)
        self._known = _Known({})
        self._zones: dict[str, str] = {}
        self._stopping = threading.Event()
        self._fault = ""
        self._thread: threading.Thread | None = None
        self._listed = asyncio.Event()

    @property
    def expected(self) -> bool:
        return True

    def zone_of(self, address: str) -> str:
        return self._zones.get(address, "")

    async def start(self) -> None:
        """Wait for the first list, but not for long: the API server may be away, and this process serves without it."""
        loop = asyncio.get_running_loop()
        metrics.DISCOVERY_FOLLOWING.labels(self.service).set(0)
        self._thread = threading.Thread(target=self._run, args=(loop,), name=f"endpoints-{self.service}", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(self._settings.first_s):
                await self._listed.wait()
        except TimeoutError:
            log.warning("endpoints_unknown", service=self._name, meanwhile=f"the configured addresses: {', '.join(self) or 'none'}")

    async def stop(self) -> None:
        self._stopping.set()
        self._api.close()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._settings.timeout_s)

    @property
    def _name(self) -> str:
        return f"{self._cluster.namespace}/{self.service}"

    @property
    def _path(self) -> str:
        return f"/apis/discovery.k8s.io/v1/namespaces/{self._cluster.namespace}/endpointslices"

    # On the thread

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        failures = 0
        while not self._stopping.is_set():
            verb, began = ("watch" if self._known.version else "list"), time.monotonic()
            try:
                if verb == "watch":
                    self._watch(loop)
                    failures = 0 if time.monotonic() - began >= _SHORT_S else failures + 1
                else:
                    self._list(loop)
                    failures = 0
            except _Expired:
                self._known.version = ""  # what is known stays until the new list is there
            except ApiError as error:
                failures += 1
                if error.status == HTTPStatus.GONE:
                    self._known.version = ""
                self._report_refused(error, verb)
            except _AWAY as error:
                failures += 1
                self._report(f"{type(error).__name__}: {error}")
            longest = min(self._settings.backoff_max_s, self._settings.backoff_min_s * 2 ** min(failures, 16))
            self._stopping.wait(longest * self._rng.uniform(0.5, 1.0))

    def _list(self, loop: asyncio.AbstractEventLoop) -> None:
        found = self._api.get(self._path, {"labelSelector": f"{_SERVICE_LABEL}={self.service}"})
        slices = {str(item["metadata"]["name"]): item for item in _dicts(found.get("items"))}
        self._known = _Known(slices, _version(found))
        self._heard()
        self._publish(loop)
        loop.call_soon_threadsafe(self._listed.set)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until it ends; it is begun again from there."""
        query = {
            "labelSelector": f"{_SERVICE_LABEL}={self.service}",
            "resourceVersion": self._known.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(self._settings.watch_s)),
        }
        for event in self._api.watch(self._path, query, self._settings.silence_s):
            self._heard()
            if self._take(event):
                self._publish(loop)

    def _take(self, event: Mapping[str, Any]) -> bool:
        """True when slices changed. Raises _Expired, ApiError."""
        kind, item = event.get("type"), event.get("object")
        if not isinstance(item, dict):
            raise ValueError(f"an event without an object: {kind}")
        if kind == "ERROR":
            status = int(item.get("code") or HTTPStatus.INTERNAL_SERVER_ERROR)
            if status == HTTPStatus.GONE:
                raise _Expired
            raise ApiError(status, str(item.get("message", "the watch failed")))
        self._known.version = _version(item)
        if kind == "BOOKMARK":
            return False
        name = str(item["metadata"]["name"])
        if kind == "DELETED":
            self._known.slices.pop(name, None)
        else:
            self._known.slices[name] = item
        return True

    def _publish(self, loop: asyncio.AbstractEventLoop) -> None:
        found = [each for each in endpoints_of(self._known.slices.values(), self.service) if each.pod != self._without_pod or not each.pod]
        usable = [each for each in found if each.ready] or found
        if len(usable) > self._settings.most_endpoints:
            log.error("endpoints_cut", service=self._name, found=len(usable), kept=self._settings.most_endpoints)
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._accept, usable[: self._settings.most_endpoints])

    def _heard(self) -> None:
        metrics.DISCOVERY_FOLLOWING.labels(self.service).set(1)
        if self._fault:
            log.info("endpoints_followed_again", service=self._name)
        self._fault = ""

    def _report_refused(self, error: ApiError, verb: str) -> None:
        if error.status in _DENIED:
            fix = "a Role and a RoleBinding that let this service account list and watch endpointslices.discovery.k8s.io there"
            self._report(f"may not {verb} endpointslices.discovery.k8s.io in namespace {self._cluster.namespace} ({error.status})", fix)
        elif error.status != HTTPStatus.GONE:
            self._report(str(error))

    def _report(self, fault: str, fix: str = "") -> None:
        """Once for each fault that lasts."""
        if self._stopping.is_set():
            return
        metrics.DISCOVERY_FOLLOWING.labels(self.service).set(0)
        if fault != self._fault:
            meanwhile = "the addresses known last" if self._listed.is_set() else "the configured addresses"
            hint = {"fix": fix} if fix else {}
            (log.error if fix else log.warning)("endpoints_not_followed", service=self._name, error=fault, meanwhile=meanwhile, **hint)
        self._fault = fault

    # On the event loop

    def _accept(self, endpoints: Sequence[Endpoint]) -> None:
        before, now = set(self), {each.address for each in endpoints}
        self._zones = {each.address: each.zone for each in endpoints}
        metrics.DISCOVERED.labels(self.service).set(len(now))
        if before != now:
            log.info("endpoints", service=self._name, now=len(now), new=sorted(now - before), gone=sorted(before - now))
        self._replace(sorted(now))


def endpoints_of(slices: Iterable[Mapping[str, Any]], service: str) -> list[Endpoint]:
    """Replicas that serve, each once. Of a dual-stack Service the IPv4 addresses: the pods are the same."""
    by_family: dict[str, dict[str, Endpoint]] = {}
    for item in slices:
        port = _port_of(item, service)
        if port:
            found = by_family.setdefault(str(item.get("addressType", "IPv4")), {})
            for entry in _dicts(item.get("endpoints")):
                found.update({each.address: each for each in _endpoint(entry, port)})
    for family in ("IPv4", "IPv6", "FQDN"):
        if by_family.get(family):
            return list(by_family[family].values())
    return []


def _port_of(item: Mapping[str, Any], service: str) -> int:
    """The port named grpc, or the only one there is; 0 where there is none of these."""
    ports = _dicts(item.get("ports"))
    named = [port for port in ports if port.get("name") == _PORT_NAME] or (ports if len(ports) == 1 else [])
    if ports and not named:
        log.error("endpoints_without_port", service=service, fix=f"name the Service's gRPC port {_PORT_NAME!r}")
    return int(named[0].get("port") or 0) if named else 0


def _endpoint(entry: Mapping[str, Any], port: int) -> list[Endpoint]:
    """Conditions that are not there: ready is yes, and serving as ready."""
    conditions = entry.get("conditions") or {}
    ready = conditions.get("ready") is not False
    hosts = entry.get("addresses") or []
    if not hosts or not (ready or conditions.get("serving")):
        return []
    host = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
    pod = (entry.get("targetRef") or {}).get("name") or ""
    return [Endpoint(f"{host}:{port}", entry.get("zone") or "", pod, ready)]


def follow_service(service: Service, name: str, settings: KubernetesSettings, configured: Sequence[str], own_pod: str = "") -> Addresses:
    """The replicas of the Kubernetes Service `name`, attached to `service`; where it is "", those that are configured.

    Raises FieldInvalid where there is no cluster.
    """
    return service.attach(ServiceEndpoints(name, settings, configured, own_pod)) if name else Addresses(configured)


def zone_of_node(settings: KubernetesSettings) -> str:
    """Zone of the node that this pod runs on, "" where it cannot be told; the log says why. Blocks for a moment. Raises FieldInvalid."""
    node = os.environ.get("NODE_NAME", "")
    if not node:
        raise FieldInvalid("set NODE_NAME in the pod by the downward API (spec.nodeName)", field="kubernetes.zone_from_node")
    meanwhile = "server.zone stays as it is configured; a memory node keeps the zone that it had"
    try:
        found = KubeApi(find_cluster(settings.kubeconfig, settings.namespace), settings.timeout_s).get(f"/api/v1/nodes/{node}")
    except ApiError as error:
        fix = "a ClusterRole and a ClusterRoleBinding that let this service account get nodes" if error.status in _DENIED else ""
        log.error("zone_unknown", node=node, error=f"may not get nodes ({error})" if fix else str(error), fix=fix, meanwhile=meanwhile)
        return ""
    except _AWAY as error:
        log.error("zone_unknown", node=node, error=f"{type(error).__name__}: {error}", meanwhile=meanwhile)
        return ""
    zone = str(((found.get("metadata") or {}).get("labels") or {}).get(ZONE_LABEL) or "")
    if not zone:
        log.error("zone_unknown", node=node, error=f"the node has no label {ZONE_LABEL}", meanwhile=meanwhile)
    return zone


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [each for each in found or [] if isinstance(each, dict)]


def _version(item: Mapping[str, Any]) -> str:
    """Raises ValueError where a list or an object has none: it could not be watched from there."""
    version = (item.get("metadata") or {}).get("resourceVersion")
    if not version:
        raise ValueError("the API server gave no resourceVersion")
    return str(version)
