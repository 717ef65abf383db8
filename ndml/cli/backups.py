"""Commands that take a suite's memory out and in whole: backup, restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ndml.cli import archive
from ndml.cli.output import Ticker
from ndml.cli.session import LONGEST_S, Session
from ndml.errors import FieldInvalid

Target = Annotated[Path, typer.Argument(help="File to write; in a directory it gets a name with the time.", show_default=False)]
Keep = Annotated[
    int, typer.Option(min=0, max=10_000, help="In a directory: newest backups kept, older ones removed once this one is whole. 0: all.")
]
Source = Annotated[Path, typer.Argument(help="File that ndml backup wrote.", show_default=False, exists=True, dir_okay=False)]


def register(app: typer.Typer) -> None:
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(context: typer.Context, file: Target, keep: Keep = 0) -> None:
    """Write every user's memory to one file, while the suite serves; read back and verified before it gets its name."""
    session: Session = context.obj
    if keep and not file.is_dir():
        raise FieldInvalid(f"--keep counts the backups of a directory, and {file} is none", field="keep")
    now = datetime.now(UTC)
    target = file / f"ndml-{now:%Y%m%dT%H%M%SZ}.backup" if file.is_dir() else file
    partial = target.with_name(target.name + ".part")
    try:
        with _opened(partial, "wb") as sink, session.output.progress("owners", None) as ticker:
            _fill(session, sink, now.isoformat(timespec="seconds"), ticker)
        with _opened(partial, "rb") as source:
            written = archive.verified(source)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    removed = _prune(file, keep) if keep else 0
    text = f"{written.owners:,} users, {written.size_bytes:,} bytes in {target}, verified" + (
        f"; {removed} older removed" if removed else ""
    )
    session.output.result({"file": str(target), "removed": removed, **_counts(written)}, text)


def _prune(directory: Path, keep: int) -> int:
    """Remove all backups but the newest `keep`, by the time in their names; how many went. Raises FieldInvalid."""
    old = sorted(directory.glob("ndml-*.backup"))[:-keep]
    try:
        for path in old:
            path.unlink()
    except OSError as error:
        raise FieldInvalid(f"{error.filename}: {error.strerror or error}; the new backup is whole", field="keep") from None
    return len(old)


def restore(
    context: typer.Context,
    file: Source,
    check: Annotated[bool, typer.Option("--check", help="Verify the file, send nothing.")] = False,
) -> None:
    """Join a backup into the suite, whatever its number of nodes. The whole file is verified first; what was erased since stays erased."""
    session: Session = context.obj
    with _opened(file, "rb") as source, session.output.progress("parts", None) as ticker:
        contents = archive.verified(source)
        if check:
            session.output.result({"file": str(file), **_counts(contents)}, f"{contents.owners:,} users of {contents.created_at}: whole")
            return
        ticker.total(contents.parts)
        source.seek(0)
        with session.client(needs_user=False) as client:
            result = client.restore(ticker.each(archive.parts(source)), timeout_s=LONGEST_S)
    text = f"{result.owners:,} users, {result.records:,} records, {result.changed:,} of them new here, {result.verified:,} users verified"
    session.output.result(result, text)
    if result.verified < result.owners:
        rest = result.owners - result.verified
        session.output.note(f"{rest:,} users have another state than the backup: they were written to while it was made, or since")


def _fill(session: Session, sink: BinaryIO, created_at: str, ticker: Ticker) -> None:
    writer = archive.Writer(sink, created_at)
    with session.client(needs_user=False) as client, client.backup(timeout_s=LONGEST_S) as stream:
        for part in stream:
            writer.part(part)
            ticker.reach(stream.owners_done, stream.owners_total or 0)
        writer.close(stream.owners_done)


def _counts(contents: archive.Contents) -> dict[str, object]:
    return {"created_at": contents.created_at, "owners": contents.owners, "parts": contents.parts, "size_bytes": contents.size_bytes}


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[BinaryIO]:
    """Raises FieldInvalid where the disk refuses, also later, when it is full."""
    try:
        with path.open(mode) as file:
            yield file  # type: ignore[misc]
    except OSError as error:
        raise FieldInvalid(f"{path}: {error.strerror or error}", field="file") from None
