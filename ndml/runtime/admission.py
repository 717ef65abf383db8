"""Whether there is time for one more call: refused at once, before any work, where the queue is longer than its deadline allows.

Calls of a method that wait for the same thing leave in the order in which they came, so a new one waits as long as those before it take:
calls under way / calls that leave a second (Little's law). No fixed limit does that: a hundred calls are nothing for a fast method and
a minute for a slow one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ndml.errors import DeadlinePassed, Overloaded

_WINDOW_S = 1.0
"""Busy seconds after which what was seen counts half: a rate follows a change within a second or two."""
_FORGET_S = 60.0
"""Without a queue for so long, a rate is forgotten: it says nothing of the next one."""
_HOPELESS = 0.5
"""With less time than this share of what the fastest took, a call cannot be answered."""
_LATE_S = 0.25
"""After a call that came too late the service counts as crowded for so long."""
_PROBE_S = 0.25
"""Between two calls that are tried although they seem to have no time."""
_CROWDED_S = 0.1
"""A shorter wait is nobody's deadline: calls are then served on their shortest way, and looked at when they are read."""
_LEAST_RETRY_S, _MOST_RETRY_S = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be under way.

    calls       calls of any kind at once
    body_bytes  bytes of the requests of unary calls at once; one larger than that is let in when it is alone
    always      unary calls of one method that are let in whatever their deadline: below it a rate would be guessed from too few
    share       of a caller's remaining time, the most that a call may be expected to wait
    refusals_s  refusals answered a second; more wait for their turn
    """

    calls: int
    body_bytes: int = 1 << 62
    always: int = 8
    share: float = 0.5
    refusals_s: float = 200.0


class Pace:
    """Turns at an even rate. A refusal costs half of what a small call does: answered at once, those who come back at once would have all
    of the service's time."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_s = 1.0 / per_s
        self._clock = clock
        self._next = clock()

    def wait_s(self, most_s: float) -> float:
        """Seconds until the turn that this takes, `most_s` at most."""
        now = self._clock()
        self._next = max(now, self._next) + self._each_s
        return min(most_s, self._next - self._each_s - now)


class Flow:
    """Calls of one method: how many are under way, and how quickly they leave while there is no room. Belongs to the event loop.

    The room is `always` while calls are answered in time. Each that runs into its deadline halves it, down to one, and each answer makes it
    larger again (additive increase, multiplicative decrease): that many calls side by side were too many for the time they had.
    """

    __slots__ = (
        "_always",
        "_busy_s",
        "_clock",
        "_fastest",
        "_fastest_before",
        "_fastest_since",
        "_last",
        "_last_busy",
        "_left",
        "_next_probe",
        "_room",
        "under_way",
    )

    def __init__(self, always: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._always = always
        self._room = float(always)
        self._clock = clock
        self.under_way = 0
        self._left = 0.0
        self._busy_s = 0.0
        self._last = self._last_busy = self._fastest_since = clock()
        self._fastest = self._fastest_before = math.inf
        self._next_probe = 0.0

    def enter(self) -> None:
        self._advance()
        if not self.under_way:
            self._next_probe = self._clock() + _PROBE_S
        self.under_way += 1

    def leave(self, took_s: float | None = None) -> None:
        """`took_s`: where it was answered. Callers that gave up do not count: they leave together, and say nothing of the speed."""
        self._advance()
        if self.under_way >= self._room and took_s is not None:
            self._left += 1
        self.under_way -= 1
        if took_s is None:
            self._room = max(1.0, self._room / 2)
        else:
            self._room = min(self._always, self._room + 1 / self._room)
            self._forget_fast()
            self._fastest = min(self._fastest, took_s)

    def least_s(self) -> float:
        """Seconds that the fastest call took of those answered lately; 0: there was none."""
        self._forget_fast()
        fastest = min(self._fastest, self._fastest_before)
        return 0.0 if math.isinf(fastest) else fastest

    def may_probe(self) -> bool:
        """Whether a call that seems to have no time is to be tried: now and then one by itself. What was fastest in a crowd says little of
        what is possible once everybody was refused, and without an answer nothing else would tell."""
        return not self.under_way and self._clock() >= self._next_probe

    def _forget_fast(self) -> None:
        passed = self._clock() - self._fastest_since
        if passed > _FORGET_S:
            self._fastest = self._fastest_before = math.inf
            self._fastest_since = self._clock()
        elif passed > _WINDOW_S and not math.isinf(self._fastest):
            # Without an answer in time the last ones stand: it is then that calls without time must not be let in.
            self._fastest_before, self._fastest, self._fastest_since = self._fastest, math.inf, self._clock()

    def expected_s(self) -> float:
        """Seconds that one more call would be under way; 0 where there is no queue.

        Where less than `always` were answered: the time between two answers, the least it can be. Calls of which none is answered in time
        would otherwise never show how slow they are, and all of the service's work would be for callers that have given up.
        """
        if self.under_way < self._room:
            return 0.0
        self._advance()
        ahead = self.under_way + 1 if self._left >= self._always else 1
        return ahead * self._busy_s / max(self._left, 1.0)

    def _advance(self) -> None:
        now = self._clock()
        if self.under_way >= self._room:
            self._busy_s += now - self._last
            self._last_busy = now
            # Both at once, and only while enough is left to tell a rate from: what is slow is looked at for longer.
            if self._busy_s > _WINDOW_S and self._left >= 2 * self._always:
                self._busy_s /= 2
                self._left /= 2
        elif now - self._last_busy > _FORGET_S:
            self._busy_s = self._left = 0.0
        self._last = now


class Admission:
    """Counts what is under way in one process and says what no longer fits. Belongs to the event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._flows: dict[str, Flow] = {}
        self._bytes = 0
        self._late_until = 0.0

    def is_crowded(self, method: str) -> bool:
        """Calls of the method wait for long, or came too late a moment ago: look at the next one's deadline before its request is read."""
        return self._clock() < self._late_until or self._flow(method).expected_s() > _CROWDED_S

    def methods(self) -> list[str]:
        """Of which calls were counted."""
        return list(self._flows)

    def _flow(self, method: str) -> Flow:
        flow = self._flows.get(method)
        if flow is None:
            flow = self._flows[method] = Flow(self._limits.always, self._clock)
        return flow

    def check_calls(self, under_way: int) -> None:
        """Raises Overloaded when one more than `under_way` calls are too many."""
        if under_way >= self._limits.calls:
            raise Overloaded(f"{self._limits.calls} calls are under way (server.max_in_flight): come back shortly")

    def check_time(self, method: str, remaining_s: float | None) -> None:
        """Raises Overloaded where a unary call would wait for too much of its `remaining_s`, DeadlinePassed where it is hopeless."""
        if remaining_s is None:
            return
        now, flow = self._clock(), self._flow(method)
        least_s = flow.least_s()
        if remaining_s <= least_s and flow.may_probe():
            return
        if remaining_s <= least_s * _HOPELESS:
            # It waited before anybody could look at it; so will the next ones, and what they have left is to be looked at closely.
            self._late_until = now + _LATE_S
            raise DeadlinePassed(f"{remaining_s:.3f} s of the deadline were left, less than any call takes lately: nothing was done")
        expected = flow.expected_s()
        if expected > self._limits.share * remaining_s or (now < self._late_until and remaining_s <= least_s):
            self._late_until = now + _LATE_S
            # A delay in steps: a message of its own for each call would cost more than it says.
            retry = min(_MOST_RETRY_S, max(_LEAST_RETRY_S, round(expected, 1)))
            raise Overloaded(
                f"calls wait about {retry} s, and more than server.wait_share of your deadline: come back later, or with more time",
                retry_after_s=retry,
            )

    def check_bytes(self, size: int) -> None:
        """Raises Overloaded where a request of `size` bytes does not fit beside the others."""
        if self._bytes and self._bytes + size > self._limits.body_bytes:
            raise Overloaded(f"requests under way have {self._bytes} bytes (server.max_in_flight_bytes): come back shortly")

    def enter(self, method: str, size: int) -> Flow:
        """Count a unary call of `size` bytes in; `leave` with what this gives."""
        flow = self._flow(method)
        self._bytes += size
        flow.enter()
        return flow

    def leave(self, flow: Flow, size: int, took_s: float | None) -> None:
        """`took_s`: see `Flow.leave`."""
        self._bytes -= size
        flow.leave(took_s)
