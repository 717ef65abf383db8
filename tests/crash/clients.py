"""Clients of real processes that write, read and note what they were told. One thread and one session each.

A writer has a user and traces of its own. Beside it goes a reader in a session that never writes: what it saw comes from its reads alone.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from random import Random

import numpy as np

from ndml.client import NdmlClient
from ndml.errors import NdmlError, TraceNotFound
from tests.sim.history import GONE, History, Outcome, Read, Write

DIMENSION = 384
TRACES_A_CLIENT = 400
"""Known traces that a client goes on with; older ones rest, so that reads meet what was written lately as well."""
READER_TRACES = 20
"""Traces that a reader goes on with: few, so that it sees each often while it changes."""
READ_PAUSE_S = 0.005
"""Between two reads of a reader: it watches its writer, and must not take the machine from it."""


def vector_of(text: str) -> np.ndarray:
    """A unit vector that depends on nothing but the text, so that no embedding service is needed."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    made = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return made / np.linalg.norm(made)


def text_of(trace: str, number: int) -> str:
    """What write `number` of a trace says."""
    return f"{trace} w{number}"


def number_of(text: str) -> int:
    """The inverse."""
    return int(text.rpartition(" w")[2])


class RecordingClient(threading.Thread):
    """Until `stop` is set: puts, updates, deletes, reads, at random. Whatever fails is noted as UNKNOWN: it may stand or not.

    `reader_of`: only read what that client writes, as they come.
    """

    def __init__(
        self,
        name: str,
        address: str,
        seed: int,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        reader_of: RecordingClient | None = None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.history = History()
        self.failures: list[NdmlError] = []
        self.calls: list[tuple[float, float]] = []
        """(began, seconds) of each call that succeeded."""
        self.ids: dict[str, str] = {} if reader_of is None else reader_of.ids
        self.user: str = name if reader_of is None else reader_of.user
        self._only_reads = reader_of is not None
        self._address = address
        self._random = Random(seed)
        self._stopping = stop
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._made = 0

    def run(self) -> None:
        with NdmlClient(self._address, user=self.user, timeout_s=10.0) as client:
            while not self._stopping.is_set():
                if self._only_reads:
                    self._watch(client)
                else:
                    self._step(client)

    def _watch(self, client: NdmlClient) -> None:
        self._stopping.wait(READ_PAUSE_S)
        # Lately written ones: there two copies may differ. The writer's thread adds to it meanwhile; a list of it is made in one step.
        known = list(self.ids)[-READER_TRACES:]
        if known:
            self._read(client, self._random.choice(known))

    def _step(self, client: NdmlClient) -> None:
        known = list(self._numbers)[-TRACES_A_CLIENT:]
        roll = self._random.random()
        if not known or roll < 0.4:
            self._put(client)
            return
        trace = self._random.choice(known)
        if roll < 0.55:
            self._update(client, trace)
        elif roll < 0.6:
            self._write(client, trace, GONE, lambda: client.delete(self.ids[trace], allow_missing=True))
        else:
            self._read(client, trace)

    def _put(self, client: NdmlClient) -> None:
        self._made += 1
        trace = f"{self.name}-{self._made}"
        text = text_of(trace, 1)

        def put() -> None:
            self.ids[trace] = client.add(text, embedding=vector_of(text), request_id=trace).trace_id

        self._write(client, trace, 1, put)

    def _update(self, client: NdmlClient, trace: str) -> None:
        number = self._numbers[trace] + 1
        text = text_of(trace, number)
        self._write(client, trace, number, lambda: client.update(self.ids[trace], text=text, embedding=vector_of(text)))

    def _write(self, client: NdmlClient, trace: str, number: int, call: Callable[[], object]) -> None:
        began = self._clock()
        outcome = Outcome.ACKED
        try:
            call()
            self.calls.append((began, self._clock() - began))
        except NdmlError as error:
            self.failures.append(error)
            outcome = Outcome.UNKNOWN
        self.history.add(Write(self.name, trace, number, outcome, self._clock()))
        if number == GONE or trace not in self.ids:
            self._numbers.pop(trace, None)
        else:
            self._numbers[trace] = number

    def _read(self, client: NdmlClient, trace: str) -> None:
        began = self._clock()
        try:
            number = number_of(client.get(self.ids[trace]).text)
            self.calls.append((began, self._clock() - began))
        except TraceNotFound:
            number = 0
        except NdmlError as error:
            self.failures.append(error)
            return
        self.history.add(Read(self.name, trace, number, self._clock()))


def crew(writers: int, address: str, seed: int, stop: threading.Event) -> tuple[list[RecordingClient], list[RecordingClient]]:
    """So many writers, each with a reader; not started."""
    made = [RecordingClient(f"client-{i}", address, seed * 1000 + i, stop) for i in range(writers)]
    watching = [RecordingClient(f"reader-{i}", address, seed * 1000 + 500 + i, stop, reader_of=writer) for i, writer in enumerate(made)]
    return made, watching


def together(clients: list[RecordingClient]) -> History:
    """All that they noted. Each session's events keep their order, which is all that the checkers need."""
    return History([event for client in clients for event in client.history.events])
