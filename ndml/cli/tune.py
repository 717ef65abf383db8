"""ndml tune: weights of the signals out of a user's own feedback, written only where they are better on questions that they did not see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from ndml.cli import records
from ndml.cli.output import table
from ndml.cli.session import Session
from ndml.cli.transfer import reading, writing
from ndml.errors import FieldInvalid

if TYPE_CHECKING:
    from ndml.cli.tuning.tuning import Outcome, Side

_MOST_CHARACTERS, _LONGEST_LINE = 64 << 20, 1 << 17
_STDOUT = Path("-")


def register(app: typer.Typer) -> None:
    app.command("tune")(tune)


def tune(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help='JSON lines of {"query", "helpful": [ids], "scope": {"user", …}, "at"}; - is stdin.', allow_dash=True)
    ],
    out: Annotated[Path, typer.Option(help="YAML file to write; - is stdout.", allow_dash=True)] = _STDOUT,
    k: Annotated[int, typer.Option("-k", help="Hits asked for with each question.", min=10, max=200)] = 50,
    seed: Annotated[int, typer.Option(help="Of the bootstrap: the same seed gives the same interval.", min=0)] = 0,
) -> None:
    """Learn the weights of the signals from questions and the memories that helped; writes settings of the memory node, or says why not."""
    from ndml.cli.tuning.asking import Asker
    from ndml.cli.tuning.tuning import ROUNDS, tuned

    session: Session = context.obj
    with reading(file) as (source, _):
        asked = list(records.feedback(_bounded(source)))
    nobody = next((each.line for each in asked if not (each.scope.user or session.user)), None)
    if nobody is not None:
        raise FieldInvalid(f"line {nobody}: say whose memory: scope.user, or --user for all", field=f"line {nobody}.scope.user")
    most = len(asked) * (ROUNDS + 1)
    with session.output.progress("asking", most) as ticker, session.client(needs_user=False) as client:
        outcome = tuned(Asker(client, k), asked, seed, lambda count: ticker.reach(count, most))
    page = fragment(outcome)
    written = outcome.better and out != _STDOUT
    if written:
        with writing(out) as sink:
            sink.write(page)
    result = {**asdict(outcome), "fragment": page if outcome.better else "", "file": str(out) if written else ""}
    if out == _STDOUT and not session.output.as_json:
        session.output.piece(page)
    else:
        session.output.result(result, _table(outcome), "", *(_lines(outcome)), *([f"written to {out}"] if written else []))


def fragment(outcome: Outcome) -> str:
    """YAML for the memory node's --config: the weights that changed under `ranking`, behind comments that say where they come from. Nothing
    but comments where the learned ones are not better."""
    rows = [("", "n", "mrr", "recall@10", "learned mrr", "recall@10"), *_rows(outcome)]
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    comments = [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, wide, strict=True)))
        for row in rows
    ]
    head = [f"# {line}".rstrip() for line in ("ndml tune", *comments, *_lines(outcome))]
    weights = [f"  {name}: {weight:g}  # {outcome.weights[name]:g} before" for name, weight in outcome.learned.items()]
    return "\n".join([*head, *(["ranking:", *weights] if outcome.better else [])]) + "\n"


def _bounded(source: TextIO) -> Iterator[str]:
    """Its lines. Raises FieldInvalid past the bounds, before they are in memory."""
    left = _MOST_CHARACTERS
    lines: Iterable[str] = iter(lambda: source.readline(_LONGEST_LINE + 1), "")
    for number, line in enumerate(lines, 1):
        left -= len(line)
        if len(line) > _LONGEST_LINE or left < 0:
            limit = f"{_LONGEST_LINE:,} characters a line" if len(line) > _LONGEST_LINE else f"{_MOST_CHARACTERS:,} characters a file"
            raise FieldInvalid(f"line {number}: longer than {limit}", field=f"line {number}")
        yield line


def _table(outcome: Outcome) -> Any:
    return table("=", ">n", ">mrr", ">recall@10", ">learned mrr", ">recall@10", rows=_rows(outcome))


def _rows(outcome: Outcome) -> list[tuple[str, ...]]:
    return [(name, *_cells(side)) for name, side in (("train", outcome.train), ("held out", outcome.held_out))]


def _cells(side: Side) -> tuple[str, ...]:
    return (f"{side.questions:,}", *(f"{value:.3f}" for value in chain(side.default, side.learned)))


def _lines(outcome: Outcome) -> list[str]:
    from ndml.cli.tuning.asking import LEFT_ALONE, SHIPPED

    gain = outcome.gain
    changed = ", ".join(f"{name} {outcome.weights[name]:g} -> {weight:g}" for name, weight in outcome.learned.items())
    unseen = [name for name in SHIPPED if name not in outcome.weights and name not in LEFT_ALONE]
    return [
        f"gain of mrr, held out: {gain.mean:+.3f}, 95 % of a paired bootstrap {gain.low:+.3f} to {gain.high:+.3f}, seed {outcome.seed}",
        *([f"learned: {changed}"] if changed else []),
        f"left alone: {', '.join(LEFT_ALONE)}{'; shown by no hit: ' * bool(unseen)}{', '.join(unseen)}",
        *(
            [f"of {outcome.missed:,} lines no helpful memory was among the hits: they teach nothing; a larger -k may show more"]
            if outcome.missed
            else []
        ),
        f"{outcome.why}: {'the weights are below' if outcome.better else 'nothing is written, the weights in force stay'}",
    ]
