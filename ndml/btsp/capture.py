"""Synaptic tagging and capture: why a weak memory near a strong one stays. Closed form, nothing is stepped.

A trace has an early phase e (deviation from baseline, -1..1) and a late phase z (-.5..1). The early phase decays; while |e| >= .2 it is a
tag. Strong events make protein p, one amount for all traces of a neuron (for us: of a partition); tagged traces turn it into z.
    e(t) = e0 exp(-(t - t_e) / tau_h)                                 tau_h = 688.4 s / 0.1 = 6884 s
    tau_p p' = A(t) - p,  A = 1 while E(t) > .5, E = decaying sum of the events' |e|
    tau_z z' = p (goal - z) while tagged, goal = 1 for e > 0 (LTP), -.5 for e < 0 (LTD);     tau_p = tau_z = 3600 s
Between events E is one exponential, so A is a union of windows [t, t + tau_h ln(E/.5)]. The equation of p integrates itself:
    INT p dt = (time within windows) - tau_p (change of p)            z <- goal + (z - goal) exp(-INT p dt / tau_z)
Source: J. Luboeinski, C. Tetzlaff, Commun. Biol. 4:275 (2021); constants from their code, memory-consolidation-stc.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ndml.btsp.checks import F64, above_zero, in_range
from ndml.btsp.timescales import TIME_LIMIT_S
from ndml.errors import FieldInvalid


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """Constants of Luboeinski and Tetzlaff 2021, and our bounds."""

    early_tau_s: float = 6884.0
    """Decay of the early phase, tau_h: 688.4 s over the relaxation factor 0.1."""
    protein_tau_s: float = 3600.0
    """Build-up and decay of protein, tau_p. The seed's protein_decay_ms."""
    late_tau_s: float = 3600.0
    """Build-up of the late phase at p = 1, tau_z."""
    tag_threshold: float = 0.2
    """|e| from which a trace is tagged."""
    protein_threshold: float = 0.5
    """Summed |e| above which protein is made."""
    late_goal_ltd: float = -0.5
    """Late phase of a depressed trace in the end."""
    total_limit: float = 2.0
    """Cap of the summed |e|: a neuron has few synapses, a partition takes any number of events; protein ends at most
    tau_h ln(2/.5) = 2.7 h after the last of them."""
    max_windows: int = 32
    """Windows of synthesis kept apart, overlapping ones are one: 42 hours of plateaus at the least. At the bound the recently tagged
    traces are settled, in one vectorised pass, and the windows dropped; few windows keep reads cheap."""

    def __post_init__(self) -> None:
        for name in ("early_tau_s", "protein_tau_s", "late_tau_s"):
            above_zero(getattr(self, name), name)
        in_range(self.tag_threshold, "tag_threshold", 1e-3, 1.0)
        in_range(self.protein_threshold, "protein_threshold", self.tag_threshold, 1.0)
        in_range(self.late_goal_ltd, "late_goal_ltd", -1.0, 0.0)
        in_range(self.total_limit, "total_limit", self.protein_threshold, 100.0)
        in_range(self.max_windows, "max_windows", 2, 1 << 16)


DEFAULTS = CaptureOptions()
_HEAD = struct.Struct("<BddddI")  # version, base_s, base_p, total, total_at_s, windows
_VERSION = 1


class Protein:
    """When a partition made protein, and how much there is: windows of synthesis since `base_s`, in order, apart from each other.

    Times never run backwards in it: an event older than the last counts as at the last. Not safe for concurrent use.
    """

    def __init__(self, options: CaptureOptions = DEFAULTS) -> None:
        self.options = options
        self._base_s, self._base_p = -math.inf, 0.0
        self._total, self._total_at_s = 0.0, -math.inf
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._table: tuple[F64, F64, F64, F64] | None = None

    @property
    def full(self) -> bool:
        """No room for another window: settle every trace, then `rebase`."""
        return len(self._starts) >= self.options.max_windows

    @property
    def idle(self) -> bool:
        """No protein since the base: no trace can have changed."""
        return not self._starts and self._base_p == 0.0

    @property
    def reaches_back_to_s(self) -> float:
        """Traces tagged at this time or before have captured all that they will; infinity where no protein is known of."""
        first = self._base_s if self._base_p else self._starts[0] if self._starts else math.inf
        return first - self.options.early_tau_s * math.log(1.0 / self.options.tag_threshold)

    @property
    def last_event_s(self) -> float:
        """Time of the last event, -inf before the first."""
        return self._total_at_s

    def add(self, at_s: float, deviation: float) -> None:
        """A trace was changed by |deviation|. FieldInvalid: not finite, or no window is left (`full`)."""
        o = self.options
        size = in_range(abs(deviation), "deviation", 0.0, 1e6)
        at = max(in_range(at_s, "at_s", -TIME_LIMIT_S, TIME_LIMIT_S), self._total_at_s, self._base_s)
        faded = self._total * math.exp((self._total_at_s - at) / o.early_tau_s) if self._total else 0.0
        self._total, self._total_at_s = min(faded + size, o.total_limit), at
        if self._total > o.protein_threshold:
            self._open(at, at + o.early_tau_s * math.log(self._total / o.protein_threshold))

    def level(self, at_s: ArrayLike) -> F64:
        """p in 0..1 at each time; before the base, p at the base."""
        return self._at(at_s)[1]

    def supply(self, start_s: ArrayLike, end_s: ArrayLike) -> F64:
        """INT p dt in seconds from each start to each end, 0 where end <= start."""
        end = np.maximum(end_s, start_s)
        covered, p = self._at(np.array([np.minimum(start_s, end), end]))  # [2, n]: one look-up for both ends
        made: F64 = np.maximum(covered[1] - covered[0] - self.options.protein_tau_s * (p[1] - p[0]), 0.0)
        return made

    def rebase(self, now_s: float) -> None:
        """Forget what lies before `now_s`, keeping the level there. Every trace must have been settled to `now_s` first."""
        if now_s <= self._base_s:
            return
        left = 0.0 if self.idle else float(self.level(now_s))
        self._base_p = left if left > 1e-12 else 0.0  # under a day and a half after the last window it is `idle` again
        self._base_s = now_s
        kept = [(max(a, now_s), b) for a, b in zip(self._starts, self._ends, strict=True) if b > now_s]
        self._starts, self._ends = [a for a, _ in kept], [b for _, b in kept]
        self._table = None

    def pack(self) -> bytes:
        """Little-endian bytes for `unpack`; at most 37 + 16 * max_windows."""
        head = _HEAD.pack(_VERSION, self._base_s, self._base_p, self._total, self._total_at_s, len(self._starts))
        return head + np.array([self._starts, self._ends], dtype="<f8").tobytes()

    @classmethod
    def unpack(cls, data: bytes, options: CaptureOptions = DEFAULTS) -> Protein:
        """What `pack` gave. FieldInvalid: other bytes."""
        if len(data) < _HEAD.size or data[0] != _VERSION or len(data) != _HEAD.size + 16 * _HEAD.unpack_from(data)[5]:
            raise FieldInvalid("protein is not what this version packs: rebuild the state from the traces", field="protein")
        made = cls(options)
        _, made._base_s, made._base_p, made._total, made._total_at_s, count = _HEAD.unpack_from(data)
        flat = np.frombuffer(data, dtype="<f8", offset=_HEAD.size)
        made._starts, made._ends = flat[:count].tolist(), flat[count:].tolist()
        return made

    def _open(self, start: float, end: float) -> None:
        self._table = None
        if self._ends and start <= self._ends[-1]:
            self._ends[-1] = max(self._ends[-1], end)
            return
        if self.full:
            raise FieldInvalid(f"max_windows ({self.options.max_windows}) is reached: settle the traces and rebase", field="max_windows")
        self._starts.append(start)
        self._ends.append(end)

    def _tables(self) -> tuple[F64, F64, F64, F64]:
        """(starts, ends, p at each start, time covered before each start); row 0 is an empty window at the base."""
        if self._table is None:
            tau = self.options.protein_tau_s
            first = self._base_s if math.isfinite(self._base_s) else (self._starts[0] if self._starts else 0.0)
            starts, ends = np.array([first, *self._starts]), np.array([first, *self._ends])
            p, levels = self._base_p, [self._base_p]
            for k in range(1, len(starts)):
                p *= math.exp(-(starts[k] - ends[k - 1]) / tau)
                levels.append(p)
                p = 1.0 - (1.0 - p) * math.exp(-(ends[k] - starts[k]) / tau)
            covered = np.concatenate([[0.0], np.cumsum(ends - starts)[:-1]])
            self._table = (starts, ends, np.array(levels), covered)
        return self._table

    def _at(self, at_s: ArrayLike) -> tuple[F64, F64]:
        """(time within windows since the base, p) at each time."""
        starts, ends, p_start, before = self._tables()
        at = np.maximum(np.asarray(at_s, dtype=np.float64), starts[0])
        k = np.searchsorted(starts, at, side="right") - 1
        first, last = starts[k], ends[k]
        within = np.minimum(at, last) - first
        tau = self.options.protein_tau_s
        p_last = 1.0 - (1.0 - p_start[k]) * np.exp(-within / tau)
        return before[k] + within, p_last * np.exp(-np.maximum(at - last, 0.0) / tau)


def early_phase(early: F64, early_at_s: F64, now_s: float | F64, options: CaptureOptions = DEFAULTS) -> F64:
    """e [n] at `now_s`; before `early_at_s` (a clock that went back) as it was at `early_at_s`."""
    left: F64 = early * np.exp(-np.maximum(now_s - early_at_s, 0.0) / options.early_tau_s)
    return left


def tag_end(early: F64, early_at_s: F64, options: CaptureOptions = DEFAULTS) -> F64:
    """When each tag [n] goes out, tau_h ln(|e|/.2) after `early_at_s`; `early_at_s` itself where there is none."""
    return early_at_s + options.early_tau_s * np.log(np.maximum(np.abs(early) / options.tag_threshold, 1.0))


def late_phase(late: F64, early: F64, early_at_s: F64, now_s: float | F64, protein: Protein) -> F64:
    """z [n] at `now_s` from z at `early_at_s`, given when protein was made."""
    o = protein.options
    supply = protein.supply(early_at_s, np.minimum(tag_end(early, early_at_s, o), now_s))
    goal = np.where(early < 0, o.late_goal_ltd, 1.0)
    captured: F64 = goal + (late - goal) * np.exp(-supply / o.late_tau_s)
    return captured
