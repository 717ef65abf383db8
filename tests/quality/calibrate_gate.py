"""Calibrates the write gate for all-MiniLM-L6-v2 on text of our own, and measures it on LoCoMo, which it has not seen.

    python -m tests.quality.calibrate_gate [--write] [--markdown FILE]       # --write: into ndml/btsp/profiles

Calibration text: the example conversations and turns from a grammar (`made_up.py`). Measurement: each conversation of LoCoMo in turn is new
to an index that holds the others; the restatements of what it holds are known. The vectors of an index are centred on their own mean.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from random import Random

import numpy as np
from rich.console import Console
from rich.table import Table

import ndml.btsp
from ndml.btsp.associative import AssociativeOptions, rebuilt
from ndml.btsp.calibration import GateProfile, Sample, calibrate, degraded, from_json, mean_of, nearest_cosine, plain, shipped
from ndml.btsp.code import CodeOptions, SparseCoder
from ndml.btsp.gate import needs_search
from tests.quality.embedded import F32, MODEL, embed, locomo
from tests.quality.locomo import DATA
from tests.quality.made_up import example_turns, made_up_turns

MADE_UP, SEED = 9_800, 20_26
FILLS = (240, 480, 960, 1_920, 3_840, 7_680, 10_000)
"""Half way between two sizes of the index, where it holds about one trace a neuron: its threshold moves by .01 as it fills."""
FOLDER = Path(ndml.btsp.__file__).parent / "profiles"


def familiarity(mean: F32, stored: F32, asked: F32) -> F32:
    """Of an index that is sized for what it holds, as the memory node builds it."""
    options = AssociativeOptions(CodeOptions.fitting(stored.shape[1])).sized(len(stored))
    coder = SparseCoder(options.code, mean)
    keys = [blake2b(row.to_bytes(8, "big"), digest_size=16).digest() for row in range(len(stored))]
    return rebuilt(options, coder, stored, keys).familiarity(coder.encode(asked))


def index_name(dimension: int) -> str:
    """What a profile says about the index that it is for."""
    options = AssociativeOptions(CodeOptions.fitting(dimension))
    code = options.code
    return f"{code.active} of {code.units} units, {options.plateaus} plateau(s), {options.load:g} traces a neuron, {options.rule}"


def calibrated() -> GateProfile:
    """The profile from our own text; a few minutes the first time, for the embeddings."""
    random = Random(SEED)
    texts = example_turns() + made_up_turns(MADE_UP, random)
    random.shuffle(texts)
    sample = Sample(embed(texts), embed([degraded(text, random) for text in texts]), embed([plain(text) for text in texts]))
    said = f"{len(example_turns())} turns of examples/conversations and {MADE_UP} of tests/quality/made_up.py"
    return calibrate(sample, familiarity, FILLS, model=MODEL, index=index_name(sample.stored.shape[1]), calibrated_on=said)


@dataclass(frozen=True, slots=True)
class Outside:
    """One conversation held out: AUC, misses and share of new turns without a search; by the own mean and by the profile's."""

    held_out: str
    stored: int
    auc: float
    exact_auc: float
    missed: float
    skipped: float
    exact_missed: float
    foreign_auc: float


def measured(profile: GateProfile) -> list[Outside]:
    """On LoCoMo, with nothing fitted there."""
    talks, random = locomo(), Random(SEED)
    restated = [embed([degraded(text, random) for text in talk.texts]) for talk in talks]
    found = []
    for held, talk in enumerate(talks):
        stored = np.concatenate([other.turns for i, other in enumerate(talks) if i != held])
        known = np.concatenate([rows for i, rows in enumerate(restated) if i != held])
        at = profile.thresholds(len(stored))
        old, new = (familiarity(mean_of(stored, profile.mean), stored, asked) for asked in (known, restated[held]))
        exact_old, exact_new = nearest_cosine(stored, known), nearest_cosine(stored, restated[held])
        foreign = [familiarity(profile.mean, stored, asked) for asked in (known, restated[held])]
        searched = needs_search(old, at)
        found.append(
            Outside(
                talk.talk.sample_id,
                len(stored),
                auc(old, new),
                auc(exact_old, exact_new),
                float((~searched).mean()),
                float((~needs_search(new, at)).mean()),
                float((exact_old < at.distant).mean()),
                auc(*foreign),
            )
        )
    return found


def auc(higher: F32, lower: F32) -> float:
    """Chance that one of `higher` is above one of `lower`, ties half."""
    ordered = np.sort(lower)
    below, upto = np.searchsorted(ordered, higher, "left"), np.searchsorted(ordered, higher, "right")
    return float((below + upto).mean() / 2 / len(lower))


HEAD = (
    "new conversation",
    "traces stored",
    "AUC",
    "exact search",
    "known missed",
    "new without search",
    "missed by cosine",
    "AUC, foreign mean",
)


def cells(row: Outside) -> list[str]:
    shares = (row.missed, row.skipped, row.exact_missed)
    return [
        row.held_out,
        str(row.stored),
        f"{row.auc:.3f}",
        f"{row.exact_auc:.3f}",
        *(f"{x:.1%}" for x in shares),
        f"{row.foreign_auc:.3f}",
    ]


def markdown(profile: GateProfile, rows: Sequence[Outside]) -> str:
    """The page of the docs."""
    curve = [
        ("traces in the index", "familiarity below which a text is new"),
        ("---", "---"),
        *((f"{n}", f"{v:.4f}") for n, v in profile.novel),
    ]
    outside = [HEAD, ("---",) * len(HEAD), *map(cells, rows)]
    tables = ["\n".join(f"| {' | '.join(row)} |" for row in table) for table in (curve, outside)]
    cosines = f"distant {profile.distant}, related {profile.related}, duplicate {profile.duplicate}"
    what = f"Model {profile.model}; index: {profile.index}; text: {profile.calibrated_on}."
    return f"{_ABOVE}\n{what}\nExact cosines: {cosines}.\n\n{tables[0]}\n{_OUT}\n{tables[1]}\n"


_ABOVE = """# The write gate and its thresholds

Written by `python -m tests.quality.calibrate_gate --markdown docs/science/gate.md`. A text is new where the familiarity of the
associative index stays below a threshold that two in a hundred restatements (texts that lost three words in ten) miss; then no search
is made. Otherwise the exact cosine of the nearest stored trace decides: below `distant` it is new after all, from `related` on it is
about the same thing, from `duplicate` on it says the same, unless it contradicts. A contradiction is looked for first: with another
number in it, a sentence keeps a cosine of .99 (median of 367).

With `--write` the same command calibrates anew. It gives the bytes that are shipped, also with embeddings computed afresh; on another
processor the mean may differ in its last bits.
"""
_OUT = """
Familiarity rises with the number of traces, so its threshold is a curve; between the fills it is interpolated.

## On conversations that it was not calibrated on

LoCoMo's development part; nothing was fitted there. "Known" are restatements of stored turns, "new" those of the conversation held out. The
last column is what becomes of the AUC where vectors are centred on the calibration text's mean alone, instead of on the mean of what the
index holds. Beside other ways to tell new from known: [ablation](ablation.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the profile that NDML ships")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    profile = from_json(calibrated().to_json()) if options.write else shipped(MODEL)
    if options.write:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{MODEL}.json").write_text(profile.to_json(), encoding="utf-8")
    Console(width=160).print(profile.novel, profile.thresholds(10_000))
    if not DATA.is_file():
        raise SystemExit(f"not measured: {DATA} is not there; set NDML_LOCOMO to a LoCoMo file (it is not part of this repository)")
    rows = measured(profile)
    table = Table(*HEAD, title="Out of sample")
    for row in rows:
        table.add_row(*cells(row))
    Console(width=160).print(table)
    if options.markdown:
        options.markdown.write_text(markdown(profile, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
