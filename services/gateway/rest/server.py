"""uvicorn as a component of the service: no signal handlers, no process of its own, a bounded drain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from ndml.runtime.log import get_logger
from ndml.runtime.tls import TlsFiles
from services.gateway.rest.settings import RestSettings

_log = get_logger(__name__)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the service."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class RestServer:
    """Serves `app` on host:port between start() and stop()."""

    def __init__(self, app: ASGIApp, settings: RestSettings, tls: TlsFiles | None = None) -> None:
        """tls: speak TLS with this certificate, renewed ones included; None: plain text."""
        self._app = app
        self._tls = tls
        self._settings = settings
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken, FieldInvalid from TLS files. `port` is the real one afterwards."""
        # Bound here: uvicorn itself would leave the process when the port is taken.
        listener = socket.create_server((self._settings.host, self._settings.port), backlog=2048)
        self.port = listener.getsockname()[1]
        self._server = _Server(self._config())
        self._task = asyncio.create_task(self._server.serve([listener]), name="rest-server")
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            await self._task
        _log.info("rest_listening", host=self._settings.host, port=self.port)

    async def stop(self) -> None:
        """Stop listening, let calls under way finish within `drain_s`, then cancel them."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._server = self._task = None
        _log.info("rest_stopped", port=self.port)

    def _config(self) -> uvicorn.Config:
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=self._settings.max_connections,
            timeout_keep_alive=self._settings.keep_alive_s,
            # An int for uvicorn's types; it hands the value to asyncio.wait_for.
            timeout_graceful_shutdown=max(1, round(self._settings.drain_s)),
        )
        config.load()
        if self._tls is not None:
            config.ssl = self._tls.http_context()  # one context for as long as we listen: its certificate is exchanged in place
        return config
