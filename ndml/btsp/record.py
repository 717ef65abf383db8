"""A trace's state as bytes: one record of fixed size, little-endian, a version byte first. What the store keeps and replicas exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.stability import DIFFICULTY_MAX, DIFFICULTY_MIN
from ndml.btsp.timescales import MODES
from ndml.errors import FieldInvalid

VERSION = 1

RECORD = np.dtype(
    [
        ("levels", "<f8", (MODES,)),  # L_k of `timescales`
        ("early_at_s", "<f8"),  # t_e: time of `early` and `late`
        ("last_graded_s", "<f8"),  # time of the last grade, of the write before any
        ("stability", "<f4"),  # FSRS S, days
        ("difficulty", "<f4"),  # FSRS D, 1..10
        ("early", "<f4"),  # e at t_e, -1..1
        ("late", "<f4"),  # z at t_e, -.5..1
        ("weight", "<f4"),  # credit, 0..1
        ("salience", "<f4"),  # 0..1
        ("changes", "<u4"),  # writes to this record since it was made
        ("uses", "<u4"),
        ("successes", "<u4"),
        ("failures", "<u4"),
        ("flags", "u1"),
        ("lifecycle", "u1"),
    ]
)
_FRAMED = np.dtype([("version", "u1"), ("body", RECORD)])
RECORD_BYTES = _FRAMED.itemsize

ORDER = (
    *("changes", "last_graded_s", "early_at_s", "stability", "difficulty", "early", "late", "weight", "salience"),
    *("lifecycle", "flags"),
)
"""What a merge takes from one copy as a whole: the one that is larger in the first of these in which they differ. Of one writer's copies
that is the later; of two writers' it is one of them, the same in any order of merging, because the order is total."""

_RANGES: dict[str, tuple[float, float]] = {
    "early_at_s": (-1e11, 1e11),
    "last_graded_s": (-1e11, 1e11),
    "stability": (0.0, 1e6),
    "difficulty": (DIFFICULTY_MIN, DIFFICULTY_MAX),
    "early": (-1.0, 1.0),
    "late": (-1.0, 1.0),
    "weight": (0.0, 1.0),
    "salience": (0.0, 1.0),
}


def encoded(rows: NDArray[Any]) -> list[bytes]:
    """`RECORD_BYTES` bytes for each of the rows [n] of dtype RECORD."""
    framed = np.empty(len(rows), _FRAMED)
    framed["version"], framed["body"] = VERSION, rows
    data = framed.tobytes()
    return [data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES)]


def decoded(records: Sequence[bytes]) -> NDArray[Any]:
    """Rows [n] of dtype RECORD. FieldInvalid, naming the first bad record: other length or version, numbers that no trace can have."""
    for i, record in enumerate(records):
        if len(record) != RECORD_BYTES or record[0] != VERSION:
            shown = f"{len(record)} bytes, version {record[0] if record else 'none'}"
            raise FieldInvalid(f"records[{i}] has {shown}: version {VERSION} has {RECORD_BYTES} bytes", field=f"records[{i}]")
    rows: NDArray[Any] = np.frombuffer(b"".join(records), _FRAMED)["body"]
    good = ((rows["levels"] < np.inf) & ~np.isnan(rows["levels"])).all(axis=1) & (rows["stability"] > 0)
    for name, (low, high) in _RANGES.items():
        good &= (rows[name] >= low) & (rows[name] <= high)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        raise FieldInvalid(f"records[{at}] holds numbers that no trace can have: read it again from a copy", field=f"records[{at}]")
    return rows
