"""`ndml roster`: who may sign updates, as a file that an operator makes, signs and gives to every memory and consensus node."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from ndml.cli.output import table
from ndml.cli.session import Session
from ndml.errors import NotAvailable

if TYPE_CHECKING:
    from ndml.crdt.roster import Roster

FileArgument = Annotated[Path, typer.Argument(help="The roster.", show_default=False)]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Who may sign updates: the file that replication.signing.roster names.", no_args_is_help=True)
    for command in (init, add, remove, sign, show):
        group.command(command.__name__)(command)
    app.add_typer(group, name="roster")


def init(context: typer.Context, file: FileArgument) -> None:
    """Begin a roster that names nobody yet."""
    _show(context, file, _authors().begin(file))


def add(
    context: typer.Context,
    file: FileArgument,
    node: Annotated[str, typer.Argument(help="The memory node's node.node_id.", show_default=False)],
    key: Annotated[
        str, typer.Argument(help="Its key file, made where there is none; or its public key in hexadecimal.", show_default=False)
    ],
    trust: Annotated[int, typer.Option(help="Weight of what it writes where copies disagree; 0: nothing of it is taken.")] = 100,
) -> None:
    """Name a memory node, or change its key or trust. The signature goes: sign the roster again."""
    _show(context, file, _authors().add(file, node, key, trust))


def remove(
    context: typer.Context, file: FileArgument, node: Annotated[str, typer.Argument(help="Its node.node_id.", show_default=False)]
) -> None:
    """Take a memory node off: nothing that it signed is taken any more. What was taken stays."""
    _show(context, file, _authors().remove(file, node))


def sign(
    context: typer.Context,
    file: FileArgument,
    key: Annotated[Path, typer.Argument(help="The operator's key, made where there is none. Keep it off the nodes.", show_default=False)],
) -> None:
    """Sign the roster. Nodes check it where replication.signing.operator has the public key that this shows."""
    made, operator = _authors().sign(file, key)
    _show(context, file, made, operator)


def show(context: typer.Context, file: FileArgument) -> None:
    """Show who stands on it."""
    _show(context, file, _authors().load(file))


def _authors() -> ModuleType:
    """Raises NotAvailable: the client alone has no cryptography."""
    try:
        from ndml.cli import authors
    except ModuleNotFoundError as error:
        raise NotAvailable(f"rosters need the memory node's packages ({error}): pip install 'ndml[memory-node]'") from error
    return authors


def _show(context: typer.Context, file: Path, known: Roster, operator: str = "") -> None:
    session: Session = context.obj
    rows = [(name, author.public_key.hex(), str(author.trust)) for name, author in sorted(known.authors.items())]
    signed = "signed" if known.signature else "NOT SIGNED"
    plain = {name: {"public_key": author.public_key.hex(), "trust": author.trust} for name, author in known.authors.items()}
    facts = {"file": str(file), "version": known.version, "signed": bool(known.signature), "operator": operator, "authors": plain}
    lines = [f"{file}: version {known.version}, {signed}"] + ([f"operator's public key: {operator}"] if operator else [])
    session.output.result(facts, *lines, table("node", "=public key", ">trust", rows=rows))
