"""As much of a Kubernetes client as following Services takes: GET, and a watch, over the standard library. Blocking: for threads.

The official package is 75 MB in an image and 36 MB in a process; docs/adr/0012 has the figures.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from ndml.errors import FieldInvalid

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MOST_BYTES = 32 << 20
"""Of one answer or one line of a watch: a Service of 1,000 pods is 10 slices of some 60 kB."""
_MOST_ERROR = 64 << 10


class ApiError(Exception):
    """The API server refused: `status` as in HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to reach an API server. `token` is asked before each request: Kubernetes renews it on disk; "" sends none."""

    host: str
    port: int
    context: ssl.SSLContext | None
    token: Callable[[], str]
    namespace: str


class KubeApi:
    """One connection at a time. Raises OSError and http.client.HTTPException from the network, ValueError from what is no JSON."""

    def __init__(self, cluster: Cluster, timeout_s: float) -> None:
        self.cluster = cluster
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._closed = False

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One object or list. Raises ApiError."""
        connection, response = self._ask(path, query or {}, self._timeout_s)
        try:
            body = response.read(_MOST_BYTES + 1)
            if len(body) > _MOST_BYTES:
                raise ValueError(f"{path}: an answer of more than {_MOST_BYTES} bytes")
            return _object(body)
        finally:
            connection.close()

    def watch(self, path: str, query: Mapping[str, str], silence_s: float) -> Iterator[dict[str, Any]]:
        """Events until the server ends the watch, or nothing comes for `silence_s`. Raises ApiError."""
        connection, response = self._ask(path, {**query, "watch": "1"}, silence_s)
        try:
            while line := _line(response):
                if len(line) > _MOST_BYTES:
                    raise ValueError(f"{path}: an event of more than {_MOST_BYTES} bytes")
                if line.strip():
                    yield _object(line)
        finally:
            connection.close()

    def close(self) -> None:
        """End the request under way, and refuse further ones. From any thread."""
        self._closed = True
        if self._socket is not None:
            try:
                # Of the plain socket: TLS would want to say good-bye from this thread while the other one reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                return  # it is closed already

    def _ask(self, path: str, query: Mapping[str, str], silence_s: float) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        cluster = self.cluster
        connection: http.client.HTTPConnection
        if cluster.context is None:
            connection = http.client.HTTPConnection(cluster.host, cluster.port, timeout=self._timeout_s)
        else:
            connection = http.client.HTTPSConnection(cluster.host, cluster.port, timeout=self._timeout_s, context=cluster.context)
        try:
            connection.connect()
            self._socket = opened = connection.sock
            if self._closed:
                raise ConnectionAbortedError("closed")
            token = cluster.token()
            headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
            connection.request("GET", f"{path}?{urlencode(query)}" if query else path, headers=headers)
            response = connection.getresponse()
            if response.status != HTTPStatus.OK:
                raise ApiError(response.status, _message(response))
            opened.settimeout(silence_s)
        except BaseException:
            connection.close()
            raise
        return connection, response


def find_cluster(kubeconfig: Path | None, namespace: str) -> Cluster:
    """The cluster that this pod runs in, or that of a kubeconfig. `namespace` "": the pod's, or the context's. Raises FieldInvalid."""
    return in_cluster(namespace) if kubeconfig is None else _from_kubeconfig(kubeconfig, namespace)


def in_cluster(namespace: str, account: Path = ACCOUNT) -> Cluster:
    """As find_cluster, by a mounted service account."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    token = account / "token"
    if not host or not token.is_file():
        lacks = f"{token} is not there (automountServiceAccountToken)" if host else "KUBERNETES_SERVICE_HOST is not set"
        raise FieldInvalid(
            f"no Kubernetes cluster around this process: {lacks}; outside of one set kubernetes.kubeconfig", field="kubernetes"
        )
    try:
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        namespace = namespace or (account / "namespace").read_text().strip()
        port = int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
    except (OSError, ValueError) as error:
        raise FieldInvalid(f"the service account in {account} cannot be used: {error}", field="kubernetes") from None
    return Cluster(host, port, context, lambda: token.read_text().strip(), namespace)


def _from_kubeconfig(path: Path, namespace: str) -> Cluster:
    """Server, authority, token or client certificate of the current context; what runs programs for its credentials is refused."""
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config, "contexts", "context", config["current-context"])
        cluster = _named(config, "clusters", "cluster", context["cluster"])
        user = _named(config, "users", "user", context["user"])
        if "exec" in user or "auth-provider" in user:
            what = "its user gets credentials from a program: use a token or a client certificate, of a service account say"
            raise FieldInvalid(f"{path}: {what}", field="kubernetes.kubeconfig")
        server = urlsplit(cluster["server"])
        if server.hostname is None or server.scheme not in ("http", "https"):
            raise ValueError(f"{cluster['server']!r} is no http(s) URL")
        tls = _tls_of(path.parent, cluster, user) if server.scheme == "https" else None
        port = server.port or (443 if tls else 80)
        return Cluster(server.hostname, port, tls, _token_of(path.parent, user), namespace or context.get("namespace", "default"))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise FieldInvalid(f"kubeconfig {path} cannot be used: {said}", field="kubernetes.kubeconfig") from None


def _named(config: Any, plural: str, singular: str, name: str) -> dict[str, Any]:
    for entry in config.get(plural) or []:
        if entry["name"] == name:
            return dict(entry[singular])
    raise ValueError(f"no {name!r} among its {plural}")


def _tls_of(folder: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _bytes_of(folder, cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    chain, key = _bytes_of(folder, user, "client-certificate"), _bytes_of(folder, user, "client-key")
    if chain and key:
        with tempfile.TemporaryDirectory() as scratch:  # readable by this user alone
            pem = Path(scratch, "client.pem")
            pem.write_bytes(chain + b"\n" + key)
            context.load_cert_chain(pem, password="")
    return context


def _token_of(folder: Path, user: Mapping[str, Any]) -> Callable[[], str]:
    if file := user.get("tokenFile"):
        return lambda: (folder / file).read_text().strip()
    token = str(user.get("token", ""))
    return lambda: token


def _bytes_of(folder: Path, entry: Mapping[str, Any], key: str) -> bytes:
    if data := entry.get(f"{key}-data"):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise ValueError(f"{key}-data is not base64") from None
    return (folder / entry[key]).read_bytes() if entry.get(key) else b""


def _line(response: http.client.HTTPResponse) -> bytes:
    """The next line; empty at the end, and where none comes in time."""
    try:
        return response.readline(_MOST_BYTES + 1)
    except TimeoutError:
        return b""


def _object(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("the API server sent something that is no object")
    return found


def _message(response: http.client.HTTPResponse) -> str:
    """What a Status says, or what HTTP says."""
    try:
        return str(json.loads(response.read(_MOST_ERROR)).get("message") or response.reason)
    except (ValueError, AttributeError, OSError, http.client.HTTPException):
        return response.reason
