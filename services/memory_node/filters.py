"""Which rows of an owner meet a request's conditions: columns by numpy, labels by the store's table. Pure but for the LabelSource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from ndml.errors import FieldInvalid
from ndml.v1.types_pb2 import Filter, MetadataCondition, TimeRange
from services.memory_node.columns import Columns
from services.memory_node.records import micros
from services.memory_node.validity import Validity

Mask = NDArray[np.bool_]
_I64_MAX = np.iinfo(np.int64).max


class LabelSource(Protocol):
    """Sequence numbers of an owner's rows by their labels; `Reader` is one."""

    def labelled(self, owner_id: int, key: str) -> NDArray[np.int64]: ...

    def labelled_any(self, owner_id: int, key: str, values: Sequence[str]) -> NDArray[np.int64]: ...

    def labelled_range(self, owner_id: int, key: str, at_least: float | None, less_than: float | None) -> NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True)
class Conditions:
    """All of these hold at once. Times are half-open intervals in microseconds since 1970; empty means any."""

    agent: str = ""
    session: str = ""
    kinds: tuple[int, ...] = ()
    speakers: tuple[str, ...] = ()
    said_at: tuple[int, int] | None = None
    learned_at: tuple[int, int] | None = None
    metadata: tuple[MetadataCondition, ...] = ()
    valid_at: int | None = None

    @property
    def timed(self) -> bool:
        """Whether a time is asked for."""
        return not (self.said_at is None and self.learned_at is None and self.valid_at is None)


def conditions(agent: str, session: str, given: Filter | None) -> Conditions | None:
    """What a request asks for; None when it asks for nothing. Raises FieldInvalid."""
    if given is None:
        return Conditions(agent, session) if agent or session else None
    for i, condition in enumerate(given.metadata):
        if condition.WhichOneof("condition") is None:
            raise FieldInvalid("a condition needs one of equals, any_of, exists, range", field=f"filter.metadata[{i}].condition")
    found = Conditions(
        agent,
        session,
        () if 0 in given.kinds else tuple(given.kinds),
        tuple(given.speakers),
        _interval(given.said_at, "filter.said_at") if given.HasField("said_at") else None,
        _interval(given.learned_at, "filter.learned_at") if given.HasField("learned_at") else None,
        tuple(given.metadata),
        micros(given.valid_at, "filter.valid_at") if given.HasField("valid_at") else None,
    )
    return None if found == Conditions() else found


def mask(wanted: Conditions, columns: Columns, owner_id: int, labels: LabelSource, validity: Validity) -> Mask:
    """[n] True where the row meets every condition; dead rows are not looked at, their value means nothing."""
    met = np.ones(len(columns), np.bool_)
    for name, value in (("agent", wanted.agent), ("session", wanted.session)):
        if value:
            met &= columns.ints(name) == columns.strings.find(value)
    if wanted.kinds:
        met &= np.isin(columns.ints("kind"), wanted.kinds)
    if wanted.speakers:
        met &= np.isin(columns.ints("speaker"), [columns.strings.find(speaker) for speaker in wanted.speakers])
    for name, interval in (("said_at_us", wanted.said_at), ("learned_at_us", wanted.learned_at)):
        if interval is not None:
            times = columns.ints(name)
            met &= (times >= interval[0]) & (times < interval[1])
    if wanted.valid_at is not None:
        met &= validity.holds(wanted.valid_at, columns.ints("said_at_us"))
    for condition in wanted.metadata:
        met &= _labelled(condition, columns, owner_id, labels)
    return met


def _labelled(condition: MetadataCondition, columns: Columns, owner_id: int, labels: LabelSource) -> Mask:
    key, kind = condition.key, condition.WhichOneof("condition")
    absent = kind == "exists" and not condition.exists
    if kind == "exists":
        found = labels.labelled(owner_id, key)
    elif kind == "range":
        bounds = condition.range
        low = bounds.at_least if bounds.HasField("at_least") else None
        found = labels.labelled_range(owner_id, key, low, bounds.less_than if bounds.HasField("less_than") else None)
    else:
        values = [condition.equals] if kind == "equals" else list(condition.any_of.values)
        found = labels.labelled_any(owner_id, key, values)
    return np.isin(columns.ints("sequence"), found, invert=absent)


def _interval(given: TimeRange, field: str) -> tuple[int, int]:
    low = _ceil(getattr(given, "from"), f"{field}.from") if given.HasField("from") else -_I64_MAX
    return low, _ceil(given.until, f"{field}.until") if given.HasField("until") else _I64_MAX


def _ceil(time: Timestamp, field: str) -> int:
    # Rows keep microseconds: an end between two of them begins with the later one.
    return micros(time, field) + (time.nanos % 1000 > 0)
