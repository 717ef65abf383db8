"""The command tree and its global options."""

from __future__ import annotations

import itertools
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ndml import __version__
from ndml.cli import (
    admin,
    backups,
    chat,
    doctor,
    learning,
    mcp,
    memories,
    models,
    monitor,
    neuromorphic,
    rosters,
    trace,
    train,
    transfer,
    tune,
)
from ndml.cli.output import Output, exit_code
from ndml.cli.session import Session
from ndml.client import DEFAULT_ADDRESS, Tls
from ndml.errors import NdmlError


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"


app = typer.Typer(
    name="ndml",
    help="Long-term memory for LLM applications, from the terminal.",
    epilog="The options above may stand anywhere. Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 not found, "
    "4 not reachable or too late.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (memories, learning, transfer, neuromorphic, chat, mcp, admin, monitor, backups, rosters, doctor, trace, train, tune, models):
    module.register(app)


@app.callback()
def options(
    context: typer.Context,
    address: Annotated[str, typer.Option("--address", "-a", envvar="NDML_ADDRESS", help="Gateway, host:port.")] = DEFAULT_ADDRESS,
    tenant: Annotated[str, typer.Option(envvar="NDML_TENANT", help="Customer of the deployment.", show_default=False)] = "",
    user: Annotated[str, typer.Option("--user", "-u", envvar="NDML_USER", help="Whose memory.", show_default=False)] = "",
    agent: Annotated[str, typer.Option(envvar="NDML_AGENT", help="Narrows to one agent.", show_default=False)] = "",
    session: Annotated[str, typer.Option(envvar="NDML_SESSION", help="Narrows to one conversation.", show_default=False)] = "",
    token: Annotated[str, typer.Option(envvar="NDML_TOKEN", help="Credential.", show_default=False, show_envvar=True)] = "",
    consistency: Annotated[
        str,
        typer.Option(
            envvar="NDML_CONSISTENCY", help="Copies that take part: one, quorum or all. Default: the suite's.", show_default=False
        ),
    ] = "",
    output: Annotated[
        Form, typer.Option("--output", "-o", envvar="NDML_OUTPUT", help="Tables for people, JSON for programs.")
    ] = Form.TABLE,
    timeout: Annotated[float, typer.Option(help="Seconds for one call.", min=0.001)] = 10.0,
    tls: Annotated[bool, typer.Option("--tls", envvar="NDML_TLS", help="Encrypt, trusting gRPC's own roots.")] = False,
    tls_roots: Annotated[Path | None, typer.Option(envvar="NDML_TLS_ROOTS", help="Encrypt, trusting this PEM file.")] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(envvar="NDML_TLS_CERTIFICATE", help="PEM file to show a server that asks who calls; with --tls-key.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(envvar="NDML_TLS_KEY", help="Its private key.")] = None,
    tls_server_name: Annotated[
        str, typer.Option(envvar="NDML_TLS_SERVER_NAME", help="Name in the server's certificate, if not the address.", show_default=False)
    ] = "",
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda given: _version(given))
    ] = False,
) -> None:
    shown = Output(as_json=output is Form.JSON)
    files = any((tls, tls_roots, tls_certificate, tls_key, tls_server_name))
    encrypted = Tls(tls_roots, tls_key, tls_certificate, tls_server_name) if files else None
    context.obj = Session(address, tenant, user, agent, session, token, timeout, encrypted, shown, consistency)


def run(arguments: list[str]) -> int:
    """Run one command line; gives the exit code, prints errors, never raises for what a user can cause."""
    ordered = hoist(arguments)
    try:
        app(ordered, prog_name="ndml")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except NdmlError as error:
        Output(as_json=_wants_json(ordered)).error(error)
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    return 0


def hoist(arguments: list[str]) -> list[str]:
    """The global options first, wherever they stood: `ndml add x --user ann` is as good as `ndml --user ann add x`."""
    valued = {
        "--address",
        "-a",
        "--tenant",
        "--user",
        "-u",
        "--agent",
        "--session",
        "--token",
        "--consistency",
        "--output",
        "-o",
        "--timeout",
        "--tls-roots",
        "--tls-certificate",
        "--tls-key",
        "--tls-server-name",
    }
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for word in waiting:
        if word == "--":
            rest += [word, *waiting]
        elif word in valued:
            front += [word, *([value] if (value := next(waiting, None)) is not None else [])]
        elif word == "--tls" or word.partition("=")[0] in valued or word[:2] in ("-a", "-u", "-o"):
            front.append(word)
        else:
            rest.append(word)
    return front + rest


def _wants_json(ordered: list[str]) -> bool:
    given = [value for word, value in itertools.pairwise(ordered) if word in ("-o", "--output")]
    given += [word.partition("=")[2] for word in ordered if word.startswith("--output=")]
    return (given or [os.environ.get("NDML_OUTPUT", "")])[-1] == Form.JSON


def _version(given: bool) -> None:
    if given:
        sys.stdout.write(f"ndml {__version__}\n")
        raise typer.Exit
