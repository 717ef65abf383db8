"""The last act of a pod: `python -m services.memory_node.leave`, the preStop of the StatefulSet, while the node serves on.

A pod ends for many reasons, and only one of them takes its data away from the suite: its StatefulSet wants fewer pods. So this asks the
API server how many are wanted. A pod past them hands its users over, as `ndml drain` does, and ends when it has LEFT. Any other one ends at
once: it comes back with its volume, whether it was updated, evicted, or scaled to zero with all the others.

Where the API server cannot be asked nothing is moved: the data lies on the volume, which a hand-over only copies. Exit codes: 0 done, or
nothing to do; 1 not handed over, which Kubernetes shows as the event FailedPreStopHook.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from ndml.internal.v1 import memory_node_pb2, memory_node_pb2_grpc, replication_pb2, replication_pb2_grpc
from ndml.runtime.kube_api import ApiError, Cluster, KubeApi
from ndml.runtime.log import configure_logging, get_logger
from ndml.runtime.service import DEFAULT_PORTS
from ndml.runtime.settings import ServiceSettings, load_settings
from ndml.v1 import admin_pb2
from ndml.wire import rpc_error_to_ndml
from services.memory_node.settings import NodeSettings

log = get_logger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_API_S = 5.0  # of one question to the API server; it answers in milliseconds
_API_ATTEMPTS = 3  # a rolling update of the control plane takes one of them away ...
_API_PAUSE_S = 1.0  # ... and another answers within this time
_CALL_S = 10.0  # of one call to the node, which may be busy
_POLL_S = 0.5
_MISSES = 20  # looks without an answer after which the node is taken for gone


class Unanswered(Exception):
    """The API server did not say what is wanted; the message has why, and what to do."""


@dataclass(frozen=True, slots=True)
class Pod:
    """Which pod this is."""

    name: str
    namespace: str

    @property
    def ordinal(self) -> int:
        """Raises ValueError where the name is none of a StatefulSet's."""
        return int(self.name.rpartition("-")[2])


def stays_because(found: Mapping[str, Any] | None, pod: Pod) -> str:
    """Why nothing is handed over; "" where the pod leaves for good. `found`: its StatefulSet, None where there is none any more."""
    if found is None or found.get("metadata", {}).get("deletionTimestamp"):
        return "the StatefulSet is deleted: its volumes stay or go with it"
    spec = found.get("spec", {})
    wanted, first = int(spec.get("replicas", 1)), int(spec.get("ordinals", {}).get("start", 0))
    if wanted == 0:
        return "scaled to zero: nobody stays to hand over to, and the volumes stay"
    if first <= pod.ordinal < first + wanted:
        return f"pod {pod.ordinal} is one of the {wanted} that are wanted: it comes back with its volume"
    return ""


def statefulset(
    name: str, pod: Pod, server: str, account: Path = ACCOUNT, *, sleep: Callable[[float], None] = time.sleep
) -> Mapping[str, Any] | None:
    """The StatefulSet as the API server has it; None where it has none. Raises Unanswered."""
    failure = ""
    for attempt in range(_API_ATTEMPTS):
        sleep(_API_PAUSE_S if attempt else 0.0)
        try:
            return KubeApi(_cluster(server, pod.namespace, account), _API_S).get(
                f"/apis/apps/v1/namespaces/{pod.namespace}/statefulsets/{name}"
            )
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            failure = str(error)
            if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise Unanswered(f"{failure}: give its service account a Role that may get statefulsets.apps/{name}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = str(error)
    raise Unanswered(f"{failure}: does a NetworkPolicy let this pod reach the API server at {server}?")


def _cluster(server: str, namespace: str, account: Path) -> Cluster:
    """The API server at this URL, by what is mounted of a service account."""
    where, authority, token = urlsplit(server), account / "ca.crt", account / "token"
    context = None
    if where.scheme == "https":
        context = ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
    usual = 443 if context is not None else 80
    return Cluster(
        where.hostname or "", where.port or usual, context, lambda: token.read_text().strip() if token.exists() else "", namespace
    )


def open_to(settings: ServiceSettings) -> grpc.aio.Channel:
    """A channel to this pod's own node: plain text, or by the certificate that the node itself shows."""
    port = settings.server.port or DEFAULT_PORTS["ndml-memory-node"]
    host = "127.0.0.1" if settings.server.host in ("0.0.0.0", "[::]", "::") else settings.server.host
    tls = settings.tls
    if tls.cert_file is None or tls.key_file is None:
        return grpc.aio.insecure_channel(f"{host}:{port}")
    chain, key = tls.cert_file.read_bytes(), tls.key_file.read_bytes()
    roots = tls.ca_file.read_bytes() if tls.ca_file else None
    # The certificate has the pod's name in it, not loopback.
    name = tls.server_name or settings.server.advertise.rpartition(":")[0] or host
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    return grpc.aio.secure_channel(f"{host}:{port}", credentials, options=[("grpc.ssl_target_name_override", name)])


async def hand_over(channel: grpc.aio.Channel, timeout_s: float) -> bool:
    """Drain the node at the other end; True once it has LEFT, False where that was not reached. Logs how far it is."""
    door: replication_pb2_grpc.ReplicationServiceAsyncStub = replication_pb2_grpc.ReplicationServiceStub(channel)
    node: memory_node_pb2_grpc.MemoryNodeServiceAsyncStub = memory_node_pb2_grpc.MemoryNodeServiceStub(channel)
    misses, shown, left = 0, -1, -1
    try:
        async with asyncio.timeout(timeout_s):
            request = replication_pb2.SetPhaseRequest(phase=admin_pb2.MEMBER_PHASE_LEAVING)
            phase = (await door.SetPhase(request, timeout=_CALL_S)).phase
            while phase != admin_pb2.MEMBER_PHASE_LEFT:
                await asyncio.sleep(_POLL_S)
                try:
                    status = await node.GetNodeStatus(memory_node_pb2.GetNodeStatusRequest(), timeout=_CALL_S)
                except grpc.aio.AioRpcError as error:
                    misses += 1
                    if misses >= _MISSES:
                        log.error("hand_over_lost", error=rpc_error_to_ndml(error).message, fix=_FIX)
                        return False
                    continue
                phase, left, misses = status.phase, status.owners_to_move, 0
                if left != shown:
                    log.info("handing_over", owners_left=left)
                    shown = left
    except TimeoutError:
        log.error("hand_over_unfinished", owners_left=left, timeout_s=timeout_s, fix=_FIX)
        return False
    except grpc.aio.AioRpcError as error:
        log.error("hand_over_refused", error=rpc_error_to_ndml(error).message, fix=_FIX)
        return False
    log.info("handed_over")
    return True


_FIX = "what is left lies on this pod's volume: scale out again, and the node that comes back joins with it"


def api_server(environment: Mapping[str, str]) -> str:
    """Where pods find the API server. Raises Unanswered outside of a cluster."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise Unanswered("this is no pod (KUBERNETES_SERVICE_HOST is not set): to drain a node elsewhere call `ndml drain NODE`")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def main(arguments: list[str], leave: Callable[[NodeSettings, float], bool]) -> int:
    """Exit code. `leave` hands over: given the settings and the seconds it may take."""
    parser = argparse.ArgumentParser(prog="services.memory_node.leave", description="Hand users over where this pod leaves for good.")
    parser.add_argument("--config", type=Path, help="the node's own settings")
    parser.add_argument("--statefulset", required=True, help="name of the StatefulSet that this pod belongs to")
    parser.add_argument("--timeout", type=float, default=1800.0, help="longest hand-over in seconds (1800)")
    parser.add_argument("--api-server", default="", help="URL of the API server; by default as every pod finds it")
    options = parser.parse_args(arguments)
    settings = load_settings(NodeSettings, options.config)
    configure_logging(settings.logging, "ndml-memory-node-leave", settings.server.instance)
    pod = Pod(os.environ.get("POD_NAME", settings.node.node_id), os.environ.get("POD_NAMESPACE", "default"))
    try:
        server = options.api_server or api_server(os.environ)
        reason = stays_because(statefulset(options.statefulset, pod, server), pod)
    except (Unanswered, ValueError) as error:
        log.error("not_handed_over", pod=pod.name, error=str(error), fix=_FIX)
        return 1
    if reason:
        log.info("nothing_to_hand_over", pod=pod.name, reason=reason)
        return 0
    return 0 if leave(settings, options.timeout) else 1


def _leave(settings: NodeSettings, timeout_s: float) -> bool:
    async def run() -> bool:
        async with open_to(settings) as channel:
            return await hand_over(channel, timeout_s)

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _leave))
