"""Where the write gate's thresholds lie for one embedding model: quantiles over texts and what is left of them when they are said again.

A restatement is a stored text that lost three words in ten. It should still be recognised, so novelty, by familiarity and by exact cosine,
begins where the target share of restatements falls below: the misses that are accepted. Half of them reach `related`. A copy is a text
without case and punctuation; nine in ten reach `duplicate`.

Familiarity rises with the number of traces in an index, for new texts as for known ones, so its threshold is a curve over that number. Over
corpora it hardly moves, as long as the vectors are centred on the mean of what the index holds: on a foreign mean, familiarity is half
blind (`docs/science/gate.md` has the figures). So the model's mean is where an index starts; one that is rebuilt starts from its own.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.gate import GateThresholds
from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid, ModelNotConfigured

F32 = NDArray[np.float32]
Familiarity = Callable[[F32, F32, F32], F32]
"""(mean [d], stored [n, d], asked [q, d]) -> familiarity [q] of the asked after storing the stored, in order, in an empty index."""

DROPOUT = 0.3
TARGET_MISS = 0.02
COPIES_BELOW = 0.1
"""A missed copy is stored twice, a false one may be dropped: the error leans to storing."""
_LEAST_TEXTS = 100
"""Below this a 2 % quantile is the value of one or two texts."""
_MOST_ASKED = 2_000
"""Restatements asked at one fill: 40 of them lie below a 2 % quantile, enough to place it to .01."""
_MODEL_MEAN_WEIGHT = 32.0
"""Traces that the model's mean counts for in a partition's: it steadies the first hundred and is forgotten after a thousand."""


@dataclass(frozen=True, slots=True)
class GateProfile:
    """Thresholds of one embedding model and one kind of index, and what they were measured on."""

    model: str
    dimension: int
    index: str
    """Code and index that the familiarity came from; other sizes need another calibration."""
    mean: F32
    """[d], mean of the calibration texts' unit vectors."""
    novel: tuple[tuple[int, float], ...]
    """(traces in the index, familiarity below which a text is new), ascending."""
    distant: float
    """Exact cosine below which a text is new, at `target_miss`."""
    related: float
    """Exact cosine that half of the restatements reach."""
    duplicate: float
    """Exact cosine that nine in ten copies reach."""
    target_miss: float
    calibrated_on: str
    """What the texts were, in words."""
    count: int
    """How many of them."""

    def thresholds(self, count: int) -> GateThresholds:
        """For an index of `count` traces: linear between the fills measured, the first and last value outside."""
        fills, levels = zip(*self.novel, strict=True)
        return GateThresholds(float(np.interp(count, fills, levels)), self.duplicate, self.related, self.distant)

    def to_json(self) -> str:
        """JSON, the mean as base64 of little-endian float32."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["mean"] = base64.b64encode(self.mean.astype("<f4").tobytes()).decode("ascii")
        values["novel"] = {str(fill): level for fill, level in self.novel}
        return json.dumps(values, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """Unit vectors [n, d], row for row: texts, their restatements (`degraded`) and their copies (`plain`)."""

    stored: F32
    restated: F32
    copied: F32

    def __post_init__(self) -> None:
        shapes = {self.stored.shape, self.restated.shape, self.copied.shape}
        if len(shapes) != 1 or self.stored.ndim != 2:
            raise EmbeddingDimensionMismatch(f"shapes {sorted(map(str, shapes))}: give three arrays [n, d] alike", field="restated")
        if len(self.stored) < _LEAST_TEXTS:
            raise FieldInvalid(f"{len(self.stored)} texts, at least {_LEAST_TEXTS}: a 2 % quantile of fewer is chance", field="stored")
        if not all(np.isfinite(part).all() for part in (self.stored, self.restated, self.copied)):
            raise EmbeddingNotFinite("a vector holds NaN or infinity", field="stored")


def degraded(text: str, random: Random, dropout: float = DROPOUT) -> str:
    """`text` with each word dropped with probability `dropout`; unchanged where fewer than two words would be left."""
    kept = [word for word in text.split() if random.random() >= dropout]
    return " ".join(kept) if len(kept) > 1 else text


def plain(text: str) -> str:
    """`text` without case and punctuation: what somebody means who says the same."""
    return " ".join(re.sub(r"[^\w\s'’]", " ", text.casefold()).split())


def mean_of(vectors: F32, model_mean: F32 | None = None) -> F32:
    """Mean [d] of unit vectors [n, d] to centre an index on; a model's mean weighs in like 32 vectors."""
    weight = 0.0 if model_mean is None else _MODEL_MEAN_WEIGHT
    total = vectors.sum(axis=0, dtype=np.float64) + (0.0 if model_mean is None else weight * model_mean)
    return np.asarray(total / max(len(vectors) + weight, 1.0), np.float32)


def calibrate(
    sample: Sample,
    familiarity: Familiarity,
    fills: Sequence[int],
    *,
    model: str,
    index: str,
    calibrated_on: str,
    target_miss: float = TARGET_MISS,
) -> GateProfile:
    """The profile out of `sample`, its rows in random order; `fills` are the index sizes at which familiarity is measured.

    A fill takes the first rows of the sample. Raises FieldInvalid.
    """
    sizes = sorted({min(fill, len(sample.stored)) for fill in fills})
    if not sizes or sizes[0] < _LEAST_TEXTS:
        raise FieldInvalid(f"fills are {list(fills)}: give at least one, each {_LEAST_TEXTS} or more", field="fills")
    if not 0.0 < target_miss < 0.5:
        raise FieldInvalid(f"target_miss is {target_miss}: give a share between 0 and .5", field="target_miss")
    cosine = nearest_cosine(sample.stored, sample.restated)
    duplicate = _quantile(np.einsum("nd,nd->n", sample.stored, sample.copied), COPIES_BELOW)
    return GateProfile(
        model=model,
        dimension=sample.stored.shape[1],
        index=index,
        mean=mean_of(sample.stored),
        novel=tuple((size, _level(sample, familiarity, size, target_miss)) for size in sizes),
        distant=_quantile(cosine, target_miss),
        related=min(_quantile(cosine, 0.5), duplicate),
        duplicate=duplicate,
        target_miss=target_miss,
        calibrated_on=calibrated_on,
        count=len(sample.stored),
    )


def nearest_cosine(stored: F32, asked: F32, block: int = 1024) -> F32:
    """Exact cosine [q] of the nearest of stored [n, d] to each of asked [q, d]; blocks of `block` rows bound the memory."""
    parts = [(asked[at : at + block] @ stored.T).max(axis=1) for at in range(0, len(asked), block)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def from_json(text: str) -> GateProfile:
    """Read what `to_json` wrote. Raises FieldInvalid, EmbeddingDimensionMismatch."""
    try:
        values = json.loads(text)
        mean = np.frombuffer(base64.b64decode(values.pop("mean"), validate=True), "<f4").astype(np.float32)
        novel = tuple(sorted((int(fill), float(level)) for fill, level in values.pop("novel").items()))
        profile = GateProfile(mean=mean, novel=novel, **values)
        for fill, _ in novel:
            profile.thresholds(fill)  # refuses what lies outside its range
        profile.thresholds(0)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FieldInvalid(f"not a gate profile ({error}): write it anew by calibrating the gate", field="gate.profile") from error
    if mean.shape != (profile.dimension,):
        raise EmbeddingDimensionMismatch(f"the mean has {mean.size} components, the profile {profile.dimension}", field="gate.profile.mean")
    return profile


def shipped(model: str) -> GateProfile:
    """The profile that comes with NDML for `model`. Raises ModelNotConfigured where there is none: calibrate it, or switch the gate off."""
    wanted = files("ndml.btsp") / "profiles" / f"{model}.json"
    if "/" in model or "\\" in model or not wanted.is_file():
        raise ModelNotConfigured(f"no gate profile is shipped for {model!r}: calibrate one and set gate.profile to its file")
    return from_json(wanted.read_text(encoding="utf-8"))


def _level(sample: Sample, familiarity: Familiarity, size: int, target_miss: float) -> float:
    stored = sample.stored[:size]
    asked = sample.restated[: size : max(1, size // _MOST_ASKED)]
    known = familiarity(mean_of(stored), stored, asked)
    if known.shape != (len(asked),) or not np.isfinite(known).all():
        raise FieldInvalid(f"familiarity gave shape {known.shape}, expected ({len(asked)},) finite values", field="familiarity")
    return _quantile(known, target_miss)


def _quantile(values: F32, share: float) -> float:
    return round(float(np.quantile(values.astype(np.float64), share)), 4)
