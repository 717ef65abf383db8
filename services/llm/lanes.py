"""Who is next: requests wait in two lanes, small ones and imports, and in each lane every request has its turn.

A question of one text is embedded after the batches under way, however long the imports are; and imports get every second take at least,
however many questions come. No threads here: the caller holds its lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.llm.ports import Embedding

TURN_TEXTS = 8  # texts that a request gives in one turn: enough to fill a batch in few turns, few enough to let others in
_CHARS_PER_TOKEN = 4  # to guess a text's size before it is tokenised


@dataclass(eq=False, slots=True)
class Request:
    """Texts of one call on their way through. `next` counts texts taken, `missing` those without a result; dead: nobody waits for it."""

    texts: Sequence[str]
    token_vectors: bool
    word_vectors: bool
    deadline: float | None
    future: asyncio.Future[list[Embedding]]
    loop: asyncio.AbstractEventLoop
    next: int = 0
    missing: int = 0
    results: dict[int, Embedding] = field(default_factory=dict)
    dead: bool = False

    @property
    def small(self) -> bool:
        """Done in one turn."""
        return len(self.texts) <= TURN_TEXTS


Place = tuple[Request, int]


class Lanes:
    """`waiting` counts the texts that no worker took yet."""

    def __init__(self) -> None:
        self._small: deque[Request] = deque()
        self._large: deque[Request] = deque()
        self._owed = False  # a small take was the last: the next goes to the imports if there are any
        self.waiting = 0

    def add(self, request: Request) -> None:
        (self._small if request.small else self._large).append(request)
        self.waiting += len(request.texts)

    def remove(self, request: Request) -> None:
        """Whatever of it was not taken will not be."""
        lane = self._small if request.small else self._large
        if request in lane:
            lane.remove(request)
        self.waiting -= len(request.texts) - request.next
        request.next = len(request.texts)

    def clear(self) -> list[Request]:
        """Empty both; what waited in them."""
        found = [*self._small, *self._large]
        for request in found:
            self.remove(request)
        return found

    def __bool__(self) -> bool:
        return bool(self._small or self._large)

    def urgent(self) -> bool:
        """A small request goes before import batches that are ready, unless it is their turn."""
        return bool(self._small) and not self._owed

    def served_import(self) -> None:
        """A batch of an import runs: small requests may go first again."""
        self._owed = False

    def tokens(self) -> int:
        """Guess of all that waits."""
        return sum(guess(text) for request in (*self._small, *self._large) for text in request.texts[request.next :])

    def take(self, room: int, max_tokens: int, over: Callable[[Request], bool]) -> tuple[list[Place], bool]:
        """Texts of about `room` tokens, a turn of each request after the other, `over` ones left out; and whether they are small ones'."""
        small = bool(self._small) and not (self._owed and self._large)
        self._owed = small
        lane = self._small if small else self._large
        places: list[Place] = []
        while lane and room > 0:
            request = lane[0]
            if over(request):
                self.remove(request)
                continue
            turn = range(request.next, min(request.next + TURN_TEXTS, len(request.texts)))
            places += [(request, place) for place in turn]
            room -= sum(min(guess(request.texts[place]), max_tokens) for place in turn)
            self._advance(lane, turn)
        return places, small

    def _advance(self, lane: deque[Request], turn: range) -> None:
        """The first of the lane gave its turn and goes to the end, or out when nothing is left of it."""
        request = lane.popleft()
        request.next = turn.stop
        self.waiting -= len(turn)
        if request.next < len(request.texts):
            lane.append(request)


def guess(text: str) -> int:
    """Tokens of a text, roughly."""
    return len(text) // _CHARS_PER_TOKEN + 2
