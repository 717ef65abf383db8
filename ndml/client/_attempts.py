"""When a failed attempt may be repeated. Pure but for the clock and the chance it is given.

gRPC's own retry policy is not used: it knows neither the server's RetryInfo nor whether this very request is safe to repeat.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from ndml import wire
from ndml.client._options import Retry
from ndml.errors import NdmlError, ResourceExhausted, Unavailable

_DETAILS = "grpc-status-details-bin"


class Attempts:
    """The attempts of one call: asks after each failure how long to wait, within the call's deadline."""

    def __init__(
        self,
        policy: Retry,
        timeout_s: float,
        *,
        repeatable: bool,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy, self._repeatable = policy, repeatable
        self._clock, self._chance = clock, chance
        self._deadline = clock() + timeout_s
        self._made = 0

    def remaining(self) -> float:
        """Seconds to the deadline, for the next attempt; never negative."""
        return max(0.0, self._deadline - self._clock())

    def delay_after(self, failure: grpc.RpcError, *, begun: bool = False) -> float:
        """Seconds to wait before the next attempt. `begun`: part of the answer was used already, so there is no going back.

        Raises: the NdmlError that the failure stands for, when no further attempt may help.
        """
        self._made += 1
        error = wire.rpc_error_to_ndml(failure)
        trailing: Iterable[Any] = failure.trailing_metadata() or ()  # The typed stubs know the sync form only.
        delay = self._delay(error, said_by_server=any(key == _DETAILS for key, _ in trailing))
        if delay is None or begun or delay >= self.remaining():
            raise error from failure
        return delay

    def _delay(self, error: NdmlError, *, said_by_server: bool) -> float | None:
        if not self._repeatable or self._made >= self._policy.attempts:
            return None
        if not isinstance(error, Unavailable) and not (isinstance(error, ResourceExhausted) and said_by_server):
            return None  # A limit that gRPC itself enforces (message size) does not pass with time.
        asked = error.retry_after_s if said_by_server else 0.0
        if asked is None or asked > self._policy.max_delay_s:
            return None
        backoff = min(self._policy.max_delay_s, self._policy.first_delay_s * 2.0 ** (self._made - 1))
        return max(asked, backoff * (1 - self._chance() / 4))
