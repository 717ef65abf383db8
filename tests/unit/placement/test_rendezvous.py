"""Rendezvous hashing: balance, minimal movement, zone spread, one answer in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.placement import Ring, owner_key

OWNERS = [(f"tenant-{i % 7}", f"user-{i}") for i in range(6000)]
names = st.text("abcdefgh-", min_size=1, max_size=6)
PINNED = [["node-0", "node-1"], ["node-2", "node-1"], ["node-1", "node-0"], ["node-2", "node-1"]]
clusters = st.dictionaries(names, st.sampled_from(["", "z1", "z2", "z3"]), min_size=1, max_size=9)
owners = st.tuples(st.text(max_size=12), st.text(max_size=12))


def ids(ring: Ring, tenant: str, user: str) -> list[str]:
    return [ring.nodes[index][0] for index in ring.rank(tenant, user)]


@pytest.mark.parametrize("count", [2, 3, 7, 16])
def test_keys_are_spread_evenly(count: int) -> None:
    """Chi-square of the first owners stays below its 99.9 % point (Wilson-Hilferty)."""
    ring = Ring([(f"node-{i}", "") for i in range(count)], 1)
    load = Counter(ids(ring, *owner)[0] for owner in OWNERS)
    mean = len(OWNERS) / count
    chi_square = sum((load[node] - mean) ** 2 / mean for node, _ in ring.nodes)
    freedom = count - 1
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3


def test_a_joining_member_takes_only_its_share() -> None:
    before = Ring([(f"node-{i}", "") for i in range(5)], 1)
    after = Ring([*before.nodes, ("node-new", "")], 1)
    moved = [owner for owner in OWNERS if ids(before, *owner) != ids(after, *owner)]
    assert {ids(after, *owner)[0] for owner in moved} == {"node-new"}
    assert len(moved) / len(OWNERS) == pytest.approx(1 / 6, abs=0.02)


@settings(max_examples=150, deadline=None)
@given(clusters, names, st.sampled_from(["", "z1", "z4"]), owners, st.integers(1, 4))
def test_a_join_moves_nothing_between_the_others(nodes: dict[str, str], new: str, zone: str, owner: tuple[str, str], rf: int) -> None:
    nodes.pop(new, None)
    before = set(ids(Ring(nodes.items(), rf), *owner))
    after = set(ids(Ring([*nodes.items(), (new, zone)], rf), *owner))
    assert after <= before | {new}
    assert before - after == set() or new in after
    assert len(after) == min(rf, len(nodes) + 1)


@settings(max_examples=150, deadline=None)
@given(clusters, owners, st.integers(1, 6))
def test_replicas_fill_zones_round_by_round(nodes: dict[str, str], owner: tuple[str, str], rf: int) -> None:
    chosen = ids(Ring(nodes.items(), rf), *owner)
    assert len(set(chosen)) == len(chosen) == min(rf, len(nodes))
    taken = Counter(nodes[node] for node in chosen)
    room = Counter(nodes.values())
    open_zones = [zone for zone in room if taken[zone] < room[zone]]
    assert all(max(taken.values()) - taken[zone] <= 1 for zone in open_zones), "a zone with room lags by more than one replica"


@settings(max_examples=200, deadline=None)
@given(owners, owners)
def test_owner_keys_are_injective(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (owner_key(*one) == owner_key(*other)) == (one == other)


def test_moving_the_border_between_tenant_and_user_changes_the_key() -> None:
    assert owner_key("a", "bc") != owner_key("ab", "c")


def test_every_process_gives_the_same_owners() -> None:
    code = (
        "from ndml.placement import Ring\n"
        "ring = Ring([(f'n{i}', f'z{i % 2}') for i in range(5)], 2)\n"
        "print([ring.rank('acme', f'user-{i}') for i in range(200)])"
    )

    def run(seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout

    assert run("1") == run("2")


def test_the_hash_is_pinned() -> None:
    """Stored data lies where these answers say: a release that changes them must move it."""
    ring = Ring([("node-0", "a"), ("node-1", "b"), ("node-2", "a")], 2)
    assert [ids(ring, "acme", user) for user in ("ada", "bob", "", "日本")] == PINNED


def test_order_of_declaration_does_not_matter() -> None:
    nodes = [(f"node-{i}", f"z{i % 3}") for i in range(8)]
    forward, backward = Ring(nodes, 3), Ring(reversed(nodes), 3)
    assert all(ids(forward, *owner) == ids(backward, *owner) for owner in OWNERS[:300])


def test_the_cache_is_bounded_and_changes_no_answer() -> None:
    small, large = Ring([("a", ""), ("b", ""), ("c", "")], 2, cache_owners=8), Ring([("a", ""), ("b", ""), ("c", "")], 2)
    assert [small.rank(*owner) for owner in OWNERS[:500]] == [large.rank(*owner) for owner in OWNERS[:500]]
    assert small.rank.cache_info().currsize == 8


def test_no_members_no_owners() -> None:
    assert Ring([], 2).rank("acme", "ada") == ()
