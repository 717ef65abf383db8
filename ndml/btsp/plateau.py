"""Calcium of a stream: how strongly what is said now is encoded. It never decides whether it is kept.

Ca <- Ca exp(-dt/tau) + a_n novelty + a_s salience + a_e surprise; Ca >= theta makes a plateau, which encodes at full strength. A stream
is (user, session): one global calcium would let one user's excitement write another's memory.

Surprise is the z-score of 1 - cos(ctx, e) over the stream's last 20 traces, ctx <- .6 ctx + e (event segmentation after EM-LLM,
arXiv 2407.09450, on embeddings instead of token probabilities); a stream's first trace is a boundary by definition.
Plateaus are rationed per stream by a token bucket: homeostasis that waits for hours cannot tame one-shot learning, a rapid compensatory
process can (F. Zenke, W. Gerstner, Phil. Trans. R. Soc. B 372:20160259, 2017).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.checks import above_zero, in_range
from ndml.btsp.timescales import TIME_LIMIT_S
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CalciumOptions:
    """Calcium, surprise and rationing of plateaus."""

    decay_s: float = 10.0
    """tau of calcium: within one exchange of messages. The seed's calcium_decay_ms."""
    novelty: float = 0.4
    """a_n, calcium from a wholly novel trace."""
    salience: float = 0.3
    """a_s, calcium from a trace of full salience."""
    surprise: float = 0.3
    """a_e, calcium from a full surprise."""
    threshold: float = 0.7
    """theta, calcium that makes a plateau. The seed's calcium_threshold."""
    context_decay: float = 0.6
    """Share of the context that stays at each trace."""
    window: int = 20
    """Traces whose surprise the next is compared with."""
    window_min: int = 5
    """Below this many the spread is not known: surprise counts 0."""
    boundary_z: float = 1.0
    """gamma: z-score from which a trace begins a new event."""
    full_z: float = 3.0
    """z-score that counts as surprise 1."""
    burst: int = 4
    """Plateaus that a stream may make at once."""
    refill_s: float = 30.0
    """Time for one more: at most 2 a minute in the long run, so that a bulk import does not write everything at full strength."""
    weakest: float = 0.25
    """Encoding strength without calcium: just tagged (.2), as an early phase that nothing captures."""
    strongest: float = 0.45
    """Encoding strength just below the plateau: the weak stimulus of the tagging-and-capture literature, .5 would make protein."""
    max_streams: int = 4096
    """Streams remembered, the least recently used goes first: 2 KiB each at 384 dimensions. A forgotten one starts anew."""

    def __post_init__(self) -> None:
        for name in ("decay_s", "threshold", "full_z", "refill_s"):
            above_zero(getattr(self, name), name)
        for name in ("novelty", "salience", "surprise"):
            in_range(getattr(self, name), name, 0.0, 10.0)
        in_range(self.context_decay, "context_decay", 0.0, 0.999)
        in_range(self.window_min, "window_min", 2, self.window)
        in_range(self.window, "window", 2, 1000)
        in_range(self.boundary_z, "boundary_z", 0.0, 100.0)
        in_range(self.burst, "burst", 1, 1000)
        in_range(self.strongest, "strongest", in_range(self.weakest, "weakest", 0.0, 1.0), 1.0)
        in_range(self.max_streams, "max_streams", 1, 1 << 24)


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the stream's calcium makes of one trace."""

    calcium: float
    """After this trace."""
    surprise: float
    """0..1."""
    boundary: bool
    """The trace begins a new event."""
    plateau: bool
    strength: float
    """0..1: initial early phase, first accumulator gain and stability come from it (`StateBlock.append`)."""
    reason: str
    """In words, with the numbers."""


@dataclass(slots=True)
class _Stream:
    context: F32
    at_s: float
    tokens: float
    squared: float
    """Squared length of the context, carried along."""
    calcium: float = 0.0
    surprises: deque[float] = field(default_factory=deque)
    total: float = 0.0
    total_squared: float = 0.0


class CalciumTable:
    """Calcium of every stream, least recently used out. Not safe for concurrent use."""

    def __init__(self, options: CalciumOptions | None = None) -> None:
        self.options = options or CalciumOptions()
        self._streams: OrderedDict[Hashable, _Stream] = OrderedDict()

    def __len__(self) -> int:
        return len(self._streams)

    def observe(self, stream: Hashable, vector: F32, novelty: float, salience: float, at_s: float) -> Encoding:
        """A trace with `vector` [d] was said in `stream`; novelty and salience in 0..1. A clock that goes back stands still.

        FieldInvalid: a number outside its range or NaN. EmbeddingNotFinite: NaN or infinity in the vector; a zero vector surprises nobody.
        EmbeddingDimensionMismatch: another dimension than the stream's traces so far.
        """
        o = self.options
        drive = o.novelty * in_range(novelty, "novelty", 0.0, 1.0) + o.salience * in_range(salience, "salience", 0.0, 1.0)
        in_range(at_s, "at_s", -TIME_LIMIT_S, TIME_LIMIT_S)
        unit = _unit(vector)
        state, first = self._stream(stream, unit, at_s)
        z = o.boundary_z if first else self._z_score(state, unit)
        surprise = min(max(z / o.full_z, 0.0), 1.0)
        elapsed = max(at_s - state.at_s, 0.0)
        state.calcium = state.calcium * math.exp(-elapsed / o.decay_s) + drive + o.surprise * surprise
        state.tokens = min(state.tokens + elapsed / o.refill_s, float(o.burst))
        state.at_s = max(at_s, state.at_s)
        return self._encoding(state, surprise, z >= o.boundary_z)

    def forget(self, stream: Hashable) -> None:
        """Drop a stream: its session ended, or its user was forgotten."""
        self._streams.pop(stream, None)

    def _stream(self, key: Hashable, vector: F32, at_s: float) -> tuple[_Stream, bool]:
        found = self._streams.get(key)
        if found is not None:
            if len(found.context) != len(vector):
                message = f"embedding has {len(vector)} numbers, the stream's traces have {len(found.context)}: use the suite's model"
                raise EmbeddingDimensionMismatch(message, field="embedding")
            self._streams.move_to_end(key)
            return found, False
        made = _Stream(np.array(vector, dtype=np.float32), at_s, float(self.options.burst), float(vector @ vector))
        self._streams[key] = made
        while len(self._streams) > self.options.max_streams:
            self._streams.popitem(last=False)
        return made, True

    def _z_score(self, state: _Stream, vector: F32) -> float:
        """z-score of this trace's distance to the context among those before it; moves context and window on."""
        o = self.options
        along, length = float(state.context @ vector), float(vector @ vector)
        norm = math.sqrt(max(state.squared, 0.0) * length)
        distance = 1.0 - along / norm if norm else 0.0
        past = state.surprises
        z = 0.0
        if len(past) >= o.window_min:
            mean = state.total / len(past)
            spread = math.sqrt(max(state.total_squared / len(past) - mean * mean, 0.0))
            z = (distance - mean) / max(spread, 1e-3)  # floor: a stream that repeats itself must not make rounding errors a surprise
        past.append(distance)
        oldest = past.popleft() if len(past) > o.window else 0.0
        state.total += distance - oldest
        state.total_squared += distance * distance - oldest * oldest
        state.context *= np.float32(o.context_decay)
        state.context += vector
        state.squared = o.context_decay * (o.context_decay * state.squared + 2.0 * along) + length
        return z

    def _encoding(self, state: _Stream, surprise: float, boundary: bool) -> Encoding:
        o = self.options
        over = state.calcium >= o.threshold
        plateau = over and state.tokens >= 1.0
        if plateau:
            state.tokens -= 1.0
        strength = 1.0 if plateau else o.weakest + (o.strongest - o.weakest) * min(state.calcium / o.threshold, 1.0)
        outcome = (
            "plateau"
            if plateau
            else f"no plateau, the ration of {o.burst} and one in {o.refill_s:g} s is used up"
            if over
            else "no plateau"
        )
        reason = f"calcium {state.calcium:.3f} {'>=' if over else '<'} {o.threshold:g}: {outcome}"
        return Encoding(state.calcium, surprise, boundary, plateau, strength, reason)


def _unit(vector: F32) -> F32:
    """`vector` with length 1, zero where it is zero."""
    if abs(float(vector @ vector) - 1.0) < 1e-5:
        return vector  # the way of every stored trace
    wide = vector.astype(np.float64)  # squares of any float32 fit
    length = math.sqrt(float(wide @ wide))
    if not math.isfinite(length):
        raise EmbeddingNotFinite("embedding holds NaN or infinity: embed the text again", field="embedding")
    return (wide / length).astype(np.float32) if length else vector
