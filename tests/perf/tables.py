"""What a benchmark of several parts hands back: rows that have a target, and tables beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Protocol, TypeVar

from tests.perf.bench_suite import Row

__all__ = ["Part", "Row", "Table", "as_json", "as_markdown", "us_each", "us_each_of"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with what has to be known to read it."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(slots=True)
class Part:
    """What one part of a benchmark measured."""

    targets: list[Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


Items = TypeVar("Items", bound="Sliced", contravariant=True)


class Sliced(Protocol):
    """A list or an array: what can be cut into batches."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


def us_each(act: Callable[[Any], object], items: Sliced, size: int) -> float:
    """Microseconds an item: median over calls with `size` items each, after one that warms up."""
    act(items[:size])
    times = []
    for at in range(0, len(items) - size + 1, size):
        part = items[at : at + size]
        began = perf_counter()
        act(part)
        times.append(perf_counter() - began)
    return 1e6 * median(times) / size


def us_each_of(subjects: dict[str, tuple[Callable[[Any], object], Sliced]], size: int, rounds: int) -> dict[str, float]:
    """`us_each` of every subject, in turn, `rounds` times over: the medians, so that what slows the machine slows all of them."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, (act, items) in subjects.items():
            found[name].append(us_each(act, items, size))
    return {name: median(times) for name, times in found.items()}


def as_json(parts: Sequence[Part], machine: dict[str, Any]) -> dict[str, Any]:
    """For a program to read."""
    return {
        "machine": machine,
        "targets": [asdict(row) for part in parts for row in part.targets],
        "tables": [asdict(table) for part in parts for table in part.tables],
    }


def as_markdown(parts: Sequence[Part], above: str) -> str:
    """The page: `above`, the rows with targets, then the tables."""
    head = ("what", "ours", "reference in the same run", "target", "met")
    verdicts = [(r.path, r.ours, r.reference, r.target, "yes" if r.met else "**no**") for part in parts for r in part.targets]
    blocks = [above, _table(head, verdicts)]
    for table in (table for part in parts for table in part.tables):
        blocks += [f"## {table.title}", table.note, _table(table.head, table.rows)]
    return "\n\n".join(blocks) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
