"""What recall found, as fusion takes it: numbered entries with text, provenance, vector and strength."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from ndml.errors import EmbeddingDimensionMismatch, EmbeddingNotFinite, FieldInvalid

Floats = npt.NDArray[np.float32]
MAX_ENTRIES = 1024  # more than any context has room for; a bound on what one request can make a model read


@dataclass(frozen=True, slots=True)
class Entry:
    """One recalled trace.

    number      from 1, as the answer cites it; smaller is better ranked
    text        what was said
    speaker     who said it, "" where nobody is known
    said_at     when; one without a zone is UTC
    embedding   float32 (D,), None where the caller has none
    strength    0..1, how much it should weigh against the others
    superseded  a later trace says otherwise
    """

    number: int
    text: str
    speaker: str = ""
    said_at: datetime | None = None
    embedding: Floats | None = field(default=None, compare=False)
    strength: float = 1.0
    trace_id: str = ""
    superseded: bool = False

    def __post_init__(self) -> None:
        if self.number < 1:
            raise FieldInvalid(f"entry number {self.number}: number entries from 1", field="readout.number")
        if not 0.0 <= self.strength <= 1.0:
            raise FieldInvalid(f"entry {self.number} has strength {self.strength!r}: give a number from 0 to 1", field="readout.strength")
        if self.embedding is not None:
            object.__setattr__(self, "embedding", _vector(self.embedding, self.number))

    @property
    def said_utc(self) -> datetime | None:
        """said_at in UTC."""
        if self.said_at is None:
            return None
        return self.said_at.replace(tzinfo=UTC) if self.said_at.tzinfo is None else self.said_at.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class MemoryReadout:
    """Entries of one recall, numbers all different, vectors all of one dimension. Empty: every way of fusion is the identity."""

    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(self.entries))
        if len(self.entries) > MAX_ENTRIES:
            raise FieldInvalid(f"{len(self.entries)} entries: recall at most {MAX_ENTRIES}", field="readout.entries")
        if len({e.number for e in self.entries}) < len(self.entries):
            raise FieldInvalid("two entries have the same number: number them apart", field="readout.number")
        dimensions = {e.embedding.shape[0] for e in self.entries if e.embedding is not None}
        if len(dimensions) > 1:
            raise EmbeddingDimensionMismatch(
                f"entries have vectors of {sorted(dimensions)} components: take them from one embedding model", field="readout.embedding"
            )

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def dimension(self) -> int | None:
        """Components of the vectors, None where no entry has one."""
        return next((e.embedding.shape[0] for e in self.entries if e.embedding is not None), None)

    def check_dimension(self, dimension: int) -> None:
        """Raises EmbeddingDimensionMismatch where there are vectors of another size than `dimension`; 0: nobody reads them."""
        if dimension and self.dimension not in (None, dimension):
            raise EmbeddingDimensionMismatch(
                f"the memory's vectors have {self.dimension} components, this was trained on {dimension}: use the embedding model it was "
                "trained with",
                field="readout.embedding",
            )

    def ranked(self) -> tuple[Entry, ...]:
        """Best first: what holds before what is superseded, then the stronger, then the better ranked."""
        return tuple(sorted(self.entries, key=lambda e: (e.superseded, -e.strength, e.number)))

    def only(self, numbers: Iterable[int]) -> MemoryReadout:
        """The entries of these numbers, in their order here."""
        wanted = set(numbers)
        return MemoryReadout(tuple(e for e in self.entries if e.number in wanted))


def oldest_first(entries: Iterable[Entry]) -> list[Entry]:
    """By time said, those without one first; equal times by number, worst rank first, so that the best stands last."""
    return sorted(entries, key=lambda e: (e.said_utc is not None, e.said_utc or datetime.min.replace(tzinfo=UTC), -e.number))


def _vector(values: Floats, number: int) -> Floats:
    vector: Floats = np.ascontiguousarray(values, dtype=np.float32)
    if vector.ndim != 1 or not vector.size:
        raise FieldInvalid(f"entry {number}: its embedding has shape {vector.shape}, give (D,)", field="readout.embedding")
    if not np.isfinite(vector).all():
        raise EmbeddingNotFinite(f"entry {number}: its embedding has components that are not finite", field="readout.embedding")
    return vector
