"""Message counts of 1,000 simulated nodes are those of the formulas, and a tenth of them may crash."""

from __future__ import annotations

from random import Random

import pytest

from tests.sim.gossip import Expected, Plumtree, Zones, push, random_links

NODES, ZONES, VIEW = 1000, 10, 5
EXPECTED = Expected(NODES, ZONES, 10, VIEW)
SEEDS = range(4)


def grown(seed: int) -> tuple[Plumtree, Random]:
    """A tree after its first flood."""
    random = Random(seed)
    tree = Plumtree(random_links(range(NODES), VIEW, random), random, lambda node: node * ZONES // NODES)
    flood = tree.broadcast(random.randrange(NODES))
    assert flood.reached == NODES
    assert flood.payloads == NODES * VIEW - (NODES - 1), "every link both ways, but not back to where it came from first"
    return tree, random


def anyone(tree: Plumtree | Zones, random: Random) -> int:
    return random.choice(sorted(tree.living))


def test_everybody_has_its_neighbours() -> None:
    links = random_links(range(NODES), VIEW, Random(7))
    assert all(len(others) == VIEW and node not in others for node, others in links.items())
    assert all(node in links[other] for node, others in links.items() for other in others)


def test_all_to_all_push_is_square() -> None:
    tally = push(NODES, NODES - 1, Random(0))
    assert (tally.payloads, tally.reached, tally.rounds) == (EXPECTED.all_to_all(), NODES, 1)


@pytest.mark.parametrize("fanout", [7, 10, 12])
def test_random_gossip_reaches_all_as_often_as_computed(fanout: int) -> None:
    runs = [push(NODES, fanout, Random(seed)) for seed in range(60)]
    expected = Expected(NODES, ZONES, fanout, VIEW)
    chance = expected.gossip_reaches_all()
    whole = sum(run.reached == NODES for run in runs)
    assert abs(whole - 60 * chance) <= 4 * (60 * chance * (1 - chance)) ** 0.5
    assert all(run.payloads == fanout * run.reached <= expected.gossip_payloads() for run in runs)
    assert all(expected.gossip_rounds() <= run.rounds <= 2 * expected.gossip_rounds() for run in runs)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_flood_makes_a_tree_that_serves_every_source(seed: int) -> None:
    tree, random = grown(seed)
    assert tree.tree_links() == NODES - 1
    for _ in range(3):
        tally = tree.broadcast(anyone(tree, random))
        assert tally.reached == NODES and tally.redundancy() <= 1.05
        assert tally.payloads == EXPECTED.tree_payloads()
        assert abs(tally.ids - EXPECTED.tree_ids()) <= VIEW
        # Which links became the tree is chance: four standard deviations around the formula.
        assert abs(tally.wide - EXPECTED.flat_wide()) <= 4 * (EXPECTED.flat_wide() / ZONES) ** 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tenth_crashes_and_everybody_else_hears_on(seed: int) -> None:
    tree, random = grown(seed)
    tree.crash(random.sample(range(NODES), NODES // 10))
    torn = tree.broadcast(anyone(tree, random))
    assert torn.grafts > 0 and torn.reached >= 0.99 * len(tree.living), "a node may have lost all five neighbours"
    tree.mend()
    assert tree.broadcast(anyone(tree, random)).reached == len(tree.living)
    for _ in range(3):
        after = tree.broadcast(anyone(tree, random))
        assert after.reached == len(tree.living) and after.redundancy() <= 1.05


def test_without_asking_for_what_was_announced_a_crash_cuts_nodes_off() -> None:
    class Deaf(Plumtree):
        def _ask(self, node: int) -> None: ...

    random = Random(0)
    tree = Deaf(random_links(range(NODES), VIEW, random), random)
    tree.broadcast(0)
    tree.crash(random.sample(range(NODES), NODES // 10))
    assert tree.broadcast(anyone(tree, random)).reached < len(tree.living)


@pytest.mark.parametrize("seed", SEEDS)
def test_between_zones_there_is_one_payload_a_zone(seed: int) -> None:
    random = Random(seed)
    zones = Zones(NODES, ZONES, VIEW, random)
    for source in (random.randrange(NODES) for _ in range(2)):
        tally = zones.broadcast(source)
    assert (tally.wide, tally.payloads, tally.reached) == (EXPECTED.zoned_wide(), NODES - 1, NODES)
    zones.crash([0, NODES // ZONES, *random.sample(range(NODES), NODES // 10)])
    zones.broadcast(anyone(zones, random))
    zones.mend()
    for _ in range(2):
        after = zones.broadcast(anyone(zones, random))
    assert after.reached == len(zones.living) and after.redundancy() <= 1.05
    assert EXPECTED.zoned_wide() <= after.wide <= 2 * EXPECTED.zoned_wide(), "dead gateways are tried once each"
