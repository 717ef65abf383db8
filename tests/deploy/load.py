"""Callers of a suite that runs elsewhere: adds, searches, reads and chats without end, every call counted and every failure kept."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType

from ndml.client import ClientOptions, NdmlClient, Retry
from ndml.errors import NdmlError

CALLERS = 4
PATIENT = ClientOptions(retry=Retry(attempts=60))
"""For what is there once: its callers wait until it is back."""
ONCE = ClientOptions(retry=Retry(attempts=1))
"""For what must not be felt at all: a call that does not go well at once is a failure."""
DIMENSION = 384


@dataclass
class Tally:
    """What the callers saw."""

    calls: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.calls.values())


class Load:
    """CALLERS threads against `addresses` (all of them, in turn) for the length of a block; `tally` grows meanwhile.

    `vectors`: callers bring vectors and do not chat, for a suite without an llm service.
    """

    def __init__(
        self, addresses: list[str], options: ClientOptions | None = None, timeout_s: float = 10.0, *, vectors: bool = False
    ) -> None:
        self.tally = Tally()
        self._vectors = vectors
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._client = NdmlClient(",".join(addresses), options=options, timeout_s=timeout_s)
        self._threads = [threading.Thread(target=self._call, args=(f"caller-{number}",)) for number in range(CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def wait_for(self, further: int) -> None:
        """Until so many further calls are done. Raises AssertionError when the callers are gone."""
        goal = self.tally.total + further
        while self.tally.total < goal:
            assert any(thread.is_alive() for thread in self._threads), "the callers ended"
            self._stop.wait(0.05)

    def _call(self, user: str) -> None:
        memory = self._client.scoped(user=user, session="load")
        for number in itertools.count():
            if self._stop.is_set():
                return
            given = [float(axis == number % DIMENSION) for axis in range(DIMENSION)] if self._vectors else None
            said = f"Parcel {number} of {user} lies on shelf {number % 17}."
            asked = "" if self._vectors else f"Where is parcel {number}?"
            trace_id = self._one("add", lambda text=said, v=given: memory.add(text, embedding=v).trace_id)  # type: ignore[misc]
            self._one("search", lambda text=asked, v=given: memory.search(text, embedding=v, k=3))  # type: ignore[misc]
            if trace_id:
                self._one("get", lambda found=trace_id: memory.get(found))  # type: ignore[misc]
            if number % 8 == 0 and not self._vectors:
                self._one("chat", lambda n=number: "".join(memory.chat(f"Where is parcel {n}?")))  # type: ignore[misc]

    def _one(self, kind: str, call: object) -> str:
        try:
            result = call()  # type: ignore[operator]
        except NdmlError as error:
            with self._lock:
                self.tally.failures.append(f"{kind}: {type(error).__name__}: {error}")
            result = ""
        with self._lock:
            self.tally.calls[kind] += 1
        return result if isinstance(result, str) else ""
