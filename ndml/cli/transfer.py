"""Commands on many memories: export, import, and the file form of add."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from ndml.cli import options as opt
from ndml.cli import records
from ndml.cli.session import Session
from ndml.client import ImportResult
from ndml.errors import FieldInvalid, InvalidArgument

_STDIO = Path("-")


class _Exports(TyperGroup):
    """`ndml export FILE` is `ndml export memories FILE`; the other forms are named. A file of such a name is ./nir."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else ["memories", *args])


exports = typer.Typer(cls=_Exports, help="Write memories to a file: `ndml export FILE` as JSON lines; other forms by name.")


def register(app: typer.Typer) -> None:
    exports.command("memories")(export)
    app.add_typer(exports, name="export")
    app.command("import")(import_)


def add_file(session: Session, file: Path, request_id: str, deduplicate: bool) -> None:
    """Write a conversation file; each line names its user, or --user does."""
    with reading(file) as (lines, total), session.output.progress("adding", total) as ticker, session.client(needs_user=False) as client:
        added = client.add_many(ticker.each(records.new_memories(lines)), request_id=request_id, deduplicate=deduplicate)
    replayed, said = sum(row.replayed for row in added), sum(row.deduplicated for row in added)
    new = len(added) - replayed - said
    result = {"added": new, "replayed": replayed, "deduplicated": said, "trace_ids": [row.trace_id for row in added]}
    parts = [f"{new:,} added", *([f"{replayed:,} there already"] if replayed else []), *([f"{said:,} said already"] if said else [])]
    session.output.result(result, ", ".join(parts))


def export(context: typer.Context, file: opt.File = _STDIO, embedding: opt.WithEmbedding = False) -> None:
    """Write every memory of the scope to a file, one JSON object a line, first learned first."""
    session: Session = context.obj
    with writing(file) as sink, session.output.progress("exporting", None) as ticker, session.client() as client:
        stream = client.export(include_embedding=embedding)
        for memory in ticker.each(stream):
            ticker.total(stream.total)
            sink.write(json.dumps(records.plain(memory), ensure_ascii=False) + "\n")
    if file == _STDIO:
        session.output.note(f"{ticker.count:,} exported")
    else:
        session.output.result({"exported": ticker.count, "file": str(file)}, f"{ticker.count:,} exported to {file}")


def import_(
    context: typer.Context,
    file: opt.File = _STDIO,
    into: Annotated[str, typer.Option(help="Give all of it to this user. Default: each memory's own.", show_default=False)] = "",
) -> None:
    """Take in what export wrote, keeping ids and times; what is there already is left as it is."""
    session: Session = context.obj
    with (
        reading(file) as (lines, total),
        session.output.progress("importing", total) as ticker,
        session.client(needs_user=False) as client,
    ):
        result = client.import_(ticker.each(records.memories(lines)), user=into)
    session.output.result(result, f"{result.imported:,} imported, {result.skipped:,} there already, {result.failed:,} refused")
    _report(session, result)


def _report(session: Session, result: ImportResult) -> None:
    for failure in result.failures:
        session.output.note(f"memory {failure.index + 1}: {failure.error.reason}: {failure.error.message}")
    if result.failed:
        refused = all(isinstance(failure.error, InvalidArgument) for failure in result.failures)
        raise typer.Exit(2 if refused else 1)


@contextmanager
def reading(file: Path) -> Iterator[tuple[TextIO, int | None]]:
    """The file's lines, and how many there are where that can be known beforehand."""
    if file == _STDIO:
        yield sys.stdin, None
        return
    try:
        with file.open("rb") as counted:
            total = sum(chunk.count(b"\n") for chunk in iter(lambda: counted.read(1 << 20), b"")) if file.is_file() else None
        source = file.open(encoding="utf-8")
    except OSError as error:
        raise FieldInvalid(f"cannot read {file}: {error.strerror}", field="file") from None
    with source:
        try:
            yield source, total
        except UnicodeDecodeError as error:
            raise FieldInvalid(f"{file} is not UTF-8: {error.reason} at byte {error.start}", field="file") from None


@contextmanager
def writing(file: Path) -> Iterator[TextIO]:
    """The file, in place only when all of it was written: an export that broke off must not look like a whole one."""
    if file == _STDIO:
        yield sys.stdout
        return
    partial = file.with_name(file.name + ".part")
    try:
        sink = partial.open("w", encoding="utf-8")
    except OSError as error:
        raise FieldInvalid(f"cannot write {partial}: {error.strerror}", field="file") from None
    try:
        with sink:
            yield sink
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
