"""New or known? What answers it, one after the other, on LoCoMo: each conversation in turn is new to a store of the others.

Known are restatements (three words in ten dropped) of what is stored, new those of the conversation held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.associative import AssociativeIndex, AssociativeOptions
from ndml.btsp.calibration import degraded, mean_of, nearest_cosine
from ndml.btsp.code import CodeOptions, SparseCoder, signs
from ndml.btsp.homeostasis import HomeostasisOptions, UsageEqualiser
from ndml.btsp.kernels.reference import hadamard
from tests.quality.calibrate_gate import SEED, auc
from tests.quality.embedded import F32, Embedded, embed
from tests.quality.ranking import Gain

I32 = NDArray[np.int32]
LAST = 50
"""Traces that the seed's rule compares with."""
MISSED = 0.02
USAGE_RATE = 0.005
"""Step of the equalisation, in root mean square inputs. Larger ones cost AUC: .02 costs .004, .1 costs .006 and evens out nothing."""
BATCH = 64
RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class NoveltyLine:
    """One way to tell: AUC and share of new texts recognised where 2 % of the known are missed, means over conversations held out."""

    way: str
    auc: float
    skipped: float
    against: str
    gain: Gain | None
    """Of AUC, by paired bootstrap over texts."""


@dataclass(frozen=True, slots=True)
class _Split:
    stored: F32
    known: F32
    new: F32


def novelty_lines(talks: Sequence[Embedded]) -> tuple[list[NoveltyLine], str]:
    """Every way against the one before it, and a note on the use of the code's units."""
    splits = _splits(talks)
    found = {name: list[tuple[F32, F32]]() for name in ("the seed's rule: cosine of the last 50 traces", INDEX, EVEN, EXACT)}
    most = np.zeros((len(splits), 2))
    for i, split in enumerate(splits):
        plain, even, most[i] = _by_index(split)
        ways = (_by_cosine(split, split.stored[-LAST:]), plain, even, _by_cosine(split, split.stored))
        for name, pair in zip(found, ways, strict=True):
            found[name].append(pair)
    lines, names = [], list(found)
    for at, name in enumerate(names):
        # Equalisation is an addition to the index; exact search is what the index stands in for.
        against = {0: "", 1: names[0], 2: INDEX, 3: INDEX}[at]
        lines.append(_line(name, found[name], against, found.get(against)))
    usual, evened = most.mean(axis=0)
    return lines, f"The code unit in most use is on {usual:.1f} times as often as the mean unit, with equalisation {evened:.1f} times."


INDEX = "associative index"
EVEN = "+ equalisation of the use of its code"
EXACT = "exact search of everything"


def _splits(talks: Sequence[Embedded]) -> list[_Split]:
    random = Random(SEED)
    restated = [embed([degraded(text, random) for text in talk.texts]) for talk in talks]
    splits = []
    for held in range(len(talks)):
        others = [i for i in range(len(talks)) if i != held]
        stored, known = (np.concatenate([rows[i] for i in others]) for rows in ([talk.turns for talk in talks], restated))
        splits.append(_Split(stored, known, restated[held]))
    return splits


def _by_cosine(split: _Split, stored: F32) -> tuple[F32, F32]:
    return nearest_cosine(stored, split.known), nearest_cosine(stored, split.new)


def _by_index(split: _Split) -> tuple[tuple[F32, F32], tuple[F32, F32], tuple[float, float]]:
    """Familiarity of known and new by the index, the same with equalised use, and how often the unit in most use is on in both."""
    options = AssociativeOptions(CodeOptions.fitting(split.stored.shape[1])).sized(len(split.stored))
    coder = SparseCoder(options.code, mean_of(split.stored))
    inputs = [_inputs(coder, rows) for rows in (split.stored, split.known, split.new)]
    equaliser = UsageEqualiser(options.code.units, HomeostasisOptions(usage_rate=USAGE_RATE))
    for at in range(0, len(split.stored), BATCH):
        equaliser.observe(_winners(inputs[0][at : at + BATCH] + equaliser.bias.astype(np.float32), options.code))
    results, most = [], []
    for bias in (np.zeros(options.code.units, np.float32), equaliser.bias.astype(np.float32)):
        # What is stored is coded anew under the last bias, as an index that is rebuilt would.
        stored, known, new = (_winners(each + bias, options.code) for each in inputs)
        index = AssociativeIndex(options, coder)
        index.store(stored, [blake2b(row.to_bytes(8, "big"), digest_size=16).digest() for row in range(len(stored))])
        results.append((index.familiarity(known), index.familiarity(new)))
        uses = np.bincount(stored.reshape(-1), minlength=options.code.units)
        most.append(float(uses.max() / uses.mean()))
    return results[0], results[1], (most[0], most[1])


def _inputs(coder: SparseCoder, vectors: F32) -> F32:
    """What drives each unit [n, units], in root mean squares: the transform's sums and their negatives (`ndml.btsp.code`)."""
    options = coder.options
    matrix, whole = hadamard(options.width).astype(np.float32), coder.quantised(vectors).astype(np.float32)
    sums = np.concatenate([(whole * sign) @ matrix for sign in signs(options).astype(np.float32)], axis=1)
    sums /= np.sqrt(np.square(sums).mean(axis=1, keepdims=True))
    return np.stack([sums, -sums], axis=2).reshape(len(vectors), options.units)


def _winners(inputs: F32, options: CodeOptions) -> I32:
    """The unit of the largest input in every block [n, active]."""
    blocks = inputs.reshape(len(inputs), options.active, 2 * options.half)
    return np.asarray(blocks.argmax(axis=2) + 2 * options.half * np.arange(options.active), np.int32)


def _line(name: str, pairs: list[tuple[F32, F32]], against: str, before: list[tuple[F32, F32]] | None) -> NoveltyLine:
    skipped = float(np.mean([(new < np.quantile(known, MISSED)).mean() for known, new in pairs]))
    gain = None if before is None else _gain(pairs, before)
    return NoveltyLine(name, float(np.mean([auc(*pair) for pair in pairs])), skipped, against, gain)


def _gain(pairs: list[tuple[F32, F32]], before: list[tuple[F32, F32]]) -> Gain:
    random, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        parts = []
        for (known, new), (known_before, new_before) in zip(pairs, before, strict=True):
            a, b = random.integers(0, len(known), len(known)), random.integers(0, len(new), len(new))
            parts.append(auc(known[a], new[b]) - auc(known_before[a], new_before[b]))
        means.append(np.mean(parts))
    low, high = np.quantile(means, [0.025, 0.975])
    mean = np.mean([auc(*pair) - auc(*was) for pair, was in zip(pairs, before, strict=True)])
    return Gain(float(mean), float(low), float(high))
