"""ndml export nir: exported memories as a spiking network in a NIR file, with what it needs of a chip. No service takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndml.cli import records
from ndml.cli.output import table
from ndml.cli.session import Session
from ndml.cli.transfer import exports, reading
from ndml.client import Embedding, Memory
from ndml.errors import EmbeddingModelMismatch, FieldInvalid, NotAvailable

if TYPE_CHECKING:
    from ndml.btsp.neuromorphic import Exported


class NeuronName(StrEnum):
    LIF = "lif"
    THRESHOLD = "threshold"


def register(_: typer.Typer) -> None:
    exports.command("nir")(nir)


def nir(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="What `ndml export --embedding` wrote; - is stdin.", allow_dash=True)],
    file: Annotated[Path, typer.Argument(help="NIR file to write; FILE.json beside it says how to make cues and read answers.")],
    plateaus: Annotated[int, typer.Option(help="Neurons that stand for a memory.", min=1, max=64)] = 1,
    neuron: Annotated[NeuronName, typer.Option(help="NIR primitive of the neurons.")] = NeuronName.LIF,
    feedback: Annotated[bool, typer.Option("--feedback/--no-feedback", help="With synapses that complete a cue.")] = True,
    cues: Annotated[int, typer.Option(help="Memories recalled from two thirds of their code, to verify and to count.", min=1)] = 60,
) -> None:
    """Write one user's memories, as `ndml export --embedding` gave them, as a spiking network for other simulators and chips."""
    session: Session = context.obj
    core, spiking = _core()
    with reading(source) as (lines, total), session.output.progress("reading", total) as ticker:
        found = list(islice(ticker.each(records.memories(lines)), core.MOST_TRACES + 1))
    about, keys = _of_one(found), [_key(memory) for memory in found]
    wanted = core.ExportOptions(plateaus=plateaus, neuron=neuron.value, feedback=feedback, cues=cues)
    key_file = file.with_name(file.name + ".json")
    done = core.export([_embedding(memory).vector for memory in found], keys, file, key_file, about, wanted)
    shares = {chip.name: {"limits": spiking.shares(done.resources, chip), "source": chip.source} for chip in spiking.CHIPS}
    result = {"file": str(file), "key": str(key_file), **about, **asdict(done), "chips": shares, "claim": _claim(done)}
    session.output.result(result, *_report(done, shares, file, key_file))
    if done.parity is not None and done.parity.differing:
        raise typer.Exit(1)


def _core() -> tuple[ModuleType, ModuleType]:
    try:
        from ndml.btsp import neuromorphic, spiking
    except ModuleNotFoundError as error:
        raise NotAvailable(f"{error.name} is not installed: pip install 'ndml[neuromorphic]'") from error
    return neuromorphic, spiking


def _embedding(memory: Memory) -> Embedding:
    if memory.embedding is None:
        raise FieldInvalid(f"memory {memory.trace_id} has no embedding: export with --embedding", field="embedding")
    return memory.embedding


def _key(memory: Memory) -> bytes:
    try:
        key = bytes.fromhex(memory.trace_id)
    except ValueError:
        key = b""
    if len(key) != 16:
        raise FieldInvalid(f"trace_id is 32 hexadecimal digits, got {memory.trace_id[:40]!r}", field="trace_id")
    return key


def _of_one(found: Sequence[Memory]) -> dict[str, str]:
    """Tenant, user and model of them all: a network of two users' memories would let one recall the other's."""
    owners = sorted({(memory.scope.tenant, memory.scope.user) for memory in found}) or [("", "")]
    models = sorted({_embedding(memory).model for memory in found}) or [""]
    if len(owners) > 1:
        raise FieldInvalid(f"memories of {owners[0][1]!r} and {owners[1][1]!r}: export one --user", field="scope.user")
    if len(models) > 1:
        message = f"embeddings of {models[0]!r} and {models[1]!r} do not compare: export what one model embedded"
        raise EmbeddingModelMismatch(message, field="embedding.model")
    return {"tenant": owners[0][0], "user": owners[0][1], "model": models[0]}


def _report(done: Exported, chips: Mapping[str, Any], file: Path, key_file: Path) -> list[Any]:
    """What a person is shown."""
    need = done.resources
    rows = [
        ("neurons", f"{need.neurons:,}"),
        ("synapses that exist", f"{need.synapses:,}"),
        ("largest fan-in, fan-out", f"{need.fan_in:,}, {need.fan_out:,}"),
        ("spikes a recall", f"{need.spikes:,.0f}"),
        ("synaptic events a recall", f"{need.synaptic_events:,.0f}"),
        ("dense multiply-adds instead", f"{need.dense_macs:,}"),
        ("cues that miss their memory", f"{done.missed:.1%}"),
        *([] if done.completed is None else [("cues completed to the whole code", f"{done.completed:.1%}")]),
        ("spikes that differ in snnTorch", _compared(done)),
    ]
    limits = [(name, *_cells(chip["limits"])) for name, chip in chips.items()]
    return [
        table("what it is", ">", rows=rows),
        "",
        table("share of a chip's limits", ">neurons", ">synapses", ">fan-in", "", rows=limits),
        "",
        f"{done.traces:,} memories in {file} ({done.nbytes / 1024:,.0f} KiB), key in {key_file}\n{_claim(done)}",
    ]


def _cells(limits: Mapping[str, float]) -> list[str]:
    """Counts against published limits: no placement, no routing."""
    shown = [f"{limits[name]:.2g}" if name in limits else "" for name in ("neurons", "synapses", "fan_in")]
    return [*shown, "fits by count" if max(limits.values()) <= 1 else "does not fit on one"]


def _compared(done: Exported) -> str:
    if done.parity is None:
        return "not run: pip install 'ndml[neuromorphic]'"
    return f"{done.parity.differing:,} of {done.parity.spikes:,}"


def _claim(done: Exported) -> str:
    if done.parity is None:
        return "exportable; not run in a simulator, not run on silicon"
    verified = "differs in the simulator" if done.parity.differing else "simulator-verified"
    return f"exportable, {verified}; not run on silicon"
