"""Rounds of reading, one after the other, as frames."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from ndml.cli.monitoring.model import Frame, frame
from ndml.cli.monitoring.rates import History
from ndml.cli.monitoring.samples import Scrape
from ndml.cli.monitoring.sources import Reading, Target

# Long enough that a quantile stands on more than a few calls, short enough that what has ended is gone from the screen.
WINDOW_S = 10.0


class Watch:
    """Keeps each process's last scrapes. `read` does a round; one caller at a time."""

    def __init__(self, read: Callable[[], Reading], window_s: float, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._read = read
        self._window_s = window_s
        self._now = now
        self._histories: dict[Target, History] = {}

    def reading(self) -> Reading:
        """One round; its scrapes are kept."""
        found = self._read()
        for target, answer in found.answers.items():
            if isinstance(answer, Scrape):
                self._histories.setdefault(target, History(self._window_s)).add(answer)
        # A pod that is gone for good has another address when it comes back.
        self._histories = {target: history for target, history in self._histories.items() if target in found.answers}
        return found

    def frame(self) -> Frame:
        """One round, as it is shown."""
        found = self.reading()
        return frame(found, {target: history.growth() for target, history in self._histories.items()}, self._now())
