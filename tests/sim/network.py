"""A network that loses, repeats, delays and reorders messages, and is cut in two, also one way only. Seeded; time is the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

R = TypeVar("R")


class Lost(ConnectionError):
    """The request, or its answer, did not arrive: the caller cannot know which."""


@dataclass(slots=True)
class Weather:
    """Chances of a message, 0 to 1, and its delay in seconds, exponential around the mean."""

    drop: float = 0.0
    repeat: float = 0.0
    delay_s: float = 0.002
    give_up_s: float = 1.0
    """After so long a caller takes a lost message for lost."""


class Network:
    """Calls between named places. `cut(a, b)` loses what goes from a to b; `heal()` ends all cuts."""

    def __init__(self, random: Random, weather: Weather) -> None:
        self.random = random
        self.weather = weather
        self._cuts: set[tuple[str, str]] = set()
        self._down: set[str] = set()
        self.messages = 0

    def cut(self, source: str, target: str) -> None:
        """One way; call it twice for both."""
        self._cuts.add((source, target))

    def heal(self) -> None:
        self._cuts.clear()

    def stop(self, place: str) -> None:
        """The place is dead: nothing reaches it, nothing leaves it."""
        self._down.add(place)

    def start(self, place: str) -> None:
        self._down.discard(place)

    def is_up(self, place: str) -> bool:
        return place not in self._down

    async def call(self, source: str, target: str, serve: Callable[[], Awaitable[R]]) -> R:
        """Have `serve` run at the target and bring its answer back. Raises Lost, or what `serve` raises, if that arrives."""
        await self._travel(source, target)
        if self.random.random() < self.weather.repeat:
            # The target hears it twice; the caller, who reads one answer, hears nothing of the second.
            self._again(target, serve)
        try:
            answer = await serve()
        except Exception:
            await self._travel(target, source)
            raise
        await self._travel(target, source)
        return answer

    def delay(self) -> float:
        """Seconds that the next message takes."""
        return self.random.expovariate(1.0 / self.weather.delay_s)

    def arrives(self, source: str, target: str) -> bool:
        """Whether a message that is to arrive now does."""
        self.messages += 1
        return self.passes(source, target) and self.random.random() >= self.weather.drop

    async def _travel(self, source: str, target: str) -> None:
        await asyncio.sleep(self.delay())
        if not self.arrives(source, target):
            await asyncio.sleep(self.weather.give_up_s)
            raise Lost(f"{source} -> {target}")

    def passes(self, source: str, target: str) -> bool:
        """False where a cut or a dead end is between them."""
        return (source, target) not in self._cuts and self.is_up(source) and self.is_up(target)

    def _again(self, target: str, serve: Callable[[], Awaitable[R]]) -> None:
        async def later() -> None:
            await asyncio.sleep(5.0 * self.delay())
            if self.is_up(target):
                await serve()

        task = asyncio.get_running_loop().create_task(later())
        # What a repeated message provokes is nobody's answer: a refusal is one of the things it may be.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
