"""One seed, in a process of its own or not: what is wrong with it, and how to see it again."""

from __future__ import annotations

from tests.sim.records import Records
from tests.sim.world import Outcome, simulate


def suite(seed: int) -> Outcome | tuple[int, str]:
    """What became of a seed; its number and why where it could not be run to its end."""
    try:
        return simulate(seed)
    except Exception as error:  # whatever it is, the seed has found it, and the others are to go on
        return seed, f"{type(error).__name__}: {error}"


def lattice(seed: int) -> tuple[int, str]:
    """The seed and what is wrong, of the lattice alone."""
    return seed, "; ".join(Records(seed).run())


def told(found: Outcome | tuple[int, str]) -> list[str]:
    """What is wrong, for people; nothing where all is well."""
    if isinstance(found, tuple):
        return [found[1]] if found[1] else []
    return found.violations


def again(seed: int, *, records: bool = False) -> str:
    """The command that repeats a seed."""
    return f"python -m tests.sim --from {seed} --seeds 1 {'--records' if records else '--verbose'}"
