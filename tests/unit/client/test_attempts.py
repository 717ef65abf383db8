"""When a failed attempt is repeated: a table over a clock that stands still."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from ndml import wire
from ndml.client import Retry
from ndml.client._attempts import Attempts
from ndml.errors import CapacityReached, FieldInvalid, NdmlError, Overloaded, OwnerUnavailable


class Failure(grpc.RpcError):
    """What gRPC raises, with or without the server's details."""

    def __init__(self, code: grpc.StatusCode, error: NdmlError | None = None) -> None:
        self._code, self._error = code, error

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "from gRPC itself"

    def trailing_metadata(self) -> Any:
        return wire.to_grpc_status(self._error).trailing_metadata if self._error else ()


def attempts(*, timeout_s: float = 10.0, repeatable: bool = True) -> Attempts:
    return Attempts(
        Retry(attempts=3, first_delay_s=0.1, max_delay_s=1.0), timeout_s, repeatable=repeatable, clock=lambda: 0.0, chance=lambda: 0.0
    )


DEAD = Failure(grpc.StatusCode.UNAVAILABLE)
BUSY = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded("queue is full", retry_after_s=0.7))


def test_a_dead_connection_is_tried_again_with_growing_delays_then_raised() -> None:
    tries = attempts()
    assert [tries.delay_after(DEAD), tries.delay_after(DEAD)] == [0.1, 0.2]
    with pytest.raises(OwnerUnavailable):
        tries.delay_after(DEAD)


def test_the_servers_delay_counts() -> None:
    assert attempts().delay_after(BUSY) == 0.7


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded("later", retry_after_s=60)), Overloaded),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, CapacityReached("full")), CapacityReached),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED), Overloaded),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT, FieldInvalid("no", field="k")), FieldInvalid),
    ],
    ids=["longer than the bound", "no delay given", "limit of gRPC itself", "the caller's mistake"],
)
def test_what_time_does_not_mend_is_raised_at_once(failure: Failure, error: type[NdmlError]) -> None:
    with pytest.raises(error):
        attempts().delay_after(failure)


def test_no_second_try_beyond_the_deadline_or_where_it_could_do_harm_or_once_begun() -> None:
    for tries, begun in ((attempts(timeout_s=0.5), False), (attempts(repeatable=False), False), (attempts(), True)):
        with pytest.raises(Overloaded):
            tries.delay_after(BUSY, begun=begun)
