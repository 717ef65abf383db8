"""How well familiarity tells known from new on LoCoMo, and what the choices behind the index are worth beside their alternatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from random import Random

import numpy as np

from ndml.btsp.associative import AssociativeIndex, AssociativeOptions
from ndml.btsp.calibration import degraded, mean_of, shipped
from ndml.btsp.code import CodeOptions, SparseCoder
from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import I32, words_for
from tests.perf.tables import Part, Row, Table, us_each
from tests.quality.calibrate_gate import HEAD, SEED, Outside, auc, cells, measured
from tests.quality.embedded import F32, MODEL, embed, locomo
from tests.quality.locomo import DATA

TARGET_AUC, BATCH = 0.96, 64
DIMENSION = 384
Encode = Callable[[F32], I32]
Familiarity = Callable[[I32], F32]


@dataclass(frozen=True, slots=True)
class Split:
    """One conversation held out: what the others said [n, d], restatements of it [n, d], and restatements of what it said [m, d]."""

    stored: F32
    known: F32
    new: F32


def quality() -> Part:
    """The shipped profile on conversations that it has not seen, and the alternatives. A note instead where the data is not there."""
    if not DATA.is_file():
        return Part(tables=[Table("Familiarity on LoCoMo", f"Not measured: {DATA} is not there; set NDML_LOCOMO.", ("not measured",), [])])
    rows = measured(shipped(MODEL))
    mean = float(np.mean([row.auc for row in rows]))
    each = ", ".join(f"{row.auc:.3f}" for row in rows)
    target = Row(
        f"AUC of familiarity, LoCoMo dev, mean of {len(rows)} held-out conversations",
        f"{mean:.4f} ({each})",
        f"exact search {np.mean([row.exact_auc for row in rows]):.4f}",
        f">= {TARGET_AUC}",
        mean >= TARGET_AUC,
    )
    lines = [tuple(cells(row)) for row in [*rows, _mean(rows)]]
    profile = Table("Familiarity on LoCoMo, with the shipped profile", _PROFILE, HEAD, lines)
    return Part([target], [profile, _choices()])


_PROFILE = """One conversation after the other is new to an index that holds the four others; "known" are restatements of what is stored
(three words in ten dropped). Thresholds come from other text (`python -m tests.quality.calibrate_gate`), nothing is fitted
here. "New without search" is what familiarity saves, "known missed" what that costs; "missed by cosine" is what exact search
itself takes for new."""


def _mean(rows: Sequence[Outside]) -> Outside:
    numbers = {f.name: float(np.mean([getattr(row, f.name) for row in rows])) for f in fields(Outside) if f.name != "held_out"}
    return Outside(held_out="mean", **(numbers | {"stored": round(numbers["stored"])}))  # type: ignore[arg-type]


def splits() -> list[Split]:
    """As `measured` makes them: the same seed, so the same restatements."""
    talks, random = locomo(), Random(SEED)
    restated = [embed([degraded(text, random) for text in talk.texts]) for talk in talks]
    found = []
    for held in range(len(talks)):
        others = [i for i in range(len(talks)) if i != held]
        stored, known = (np.concatenate([rows[i] for i in others]) for rows in ([talk.turns for talk in talks], restated))
        found.append(Split(stored, known, restated[held]))
    return found


_CHOICES = """Mean AUC over the five splits, the share of new texts below the 2 % quantile of the known (fitted on the spot: what the
choice could save at best), and microseconds a trace in batches of 64 at some 2,200 traces, code and familiarity. Same number
of neurons unless the line says so. The published form is Wu & Maass's rule on the largest components of a Gaussian
projection, as in the design notes."""


def _choices() -> Table:
    found, lines = splits(), []
    for name, make in _alternatives(len(found[0].stored)):
        aucs, skipped, code_us, familiarity_us = [], [], [], []
        for split in found:
            encode, familiarity = make(split.stored)
            known, new = encode(split.known), encode(split.new)
            known_at, new_at = familiarity(known), familiarity(new)
            aucs.append(auc(known_at, new_at))
            skipped.append(float((new_at < np.quantile(known_at, 0.02)).mean()))
            code_us.append(us_each(encode, split.new[: 8 * BATCH], BATCH))
            familiarity_us.append(us_each(familiarity, new[: 8 * BATCH], BATCH))
        shown = f"{np.mean(aucs):.4f}", f"{np.mean(skipped):.1%}", f"{np.median(code_us):.1f}", f"{np.median(familiarity_us):.1f}"
        lines.append((name, *shown))
    return Table(
        "The index's choices against their alternatives", _CHOICES, ("choice", "AUC", "new skipped", "code us", "familiarity us"), lines
    )


Make = Callable[[F32], tuple[Encode, Familiarity]]


def _alternatives(traces: int) -> Sequence[tuple[str, Make]]:
    usual = AssociativeOptions(CodeOptions.fitting(DIMENSION)).sized(traces)
    n = usual.neurons
    return (
        (f"as shipped: 256 of 8,192 units, K = 1, least loaded of 4 of {n:,} neurons", _by(usual)),
        ("128 units on", _by(replace(usual, code=replace(usual.code, active=128)))),
        ("512 units on", _by(replace(usual, code=replace(usual.code, active=512)))),
        ("K = 4 plateaus", _by(replace(usual, plateaus=4))),
        ("K = 20 plateaus", _by(replace(usual, plateaus=20))),
        ("any neuron, not the least loaded", _by(replace(usual, choices=1))),
        ("flip instead of set", _by(replace(usual, rule="flip"))),
        ("half the neurons: twice the load", _by(replace(usual, neurons=n // 2))),
        ("a quarter of the neurons", _by(replace(usual, neurons=n // 4))),
        ("256 largest of 8,192 Gaussian projections, else as shipped", _published(8192, 256, 1, 4, n)),
        ("published form: 164 largest of 16,384, K = 20 of 8,192 neurons, any", _published(16_384, 164, 20, 1, 8192)),
    )


def _key(row: int) -> bytes:
    return row.to_bytes(16, "little")


def _by(options: AssociativeOptions) -> Make:
    def make(stored: F32) -> tuple[Encode, Familiarity]:
        coder = SparseCoder(options.code, mean_of(stored))
        index = AssociativeIndex(options, coder)
        index.store(coder.encode(stored), [_key(row) for row in range(len(stored))])
        return coder.encode, index.familiarity

    return make


def _published(units: int, active: int, plateaus: int, choices: int, neurons: int) -> Make:
    """Sparse codes by a dense Gaussian projection, which no block code can stand for: the kernels directly."""
    kernels = cpu_kernels()
    projection = np.random.default_rng(0).standard_normal((DIMENSION, units), dtype=np.float32)

    def make(stored: F32) -> tuple[Encode, Familiarity]:
        mean = mean_of(stored)

        def encode(vectors: F32) -> I32:
            sums = (vectors - mean) @ projection
            largest = np.argpartition(-sums, active - 1, axis=1)[:, :active]
            return np.sort(largest, axis=1).astype(np.int32)

        def familiarity(codes: I32) -> F32:
            _, sums = kernels.strongest(synapses, codes, plateaus)
            return np.asarray(sums.mean(axis=1) / active, np.float32)

        synapses = kernels.zeros(units, words_for(neurons))
        keys = np.stack([np.arange(len(stored), dtype=np.uint64), np.zeros(len(stored), np.uint64)], axis=1)
        up, down = kernels.recruit(keys, np.zeros(neurons, np.int32), plateaus, choices)
        kernels.store(synapses, encode(stored), up, down, flip=False)
        return encode, familiarity

    return make
