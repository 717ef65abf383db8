"""ndml mcp: the user's memory as tools for an assistant."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from ndml.cli.session import Session
from ndml.client import AsyncNdmlClient
from ndml.errors import FieldInvalid, NotAvailable


class Transport(StrEnum):
    STDIO = "stdio"
    HTTP = "http"


def register(app: typer.Typer) -> None:
    app.command("mcp")(mcp)


def mcp(
    context: typer.Context,
    transport: Annotated[Transport, typer.Option(help="stdio: the assistant starts this; http: it finds it at a URL.")] = Transport.STDIO,
    host: Annotated[str, typer.Option(help="http: address to listen on; other than loopback only with a secret.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="http: port; 0: any free one.", min=0, max=65535)] = 7790,
    secret: Annotated[
        str, typer.Option(envvar="NDML_MCP_SECRET", help="http: bearer token that callers must send.", show_default=False)
    ] = "",
) -> None:
    """Serve one user's memory over the Model Context Protocol: add, search, list, forget and grade memories."""
    session: Session = context.obj
    if not session.user:
        raise FieldInvalid("say whose memory: give --user or set NDML_USER", field="user")
    asyncio.run(_serve(session, transport, host, port, secret))


async def _serve(session: Session, transport: Transport, host: str, port: int, secret: str) -> None:
    try:
        from ndml.mcp import HttpOptions, build_server, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        raise NotAvailable(f"{error.name} is not installed: pip install 'ndml[mcp]'") from error
    async with _client(session) as client:
        server = build_server(client)
        if transport is Transport.STDIO:
            await serve_stdio(server)
        else:
            try:
                await serve_http(server, HttpOptions(host, port, secret), lambda url: session.output.note(f"MCP at {url}, Ctrl-C ends it"))
            except OSError as error:
                raise FieldInvalid(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port", field="port") from error


def _client(session: Session) -> AsyncNdmlClient:
    return AsyncNdmlClient(
        session.address,
        tenant=session.tenant,
        token=session.token,
        user=session.user,
        agent=session.agent,
        session=session.session,
        timeout_s=session.timeout_s,
        options=session.client_options,
    )
