"""Printing: tables for people, JSON for programs; errors and progress go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ndml.cli.records import plain, plain_error
from ndml.errors import DeadlineExceeded, InvalidArgument, NdmlError, NotFound, Unavailable

T = TypeVar("T")
EXIT_CODES: tuple[tuple[type[NdmlError], int], ...] = ((InvalidArgument, 2), (NotFound, 3), (Unavailable, 4), (DeadlineExceeded, 4))
_FIXES = {
    "OWNER_UNAVAILABLE": "see that the suite runs and --address is right: ndml doctor",
    "DEADLINE_EXCEEDED": "see how the suite is (ndml doctor), or allow more with --timeout",
    "CREDENTIALS_INVALID": "give --token or set NDML_TOKEN",
    "TENANT_DENIED": "give --tenant or set NDML_TENANT",
    "TRACE_NOT_FOUND": "look it up with ndml list; ids belong to one --user",
    "VERSION_CONFLICT": "read it again with ndml get and repeat with its version",
    "REQUEST_ID_REUSED": "take another --request-id",
    "INTERNAL": "look into the service's log; ndml status shows the services",
}


def exit_code(error: NdmlError) -> int:
    """2 wrong input, 3 not found, 4 not reachable or too late, 1 anything else."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def clean(text: str) -> str:
    """Text that a terminal can be shown: a memory may hold escape sequences."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


class Output:
    """Where results go: stdout as tables, or as JSON (one document for a command)."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._out = Console(highlight=False, markup=False)
        self._err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def result(self, value: Any, *shown: RenderableType) -> None:
        """The command's result: `value` as JSON, or what is `shown` to a person."""
        if self.as_json:
            self._out.file.write(json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n")
            return
        for part in shown:
            self._out.print(clean(part) if isinstance(part, str) else part)

    def piece(self, text: str) -> None:
        """Part of a running text; nothing in JSON mode, where the whole comes at the end."""
        if not self.as_json:
            self._out.file.write(clean(text))
            self._out.file.flush()

    def note(self, text: str) -> None:
        """For the person in front of it, beside the result."""
        self._err.print(clean(text))

    def error(self, error: NdmlError) -> None:
        """One line: code, reason, message, field, what to do."""
        if self.as_json:
            sys.stderr.write(json.dumps({"error": plain_error(error)}, ensure_ascii=False) + "\n")
            return
        parts = [f"ndml: {error.code.name} {error.reason}: {error.message}"]
        if error.violations:
            rows = (row.field if row.description == error.message else f"{row.field} ({row.description})" for row in error.violations)
            parts.append("field: " + ", ".join(rows))
        if fix := _FIXES.get(error.reason):
            parts.append(f"fix: {fix}")
        self._err.print(clean(" | ".join(parts)).replace("\n", " "))

    def problem(self, code: str, message: str, fix: str) -> None:
        """As `error`, of what is beside the suite and so not in its tree of errors."""
        if self.as_json:
            sys.stderr.write(json.dumps({"error": {"code": code, "message": message, "fix": fix}}, ensure_ascii=False) + "\n")
            return
        self._err.print(clean(f"ndml: {code}: {message} | fix: {fix}").replace("\n", " "))

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Ticker]:
        """A bar on stderr while the block runs; none where stderr is not a terminal."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._err, transient=True, disable=not self._err.is_terminal) as bar:
            yield Ticker(bar, label, total)


class Ticker:
    """Counts what passes."""

    def __init__(self, bar: Progress, label: str, total: int | None) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=total)
        self.count = 0

    def each(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self.count += 1
            self._bar.advance(self._task)
            yield item

    def total(self, total: int | None) -> None:
        self._bar.update(self._task, total=total)

    def reach(self, count: int, total: int) -> None:
        """Stand at `count` of `total`, where somebody else counts."""
        self.count = count
        self._bar.update(self._task, completed=count, total=total)


def table(*columns: str, rows: Iterable[Iterable[object]], title: str = "") -> Table:
    """A table of plain cells; a column named with a leading ">" is right-aligned, with a leading "=" never cut or wrapped."""
    result = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for name in columns:
        right, whole = name.startswith(">"), name.startswith((">", "="))
        result.add_column(name.lstrip(">="), justify="right" if right else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text(clean(str(cell))) for cell in row))
    return result


def text_and_id(text: str, trace_id: str) -> Text:
    """A memory in one cell: the text has the width, the id stands below it, whole, to be copied."""
    return Text(clean(text)).append(f"\n{trace_id}", style="dim")
