"""ndml train: teach a frozen model to read memory. A process of its own does the work: the terminal stays light, Ctrl-C loses nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ndml.cli.output import Output, Ticker, table
from ndml.cli.session import Session
from ndml.errors import BY_REASON, FieldInvalid, InternalFault, NotAvailable

STOPPED = 130
_NEEDS = ("torch", "transformers", "tokenizers", "safetensors", "yaml")


class Way(StrEnum):
    ADAPTER = "adapter"
    PREFIX = "prefix"
    PROMPT = "prompt"


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Settings as YAML; options below come on top.")] = None,
    model: Annotated[str | None, typer.Option(help="ndml-tiny, a directory, a hub id, or builtin:entities.")] = None,
    data: Annotated[str | None, typer.Option(help="JSONL of {memories, question, answer, used}, or builtin:entities.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run; one that is there goes on.")] = None,
    way: Annotated[Way | None, typer.Option(help="What is trained: adapter, prefix (projector), prompt (the model, by LoRA).")] = None,
    steps: Annotated[int | None, typer.Option(help="At most.", min=1)] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Of all runs of it together.", min=0)] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Change the model too, by LoRA of this rank; 0: it stays frozen.", min=0)] = None,
    embedder: Annotated[str | None, typer.Option(help="Makes vectors for memories that bring none.")] = None,
    tensorboard: Annotated[bool | None, typer.Option("--tensorboard/--no-tensorboard", help="Write its logs as well.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting, nested ones with a dot.", metavar="NAME=VALUE")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard the run that is in the folder.")] = False,
) -> None:
    """Train a reader of memory, or go on with one that was cut off. Ctrl-C saves and ends; the same command resumes."""
    session: Session = context.obj
    given = {
        "model": model,
        "data": data,
        "out": out,
        "way": way.value if way else None,
        "steps": steps,
        "max_seconds": None if max_minutes is None else max_minutes * 60,
        "lora.rank": lora_rank,
        "embedder": embedder,
        "tensorboard": tensorboard,
    }
    wanted = {name: value for name, value in given.items() if value is not None} | pairs(settings or [])
    report = _followed(session.output, _command(config, wanted, fresh))
    session.output.result(report, *_shown(report))


def pairs(settings: list[str]) -> dict[str, Any]:
    """["lora.rank=8", …] with values as JSON where they are JSON, texts otherwise. Raises FieldInvalid."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise FieldInvalid(f"a setting is name=value, got {setting!r}", field="set")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _command(config: Path | None, wanted: Mapping[str, Any], fresh: bool) -> list[str]:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise NotAvailable(f"training needs {', '.join(missing)}, not installed: pip install 'ndml[train]'")
    command = [sys.executable, "-m", "ndml.training", "--settings", json.dumps(wanted)]
    return command + (["--config", str(config)] if config else []) + (["--fresh"] if fresh else [])


def _followed(output: Output, command: list[str]) -> dict[str, Any]:
    """The run's report. Raises what it refused with; typer.Exit where it was stopped."""
    report: dict[str, Any] = {}
    with _worker(command) as process, output.progress("steps", None) as ticker:
        for event in _events(process):
            kind = event.pop("event")
            if kind == "error":
                raise BY_REASON[event["reason"]](event["message"], field=event["field"])
            if kind == "report":
                report = event
            else:
                _show(output, ticker, kind, event)
        code = process.wait()
    if code == STOPPED:
        output.note("stopped; its state is saved: the same command goes on from there")
        raise typer.Exit(STOPPED)
    if code or not report:
        raise InternalFault(f"the training process ended with {code}: what it said stands above")
    return report


@contextmanager
def _worker(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """In a session of its own: Ctrl-C comes to us, and reaches it as a request to save and end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Until it ends; the first Ctrl-C asks it to."""
    assert process.stdout is not None
    while True:
        try:
            line = process.stdout.readline()
        except KeyboardInterrupt:
            process.terminate()
            continue
        if not line:
            return
        event: dict[str, Any] = json.loads(line)
        yield event


def _show(output: Output, ticker: Ticker, kind: str, event: Mapping[str, Any]) -> None:
    if kind == "begin":
        ticker.reach(event["step"], event["steps"])
        where = f"goes on at step {event['step']}" if event["step"] else "begins"
        output.note(f"{where}: {event['parameters']:,} parameters learn, on {event['device']}")
    elif kind == "damaged":
        output.note(event["message"])
    elif kind == "measured":
        ticker.reach(event["step"], event["steps"])
        if "exact" in event:
            output.note(f"step {event['step']}: {event['exact']:.1%} exact on held-out questions, loss {event['held_out_loss']:.3f}")


def _shown(report: Mapping[str, Any]) -> Iterator[Any]:
    names = {"reading": "with its memory", "control": "with memories that do not answer", "without": "without memory"}
    kinds = list(report["reading"]["kinds"])
    rows = [(label, *_cells(report[name], kinds)) for name, label in names.items()]
    yield table("=", ">exact", ">loss", *(f">{kind}" for kind in kinds), rows=rows)
    yield (
        f"{report['reading']['questions']} held-out questions; best after {report['best_steps']} of {report['steps']} steps, "
        f"{report['seconds']:.0f} s; ended by {report['ended']}; without memory no logit changes by more than {report['identity']:g}"
    )


def _cells(found: Mapping[str, Any], kinds: list[str]) -> list[str]:
    return [f"{value:.3f}" for value in (found["exact"], found["loss"], *(found["kinds"].get(kind, 0.0) for kind in kinds))]
