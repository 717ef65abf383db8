"""The published BTSP network (Wu & Maass 2025) at its own size on the production kernels, and the theory of its recall.

Patterns are units [n, widest], -1 where a pattern is shorter. Synapses are bit-packed as everywhere; the constants are those of the
authors' code. Recall needs no random numbers, so a seed fixes every figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.kernels.choose import cpu_kernels
from ndml.btsp.kernels.ports import I32, U64, words_for

F64 = NDArray[np.float64]
Bits = NDArray[np.bool_]
Rule = Literal["set", "flip", "ltp", "flip both"]
KERNELS = cpu_kernels()
CHUNK = 256
"""Patterns that are stored or summed at a time: bounds the temporary arrays to some tens of MiB at the published size."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes and probabilities; the defaults are the published ones."""

    inputs: int = 25_000
    neurons: int = 39_000
    active: float = 0.005  # f_p, share of the inputs that a pattern turns on
    plateau: float = 0.005  # f_q, probability of a plateau for a neuron and a pattern; half of them depress
    connected: float = 0.6  # p_w, probability that a synapse exists

    @property
    def firing(self) -> int:
        """Feed-forward: a neuron fires above this sum."""
        return int(0.45 * int(self.inputs * self.active) * self.connected)

    @property
    def teaching(self) -> int:
        """The same while synapses back are learned."""
        return int(0.6 * self.inputs * self.active * self.connected)

    @property
    def unrelated(self) -> float:
        """Share of inputs in which two random patterns differ."""
        return 2 * self.active * (1 - self.active)


def padded(rows: list[I32]) -> I32:
    """Units of each row [n, widest], -1 behind the shorter ones."""
    block = np.full((len(rows), max((len(row) for row in rows), default=0)), -1, np.int32)
    for place, row in zip(block, rows, strict=True):
        place[: len(row)] = row
    return block


def active_units(flags: Bits) -> I32:
    """The units that are on [n, widest] of flags [n, units]."""
    return padded([np.flatnonzero(row).astype(np.int32) for row in flags])


def drawn(random: np.random.Generator, count: int, of: int, probability: float) -> list[I32]:
    """For each of `count` patterns, the units among `of` that are on, each with the same probability."""
    sizes = random.binomial(of, probability, count)
    return [random.choice(of, size, replace=False, shuffle=False).astype(np.int32) for size in sizes]


def masked(random: np.random.Generator, patterns: I32, share: float) -> I32:
    """The patterns without int(share * size) of their units, chosen at random."""
    order = np.where(patterns >= 0, random.random(patterns.shape), np.inf).argsort(axis=1).argsort(axis=1)
    lost = ((patterns >= 0).sum(axis=1) * share).astype(np.int64)
    return np.where(order < lost[:, None], -1, patterns).astype(np.int32)


def blinded(patterns: I32, inputs: int, share: float) -> I32:
    """The patterns as seen with the first int(share * inputs) inputs silent: how much is left differs, as with the authors' masks."""
    return np.where(patterns < int(inputs * share), -1, patterns).astype(np.int32)


def bernoulli(random: np.random.Generator, shape: tuple[int, ...], probability: float, digits: int = 20) -> U64:
    """Words whose bits are on with `probability`, to 2**-digits: one random word for every binary digit of it, combined from the last."""
    words = np.zeros(shape, np.uint64)
    for digit in range(digits, 0, -1):
        drawn_words = random.integers(0, 1 << 64, shape, np.uint64)
        words = words | drawn_words if int(probability * (1 << digits)) >> (digits - digit) & 1 else words & drawn_words
    return words


def thin(random: np.random.Generator, synapses: U64, probability: float) -> None:
    """Keep each synapse with `probability`: those that do not exist were never there, so this may follow learning."""
    for at in range(0, len(synapses), 1024):
        part = synapses[at : at + 1024]
        part &= bernoulli(random, part.shape, probability)


def learn(synapses: U64, patterns: I32, plateaus: list[I32], random: np.random.Generator, rule: Rule) -> None:
    """One pattern after the other. Half of the plateaus set, invert (flip) or set alone (ltp); the others clear (set) or do nothing.

    The authors' theory inverts for half of the plateaus; our index inverts for all of them: "flip both".
    """
    silent = rule in ("flip", "ltp")
    for at in range(0, len(patterns), CHUNK):
        some = plateaus[at : at + CHUNK]
        gaining = [random.random(len(neurons)) < 0.5 for neurons in some]
        up = padded([neurons[gains] for neurons, gains in zip(some, gaining, strict=True)])
        down = padded([neurons[~gains] for neurons, gains in zip(some, gaining, strict=True)])
        KERNELS.store(synapses, patterns[at : at + CHUNK], up, down[:, :0] if silent else down, "flip" in rule)


def sums(synapses: U64, patterns: I32, width: int) -> NDArray[np.uint16]:
    """Sums [n, width] for each pattern."""
    parts = [KERNELS.sums(synapses, patterns[at : at + CHUNK])[:, :width] for at in range(0, len(patterns), CHUNK)]
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Network:
    """A trained feed-forward network, its patterns and its generator, which goes on to draw masks."""

    shape: Shape
    patterns: I32  # [items, widest]
    synapses: U64  # [inputs, words]
    density: float  # share of synapses that learning left on, before the missing ones are taken away
    random: np.random.Generator

    def sums(self, cues: I32) -> NDArray[np.uint16]:
        return sums(self.synapses, cues, self.shape.neurons)


def trained(items: int, shape: Shape, seed: int = 0) -> Network:
    """`items` random patterns, each learned once in the set form."""
    random = np.random.default_rng(seed)
    patterns = padded(drawn(random, items, shape.inputs, shape.active))
    synapses: U64 = KERNELS.zeros(shape.inputs, words_for(shape.neurons))
    learn(synapses, patterns, drawn(random, items, shape.neurons, shape.plateau), random, "set")
    density = KERNELS.ones(synapses) / (shape.inputs * shape.neurons)
    thin(random, synapses, shape.connected)
    return Network(shape, patterns, synapses, density, random)


def taught_back(network: Network) -> U64:
    """Synapses from neurons to inputs [neurons, words]: on between all that fire and all that are active together, then thinned."""
    shape = network.shape
    back: U64 = KERNELS.zeros(shape.neurons, words_for(shape.inputs))
    for at in range(0, len(network.patterns), CHUNK):
        some = network.patterns[at : at + CHUNK]
        fired = active_units(network.sums(some) > shape.teaching)
        KERNELS.store(back, fired, some, np.full((len(some), 1), -1, np.int32), False)
    thin(network.random, back, shape.connected)
    return back


def distance(a: Bits, b: Bits) -> float:
    """Share of places in which two equally large arrays differ."""
    return float((a != b).mean())


def between(traces: Bits) -> float:
    """Mean distance of two different rows."""
    rows = traces.astype(np.float32)
    size, together = rows.sum(axis=1, dtype=np.float64), rows @ rows.T
    apart = size[:, None] + size[None, :] - 2 * together
    return float(apart[~np.eye(len(rows), dtype=np.bool_)].mean() / traces.shape[1])


# -- theory -----------------------------------------------------------------------------------------------------------------------------


def binomial(trials: int, probabilities: F64) -> F64:
    """Probabilities [p, trials + 1] of every count."""
    if not trials:
        return np.ones((len(probabilities), 1))
    counts = np.arange(trials + 1)
    logs = np.r_[0.0, np.cumsum(np.log(np.arange(1, trials + 1)))]
    inside = np.clip(probabilities, 1e-15, 1 - 1e-15)[:, None]
    exponent = logs[trials] - logs - logs[::-1] + counts * np.log(inside) + (trials - counts) * np.log1p(-inside)
    found: F64 = np.exp(exponent)
    return found


def lost_and_firing(on: F64, share: float, shape: Shape) -> tuple[F64, F64]:
    """For synapses that are on with probability `on` [p]: (fires for the whole cue but not for the masked one, fires for the whole), [p].

    Only losses: a masked cue drives no neuron that the whole one does not.
    """
    weights = binomial(shape.inputs, np.array([shape.active]))[0]
    lost, firing = np.zeros(len(on)), np.zeros(len(on))
    for size in np.flatnonzero(weights > 1e-7).tolist():
        weight = weights[size]
        gone = int(size * share)
        seen, missing = binomial(size - gone, shape.connected * on), binomial(gone, shape.connected * on)
        below = seen[:, : shape.firing + 1]
        more = 1 - np.cumsum(missing, axis=1)  # [:, k]: more than k of the masked synapses are on
        need = np.minimum(shape.firing - np.arange(below.shape[1]), gone)
        short = (below * np.maximum(more[:, need], 0)).sum(axis=1)
        lost += weight * short
        firing += weight * (short + seen[:, shape.firing + 1 :].sum(axis=1))
    return lost, firing


def published_theory(items: int, share: float, shape: Shape) -> float:
    """The authors' formula, which has the flip form: distance of a masked cue's trace over that of two random traces."""
    half = shape.plateau / 2
    counts = np.arange(int(4 * half * items) + 10)
    chances = binomial(items, np.array([half]))[0, : len(counts)]
    decay: F64 = np.asarray(0.5 * (1 - 2 * shape.active) ** counts, np.float64)
    lost, firing = np.zeros(len(counts)), np.zeros(len(counts))
    for weight, on in ((half, 0.5 + decay), (1 - half, 0.5 - decay)):
        some_lost, some_firing = lost_and_firing(on, share, shape)
        lost, firing = lost + weight * some_lost, firing + weight * some_firing
    rate = float(chances @ firing)
    return float(chances @ lost) / (2 * rate * (1 - rate))


def set_theory(items: int, share: float, shape: Shape, *, samples: int = 100_000, seed: int = 0) -> float:
    """The same for the set form, which was simulated: a neuron's plateaus since move its synapses towards on or off by f_p each.

    Neurons differ in how many plateaus they had and in which order, so the probability that a synapse is on is drawn for `samples` of them.
    """
    random = np.random.default_rng(seed)
    later = random.binomial(random.integers(0, items, samples), shape.plateau)
    ever = random.binomial(items, shape.plateau, samples)
    half, grid = shape.plateau / 2, np.arange(201) / 200
    lost, firing = lost_and_firing(grid, share, shape)
    states = [_drifted(random, start, events, shape.active) for start, events in ((1.0, later), (0.0, later), (0.0, ever))]
    weights = np.array([half, half, 1 - 2 * half])
    rate = float(weights @ [np.interp(state, grid, firing).mean() for state in states])
    # two patterns meet the same neuron: its own rate counts, whether or not one of them gave it a plateau
    own = half * np.interp(states[0], grid, firing) + (1 - half) * np.interp(states[2], grid, firing)
    apart = 2 * (rate - float((own**2).mean()))
    return float(weights @ [np.interp(state, grid, lost).mean() for state in states]) / apart


def _drifted(random: np.random.Generator, start: float, events: NDArray[np.int64], active: float) -> F64:
    """Probability that a synapse is on after so many plateaus, half of which set and half of which clear."""
    on = np.full(len(events), start)
    for step in range(int(events.max(initial=0))):
        target = (random.random(len(events)) < 0.5).astype(np.float64)
        on += np.where(step < events, active * (target - on), 0.0)
    return on
