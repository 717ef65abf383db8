"""What an owner's rows are besides their vectors, as numpy columns: the part of a filter that needs no SQL. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from services.memory_node.reader import LoadedRows
from services.memory_node.records import TraceRow

_TYPES: dict[str, DTypeLike] = {
    "sequence": np.int64,
    "first_sequence": np.int64,
    "said_at_us": np.int64,
    "learned_at_us": np.int64,
    "payload_bytes": np.int32,
    "expires_at_us": np.int64,
    "kind": np.int8,
    "agent": np.int32,
    "session": np.int32,
    "speaker": np.int32,
    "id_high": np.uint64,
    "id_low": np.uint64,
    "alive": np.bool_,
}
ROW_BYTES = sum(np.dtype(kind).itemsize for kind in _TYPES.values())
# Half again: appends stay amortised, and at most a third of the memory stands empty.
_GROWTH = 1.5
_STRING_OVERHEAD = 118


class Strings:
    """Names of agents, sessions and speakers of one owner as small numbers; "" is 0. Bounded by three times the rows."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}
        self._texts = [""]
        self.nbytes = _STRING_OVERHEAD

    def number(self, text: str) -> int:
        """Number of `text`, a new one if it is new."""
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self._numbers)
            self._texts.append(text)
            self.nbytes += _STRING_OVERHEAD + len(text)
        return found

    def numbers(self, texts: Iterable[str]) -> NDArray[np.int32]:
        return np.array([self.number(text) for text in texts], np.int32)

    def text(self, number: int) -> str:
        """What has this number."""
        return self._texts[number]

    def find(self, text: str) -> int:
        """Number of `text`, -1 if no row has it."""
        return self._numbers.get(text, -1)


class Columns:
    """Growing columns of equal length; `column(name)` is a view that is good until the next append."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.generic]] = {name: np.empty(0, kind) for name, kind in _TYPES.items()}
        self._size = 0
        self.strings = Strings()

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values()) + self.strings.nbytes

    def ints(self, name: str) -> NDArray[np.int64]:
        """[n] values of a column, whatever its width."""
        return self._arrays[name][: self._size]  # type: ignore[return-value]

    @property
    def alive(self) -> NDArray[np.bool_]:
        return self._arrays["alive"][: self._size]  # type: ignore[return-value]

    def append(self, rows: Sequence[TraceRow]) -> None:
        """Rows as the store wrote them."""
        number = self.strings.number
        self._append(
            {
                "sequence": [row.sequence for row in rows],
                "first_sequence": [row.first_sequence for row in rows],
                "said_at_us": [row.said_at_us for row in rows],
                "learned_at_us": [row.learned_at_us for row in rows],
                "payload_bytes": [len(row.payload) for row in rows],
                "expires_at_us": [row.expires_at_us for row in rows],
                "kind": [row.kind & 0x7F for row in rows],
                "agent": [number(row.agent) for row in rows],
                "session": [number(row.session) for row in rows],
                "speaker": [number(row.speaker) for row in rows],
                **_ids(b"".join([row.trace_id for row in rows])),
            },
            len(rows),
        )

    def append_loaded(self, rows: LoadedRows) -> None:
        """Rows as the store read them."""
        self._append(
            {
                "sequence": rows.sequence,
                "first_sequence": rows.first_sequence,
                "said_at_us": rows.said_at_us,
                "learned_at_us": rows.learned_at_us,
                "payload_bytes": [len(payload) for payload in rows.payloads],
                "expires_at_us": rows.expires_at_us,
                "kind": rows.kind & 0x7F,
                "agent": self.strings.numbers(rows.agent),
                "session": self.strings.numbers(rows.session),
                "speaker": self.strings.numbers(rows.speaker),
                **_ids(rows.trace_ids),
            },
            len(rows.sequence),
        )

    def _append(self, values: Mapping[str, Sequence[int] | NDArray[np.generic]], count: int) -> None:
        end = self._size + count
        if end > len(self._arrays["alive"]):
            room = max(end, int(self._size * _GROWTH))
            for name, array in self._arrays.items():
                grown = np.empty(room, array.dtype)
                grown[: self._size] = array[: self._size]
                self._arrays[name] = grown
        for name, column in values.items():
            self._arrays[name][self._size : end] = column
        self._arrays["alive"][self._size : end] = True
        self._size = end

    def trace_ids(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Of some rows."""
        halves = np.stack([self._arrays["id_high"][rows], self._arrays["id_low"][rows]], axis=1).astype(">u8")
        data = halves.tobytes()
        return [data[at : at + 16] for at in range(0, len(data), 16)]

    def listed_before(self, learned_at_us: int, trace_id: bytes) -> NDArray[np.bool_]:
        """[n] True where the row's place in the list is an older one: by when it was learned, then by id."""
        learned, high, low = (self.ints(name) for name in ("learned_at_us", "id_high", "id_low"))
        first, second = np.frombuffer(trace_id, ">u8")
        older: NDArray[np.bool_] = (learned < learned_at_us) | (
            (learned == learned_at_us) & ((high < first) | ((high == first) & (low < second)))
        )
        return older

    def newest_first(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows in the order of lists."""
        learned, high, low = (self.ints(name)[rows] for name in ("learned_at_us", "id_high", "id_low"))
        return rows[np.lexsort((low, high, learned))[::-1]]

    def row_of_trace(self, first_sequence: int) -> int | None:
        """The live row of the trace whose first row had this sequence number."""
        found = np.nonzero((self.ints("first_sequence") == first_sequence) & self.alive)[0]
        return int(found[-1]) if len(found) else None

    def rows_of(self, sequences: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows that are alive and have one of these sequence numbers."""
        return np.nonzero(np.isin(self.ints("sequence"), sequences) & self.alive)[0]

    def renumber(self, new_rows: NDArray[np.int64]) -> None:
        """Move row i to new_rows[i], drop it where that is negative."""
        order = order_of(new_rows)
        self._arrays = {name: array[: self._size][order] for name, array in self._arrays.items()}
        self._size = len(order)


def order_of(new_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Old rows in the order of their new numbers; without those whose number is negative: they are dropped."""
    kept = np.flatnonzero(new_rows >= 0)
    order: NDArray[np.int64] = kept[np.argsort(new_rows[kept], kind="stable")]
    return order


def _ids(joined: bytes) -> dict[str, NDArray[np.generic]]:
    """Ids as two numbers each, which sort as they do."""
    halves = np.frombuffer(joined, ">u8").reshape(-1, 2)
    return {"id_high": halves[:, 0], "id_low": halves[:, 1]}
