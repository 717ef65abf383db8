"""The two transports: stdio, where the client starts this process, and streamable HTTP, where it finds it running."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server import MCPServer
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ndml.errors import FieldInvalid

PATH = "/mcp"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STOP_S = 5  # for answers under way: a tool call takes less, and an idle event stream would wait forever


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Where to listen. `secret`: bearer token that callers need; without one only loopback may be listened on, for whoever reaches the
    port reads and writes the user's memory. `max_sessions`: clients that are connected at once; each costs a task and its buffers.
    """

    host: str = "127.0.0.1"
    port: int = 7790
    secret: str = field(default="", repr=False)
    max_sessions: int = 256


async def serve_stdio(server: MCPServer[Any]) -> None:
    """Serve the process's stdin and stdout until stdin ends. Nothing else may write to stdout."""
    await server.run_stdio_async()


async def serve_http(server: MCPServer[Any], options: HttpOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` gets the URL. Raises FieldInvalid, OSError where the port is taken."""
    if not options.secret and options.host not in _LOOPBACK:
        text = f"whoever reaches {options.host} could read the user's memory: give a secret that callers must send (NDML_MCP_SECRET)"
        raise FieldInvalid(text, field="secret")
    app: ASGIApp = server.streamable_http_app(streamable_http_path=PATH, host=options.host, max_sessions=options.max_sessions)
    if options.secret:
        app = Guarded(app, options.secret)
    # Bound here: with port 0 the real one is known before anybody asks, and a taken one is an error that can be told.
    with socket.create_server((options.host, options.port), family=socket.AF_INET6 if ":" in options.host else socket.AF_INET) as listener:
        host = f"[{options.host}]" if ":" in options.host else options.host
        on_ready(f"http://{host}:{listener.getsockname()[1]}{PATH}")
        config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=_STOP_S, ws="none")
        await uvicorn.Server(config).serve([listener])


class Guarded:
    """Lets through what brings the secret as bearer token."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._wanted = f"Bearer {secret}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not hmac.compare_digest(Headers(scope=scope).get("authorization", "").encode(), self._wanted):
            refusal = JSONResponse({"error": "send the secret as authorization: Bearer"}, 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
