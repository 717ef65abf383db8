"""This process's certificate and the authorities it trusts: tried at start as a peer will try them, and read again when they change."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import grpc

from ndml.errors import FieldInvalid
from ndml.runtime import metrics
from ndml.runtime.log import get_logger
from ndml.runtime.settings import TlsSettings

log = get_logger(__name__)

# Both sides of a handshake speak in turns: TLS 1.2 takes two of each, 1.3 fewer.
_TURNS = 4


class Material(NamedTuple):
    """What was read: PEM bytes, and when the certificate ends (Unix seconds). `ca` is empty where no authority is configured."""

    key: bytes
    chain: bytes
    ca: bytes
    expires_at: float


class TlsFiles:
    """Component around the files that the settings name. `current` is replaced whole, and never by what a peer would refuse."""

    def __init__(self, settings: TlsSettings) -> None:
        if settings.cert_file is None or settings.key_file is None:
            raise FieldInvalid("TLS needs a certificate and its key", field="tls.cert_file")
        self.settings = settings
        self.cert_file: Path = settings.cert_file
        self.key_file: Path = settings.key_file
        self._current: Material | None = None
        self._seen: tuple[object, ...] = ()
        self._refused = ""
        self._callbacks: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def current(self) -> Material:
        """Newest files that a peer would accept, read on first use. Raises FieldInvalid. From any thread."""
        return self._current or self._load()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop whenever `current` is another one."""
        self._callbacks.append(callback)

    async def start(self) -> None:
        """Raises FieldInvalid where the files are no use."""
        if self._current is None:
            await asyncio.to_thread(self._load)
        self._task = asyncio.create_task(self._watch(), name="tls-files")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server: every new connection is shown the files of that moment."""
        require = self.settings.client_auth == "require"
        shown: list[tuple[Material, grpc.ServerCertificateConfiguration]] = []

        def configuration() -> grpc.ServerCertificateConfiguration:
            material = self.current
            if not shown or shown[0][0] is not material:
                made = grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.ca if require else None)
                shown[:] = [(material, made)]
            return shown[0][1]

        return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require)

    def http_context(self) -> ssl.SSLContext:
        """For an HTTP server: kept up to date for new connections. Raises FieldInvalid."""
        _ = self.current
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert_file, self.key_file, password="")
        if self.settings.client_auth == "require" and self.settings.ca_file is not None:
            context.load_verify_locations(self.settings.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        # An authority that was taken out of the bundle stays trusted here until the process restarts: contexts only ever gain some.
        self.on_change(lambda: self._refresh(context))
        return context

    def _refresh(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password="")
            if context.verify_mode is ssl.CERT_REQUIRED and self.settings.ca_file is not None:
                context.load_verify_locations(self.settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            log.error("certificate_not_taken", error=str(error), door="rest", meanwhile="new REST connections get the one before")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.settings.reload_s)
            before = self._current
            try:
                if await asyncio.to_thread(self._signature) == self._seen:
                    self._check_time()
                    continue
                await asyncio.to_thread(self._load)
            except FieldInvalid as error:
                self._report(error.message)
                continue
            self._refused = ""
            if self._current is not before:
                for callback in self._callbacks:
                    callback()

    def _check_time(self) -> None:
        if self._current is not None and time.time() >= self._current.expires_at:
            self._report(f"{self.cert_file} has expired and was not renewed: others refuse new connections")

    def _report(self, error: str) -> None:
        """Once for each fault: files may stay wrong for days."""
        if error != self._refused:
            log.error("certificate_not_taken", error=error, meanwhile="the one before stays in use")
        self._refused = error

    def _load(self) -> Material:
        seen, settings = self._signature(), self.settings
        try:
            key, chain = self.key_file.read_bytes(), self.cert_file.read_bytes()
            ca = b"" if settings.ca_file is None else settings.ca_file.read_bytes()
        except OSError as error:
            raise FieldInvalid(f"cannot read {error.filename}: {error.strerror}", field="tls") from None
        own, authority = try_out(self.cert_file, self.key_file, settings.ca_file)
        if self._signature() != seen:
            raise FieldInvalid("the files changed while they were read", field="tls")  # looked at again after reload_s
        material = Material(key, chain, ca, own)
        self._tell(material, authority)
        self._seen, self._current = seen, material
        return material

    def _tell(self, material: Material, authority: float | None) -> None:
        metrics.TLS_EXPIRY.labels("own").set(material.expires_at)
        if authority is not None:
            metrics.TLS_EXPIRY.labels("ca").set(authority)
        left = material.expires_at - time.time()
        write = log.warning if left < self.settings.warn_s else log.info
        write("certificate_read", file=str(self.cert_file), ends_in_days=round(left / 86_400, 1))

    def _signature(self) -> tuple[object, ...]:
        """Of what the paths lead to now: Kubernetes renews a mounted secret by turning a link. Raises FieldInvalid."""
        paths = (self.cert_file, self.key_file, self.settings.ca_file)
        try:
            found = [path.stat() for path in paths if path is not None]
        except OSError as error:
            raise FieldInvalid(f"cannot read {error.filename}: {error.strerror}", field="tls") from None
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)


def try_out(cert_file: Path, key_file: Path, ca_file: Path | None) -> tuple[float, float | None]:
    """A handshake with oneself: when the certificate ends and when the first authority does, in Unix seconds.

    Raises FieldInvalid, as a peer would refuse: a key of another certificate, one that has expired, one of another authority, or one
    that may not stand for servers and clients. Without authorities the certificate is its own.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    try:
        client.load_verify_locations(ca_file or cert_file)
    except (OSError, ssl.SSLError) as error:
        raise FieldInvalid(f"{ca_file or cert_file} has no certificates in PEM form ({_reason(error)})", field="tls.ca_file") from None
    try:
        server.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ssl.SSLError) as error:
        why = _reason(error)
        what = "is not the key of" if "MISMATCH" in why.replace(" ", "_").upper() else "and its certificate cannot be used:"
        raise FieldInvalid(f"{key_file} {what} {cert_file} ({why})", field="tls.key_file") from None
    if ca_file is None:
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    else:
        client.load_cert_chain(cert_file, key_file, password="")
        server.load_verify_locations(ca_file)
        server.verify_mode = ssl.CERT_REQUIRED
    try:
        shown = _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        of = "itself" if ca_file is None else str(ca_file)
        raise FieldInvalid(f"{cert_file} would be refused by {of}: {error.verify_message}", field="tls.cert_file") from None
    except ssl.SSLError as error:
        raise FieldInvalid(f"{cert_file} would be refused: {_reason(error)}", field="tls.cert_file") from None
    return _ends(shown), min((_ends(each) for each in client.get_ca_certs()), default=None) if ca_file else None


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object]:
    """The certificate that the client was shown. Raises ssl.SSLError."""
    upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(downward, upward), server.wrap_bio(upward, downward, server_side=True)]
    for _ in range(_TURNS):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return dict(sides[0].getpeercert() or {})


def _ends(certificate: Mapping[str, object]) -> float:
    return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
