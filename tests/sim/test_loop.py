"""The simulator's own parts: time that only moves when all sleep, a network that does what it says, the same seed twice the same run."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.sim.loop import Deadlock, VirtualLoop, run
from tests.sim.network import Lost, Network, Weather


def test_hours_pass_in_an_instant_and_in_order() -> None:
    seen: list[tuple[float, str]] = []

    async def main(loop: VirtualLoop) -> float:
        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((loop.time(), name))

        await asyncio.gather(sleeper("b", 7200.0), sleeper("a", 3600.0), asyncio.to_thread(lambda: None))
        return loop.time()

    assert run(main) == 7200.0 and seen == [(3600.0, "a"), (7200.0, "b")]


def test_waiting_for_nothing_is_a_deadlock() -> None:
    async def main(loop: VirtualLoop) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(main)


def test_timers_of_one_moment_keep_their_order_and_cancelled_ones_are_nothing() -> None:
    seen: list[int] = []

    async def main(loop: VirtualLoop) -> None:
        timers = [loop.call_at(5.0, seen.append, i) for i in range(20)]
        for timer in timers[::3]:
            timer.cancel()
        await asyncio.sleep(5.0)
        loop.call_later(1.0, seen.append, -1).cancel()
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(main)
    assert seen == [i for i in range(20) if i % 3]


def test_a_callback_that_fails_ends_the_run() -> None:
    async def main(loop: VirtualLoop) -> None:
        loop.call_later(1.0, int, "x")
        await asyncio.sleep(2.0)

    with pytest.raises(ValueError, match="invalid literal"):
        run(main)


def _traffic(seed: int) -> list[tuple[float, str]]:
    async def main(loop: VirtualLoop) -> list[tuple[float, str]]:
        network = Network(Random(seed), Weather(drop=0.3, repeat=0.2))
        heard: list[tuple[float, str]] = []

        async def call(i: int) -> None:
            async def serve() -> None:
                heard.append((loop.time(), str(i)))

            try:
                await network.call("a", "b", serve)
            except Lost:
                heard.append((loop.time(), f"lost {i}"))

        await asyncio.gather(*(call(i) for i in range(50)))
        return heard

    return run(main)


def test_one_seed_one_run() -> None:
    first = _traffic(1)
    assert first == _traffic(1) and first != _traffic(2)
    names = [name for _, name in first]
    assert any(name.startswith("lost") for name in names)
    assert [name for name in names if not name.startswith("lost")] != sorted(set(names)), "nothing was reordered or repeated"


def test_a_cut_is_one_way_and_a_dead_place_is_silent() -> None:
    async def main(loop: VirtualLoop) -> None:
        network = Network(Random(0), Weather())

        async def serve() -> int:
            return 1

        network.cut("a", "b")
        with pytest.raises(Lost):
            await network.call("a", "b", serve)
        with pytest.raises(Lost):  # it arrives, the answer does not
            await network.call("b", "a", serve)
        network.heal()
        network.stop("b")
        with pytest.raises(Lost):
            await network.call("a", "b", serve)
        network.start("b")
        assert await network.call("a", "b", serve) == 1

    run(main)
