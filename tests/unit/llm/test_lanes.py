from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.llm.lanes import TURN_TEXTS, Lanes, Request

ROOM = 256


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def _request(loop: asyncio.AbstractEventLoop, count: int) -> Request:
    return Request(["some words of a text"] * count, False, False, None, loop.create_future(), loop, missing=count)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 60), st.just(0)), min_size=1, max_size=40), st.sets(st.integers(0, 39)))
def test_every_text_is_taken_once_in_order_and_the_count_is_right(
    loop: asyncio.AbstractEventLoop, steps: list[int], gone: set[int]
) -> None:
    """A step adds a request of so many texts, or takes (0); requests in `gone` are over before their first take."""
    lanes, requests, taken = Lanes(), list[Request](), list[tuple[Request, int]]()
    for count in [*steps, *[0] * 200]:
        if count:
            requests.append(_request(loop, count))
            requests[-1].dead = len(requests) - 1 in gone
            lanes.add(requests[-1])
        else:
            taken += lanes.take(ROOM, 256, lambda r: r.dead)[0]
        assert lanes.waiting == sum(len(r.texts) - r.next for r in requests)
    assert not lanes
    for request in requests:
        expected = [] if request.dead else list(range(len(request.texts)))
        assert [place for owner, place in taken if owner is request] == expected


def test_small_requests_and_imports_alternate_while_both_wait(loop: asyncio.AbstractEventLoop) -> None:
    lanes = Lanes()
    lanes.add(_request(loop, 4000))
    kinds = []
    for _ in range(20):
        for _ in range(100):
            lanes.add(_request(loop, TURN_TEXTS))
        places, small = lanes.take(ROOM, 256, lambda r: r.dead)
        assert places
        assert all(request.small == small for request, _ in places)
        kinds.append(small)
    assert kinds == [True, False] * 10


def test_a_question_goes_before_import_batches_that_are_ready_but_not_twice(loop: asyncio.AbstractEventLoop) -> None:
    lanes = Lanes()
    lanes.add(_request(loop, 400))
    assert not lanes.urgent()
    lanes.add(_request(loop, 1))
    assert lanes.urgent()
    assert lanes.take(ROOM, 256, lambda r: r.dead)[1]
    lanes.add(_request(loop, 1))
    assert not lanes.urgent()
    lanes.served_import()
    assert lanes.urgent()


def test_imports_share_a_take(loop: asyncio.AbstractEventLoop) -> None:
    lanes, imports = Lanes(), [_request(loop, 256) for _ in range(3)]
    for request in imports:
        lanes.add(request)
    places, _ = lanes.take(ROOM, 256, lambda r: r.dead)
    assert {request for request, _ in places} == set(imports)
