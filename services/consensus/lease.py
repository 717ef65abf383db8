"""Election of a zone's gateway by a Kubernetes Lease: whoever holds it speaks for the zone until it has not been renewed for its duration.

The API server decides between two that want it at once: an update names the version that it replaces, and only one such update succeeds.
A holder that cannot renew stops leading by its own clock before others may take over by theirs. Source: coordination.k8s.io/v1.

Where the API server says that this node may not use Leases, waiting would help nobody: the rule that needs no server decides meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import kubernetes
import urllib3

from ndml.errors import FieldInvalid
from ndml.runtime.log import get_logger
from services.consensus.deltas.elector import Elector
from services.consensus.ports import Clock
from services.consensus.settings import MeshSection

log = get_logger(__name__)

_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_TIMEOUT_S = 4.0  # of one request; below every sensible renewal interval's triple


@dataclass(frozen=True, slots=True)
class LeaseName:
    """Which Lease, and how long it holds."""

    namespace: str
    name: str
    duration_s: float
    renew_s: float


class LeaseElector:
    """Elector. Blocking calls run on threads; `clock` is this node's own, and no other node's is compared with it.

    A Lease held by another is free when this node has seen it unchanged for its duration: clocks of machines need not agree.
    `otherwise` decides while the API server refuses this node altogether.
    """

    def __init__(
        self,
        api: kubernetes.client.CoordinationV1Api,
        lease: LeaseName,
        own: str,
        otherwise: Elector,
        *,
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._api = api
        self._lease = lease
        self._own = own
        self._otherwise = otherwise
        self._clock = clock
        self._rng = rng or random.Random()
        self._leads_until = 0.0
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = 0.0
        self._failing = False
        self._denied = False
        self._stepping = threading.Lock()
        self._task: asyncio.Task[None] | None = None

    def leads(self) -> bool:
        return self._clock() < self._leads_until or (self._denied and self._otherwise.leads())

    async def start(self) -> None:
        """Waits for no API server."""
        self._task = asyncio.create_task(self._run(), name="lease")

    async def stop(self) -> None:
        """Give the Lease back, so that another need not wait."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        if self._clock() < self._leads_until:
            self._leads_until = 0.0
            await self._attempt(release=True)

    async def once(self) -> None:
        """Take, renew or look at the Lease, once."""
        await self._attempt(release=False)

    async def _run(self) -> None:
        while True:
            await self.once()
            await asyncio.sleep(self._lease.renew_s * self._rng.uniform(0.8, 1.0))

    async def _attempt(self, *, release: bool) -> None:
        try:
            await asyncio.to_thread(self._step_alone, release)
        except kubernetes.client.ApiException as error:
            if error.status in _DENIED:
                self._report_denied(error)
            elif error.status != HTTPStatus.CONFLICT:
                self._report(f"{error.status} {error.reason}")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._report(str(error))
        else:
            if self._denied:
                log.info("lease_permitted", lease=self._lease.name)
            self._failing = self._denied = False

    def _report_denied(self, error: kubernetes.client.ApiException) -> None:
        if not self._denied:
            log.error(
                "lease_denied",
                lease=f"{self._lease.namespace}/{self._lease.name}",
                error=f"{error.status} {error.reason}",
                fix="a Role and a RoleBinding that let its service account get, create and update leases.coordination.k8s.io there",
                meanwhile="the smallest name of the zone speaks for it",
            )
        self._denied = True

    def _report(self, error: str) -> None:
        if not self._failing:
            log.warning("lease_unreachable", lease=self._lease.name, error=error)
        self._failing = True

    def _step_alone(self, release: bool) -> None:
        # A step whose task was cancelled runs to its end on its thread.
        with self._stepping:
            self._step(release)

    def _step(self, release: bool) -> None:
        began = self._clock()
        try:
            found = self._api.read_namespaced_lease(self._lease.name, self._lease.namespace, _request_timeout=_TIMEOUT_S)
        except kubernetes.client.ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            if not release:
                self._api.create_namespaced_lease(self._lease.namespace, self._wanted(None, release), _request_timeout=_TIMEOUT_S)
                self._won(began, transition=True)
            return
        if found.spec is None or found.metadata is None:
            raise ValueError(f"the Lease {self._lease.name} has no spec")
        holder, version = found.spec.holder_identity or "", found.metadata.resource_version or ""
        if (holder, version) != self._seen:
            self._seen, self._seen_at = (holder, version), began
        if holder not in ("", self._own) and began - self._seen_at < self._lease.duration_s:
            return
        if release and holder != self._own:
            return
        body = self._wanted(found, release)
        self._api.replace_namespaced_lease(self._lease.name, self._lease.namespace, body, _request_timeout=_TIMEOUT_S)
        if not release:
            self._won(began, transition=holder != self._own)

    def _wanted(self, found: Any | None, release: bool) -> Any:
        """The Lease as it is to be; with the version that it replaces."""
        now = datetime.now(UTC)
        held = found is not None and found.spec.holder_identity == self._own
        spec = kubernetes.client.V1LeaseSpec(
            holder_identity="" if release else self._own,
            lease_duration_seconds=int(self._lease.duration_s),
            acquire_time=found.spec.acquire_time if found is not None and held else now,
            renew_time=now,
            lease_transitions=(found.spec.lease_transitions or 0) + (not held) if found is not None else 0,
        )
        version = found.metadata.resource_version if found is not None else None
        metadata = kubernetes.client.V1ObjectMeta(name=self._lease.name, namespace=self._lease.namespace, resource_version=version)
        return kubernetes.client.V1Lease(metadata=metadata, spec=spec)

    def _won(self, began: float, *, transition: bool) -> None:
        # From before the request: others count from after it.
        self._leads_until = began + self._lease.duration_s
        if transition:
            log.info("lease_taken", lease=self._lease.name, holder=self._own)


def lease_elector(settings: MeshSection, own: str, zone: str, otherwise: Elector) -> LeaseElector:
    """Elector of a zone, by the settings. Raises FieldInvalid where there is no cluster, or no kubeconfig, to find it by."""
    try:
        if settings.lease_kubeconfig is not None:
            kubernetes.config.load_kube_config(str(settings.lease_kubeconfig))  # type: ignore[no-untyped-call]
        else:
            kubernetes.config.load_incluster_config()  # type: ignore[no-untyped-call]
    except (kubernetes.config.ConfigException, OSError) as error:
        text = f"mesh.lease_name needs a Kubernetes cluster ({error}): set mesh.lease_kubeconfig, or leave lease_name empty outside of one"
        raise FieldInvalid(text, field="mesh.lease_name") from error
    # Names of Kubernetes: small letters, digits, dashes.
    suffix = re.sub(r"[^a-z0-9]+", "-", zone.lower()).strip("-")
    name = LeaseName(
        settings.lease_namespace, f"{settings.lease_name}-{suffix}".strip("-"), settings.lease_duration_s, settings.lease_renew_s
    )  # fmt: skip
    return LeaseElector(kubernetes.client.CoordinationV1Api(), name, own, otherwise)
