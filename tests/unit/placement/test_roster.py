"""The roster is a join-semilattice, and the placement that readers hold only moves forward."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid
from ndml.placement import MemberPhase, MemberState, NodeRecord, Placement, PlacementNode, check_record, digest_of, epoch_of, join
from ndml.v1 import admin_pb2

records = st.builds(
    NodeRecord,
    node_id=st.sampled_from(["n1", "n2", "n3"]),
    address=st.sampled_from(["h:1", "h:2"]),
    zone=st.sampled_from(["", "z"]),
    incarnation=st.integers(1, 4),
    phase=st.sampled_from([MemberPhase.JOINING, MemberPhase.ACTIVE, MemberPhase.LEAVING, MemberPhase.LEFT]),
    replica=st.sampled_from([0, 7, 2**63 - 1]),
)
rosters = st.lists(records, max_size=6).map(lambda items: join({}, items))


@settings(max_examples=200, deadline=None)
@given(rosters, rosters, rosters)
def test_join_is_a_least_upper_bound(a: dict[str, NodeRecord], b: dict[str, NodeRecord], c: dict[str, NodeRecord]) -> None:
    ab = join(a, b.values())
    assert ab == join(b, a.values())
    assert join(a, a.values()) == a
    assert join(ab, c.values()) == join(a, join(b, c.values()).values())
    assert epoch_of(ab.values()) >= max(epoch_of(a.values()), epoch_of(b.values()))


@settings(max_examples=100, deadline=None)
@given(rosters, rosters)
def test_digests_are_equal_exactly_on_equal_rosters(a: dict[str, NodeRecord], b: dict[str, NodeRecord]) -> None:
    assert (digest_of(a.values()) == digest_of(reversed(list(b.values())))) == (a == b)


@settings(max_examples=100, deadline=None)
@given(st.lists(records, min_size=1, max_size=12), st.integers(0, 2**16))
def test_delivery_order_repeats_and_losses_that_are_healed_do_not_matter(items: list[NodeRecord], seed: int) -> None:
    shuffled = items * 2
    random.Random(seed).shuffle(shuffled)
    one, other = join({}, items), join({}, shuffled[: len(items)])
    assert join(other, one.values()) == one


def test_joining_changes_neither_argument() -> None:
    known = {"n1": NodeRecord("n1", "h:1", incarnation=1)}
    assert join(known, [NodeRecord("n1", "h:2", incarnation=2)])["n1"].address == "h:2"
    assert known["n1"].address == "h:1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"node_id": ""}, "node.node_id"),
        ({"node_id": "é" * 65}, "node.node_id"),
        ({"address": ""}, "node.address"),
        ({"address": "host"}, "node.address"),
        ({"address": "host:0"}, "node.address"),
        ({"address": "ho st:1"}, "node.address"),
        ({"address": "::1:80"}, "node.address"),
        ({"address": "h" * 300 + ":1"}, "node.address"),
        ({"zone": "z" * 65}, "node.zone"),
        ({"profile": ""}, "node.profile"),
        ({"incarnation": 0}, "node.incarnation"),
        ({"incarnation": 2**60}, "node.incarnation"),
        ({"phase": MemberPhase.UNSPECIFIED}, "node.phase"),
        ({"replica": 2**63}, "node.replica"),
        ({"replica": -1}, "node.replica"),
    ],
)
def test_a_bad_record_is_refused_by_field(change: dict[str, object], field: str) -> None:
    good = {"node_id": "n1", "address": "[::1]:7710", "zone": "a", "profile": "code", "incarnation": 1}
    check_record(NodeRecord(**good))  # type: ignore[arg-type]
    with pytest.raises(FieldInvalid) as refused:
        check_record(NodeRecord(**{**good, **change}))  # type: ignore[arg-type]
    assert [violation.field for violation in refused.value.violations] == [field]


def test_states_are_those_of_the_contract() -> None:
    contract = {value.name.removeprefix("MEMBER_STATE_"): value.number for value in admin_pb2.MemberState.DESCRIPTOR.values}
    assert {state.name.replace("UNKNOWN", "UNSPECIFIED"): state.value for state in MemberState} == contract


def placed(*nodes: PlacementNode, factor: int = 1) -> Placement:
    return Placement(nodes, factor)


def node(node_id: str, incarnation: int, state: MemberState = MemberState.ALIVE, port: int = 1, zone: str = "") -> PlacementNode:
    return PlacementNode(NodeRecord(node_id, f"h:{port}", zone, "general", incarnation), state)


def test_an_older_report_moves_a_reader_nowhere() -> None:
    held = placed(node("n1", 3, port=3), node("n2", 2))
    after = held.joined_with(placed(node("n1", 1, MemberState.SUSPECT, port=1), node("n2", 2)))
    assert after.epoch == held.epoch == 5
    member = after.node("n1")
    assert member is not None and (member.address, member.state) == ("h:3", MemberState.SUSPECT)


@settings(max_examples=100, deadline=None)
@given(st.lists(rosters, min_size=1, max_size=5))
def test_a_reader_never_goes_back_and_order_does_not_matter(reports: list[dict[str, NodeRecord]]) -> None:
    def read(reports: list[dict[str, NodeRecord]]) -> Placement:
        held = Placement([], 1)
        for report in reports:
            after = held.joined_with(Placement([PlacementNode(r) for r in report.values()], 1))
            assert after.epoch >= held.epoch and {n.node_id for n in held.members} <= {n.node_id for n in after.members}
            held = after
        return held

    assert read(reports).nodes == read(reports[::-1]).nodes


def test_standbys_are_shown_and_own_nothing() -> None:
    placement = placed(node("n1", 1), node("n2", 9, MemberState.STANDBY))
    assert placement.epoch == 1
    assert {owner.node_id for user in "abcdefgh" for owner in placement.owners("t", user)} == {"n1"}
    assert placement.node("n2") is not None and not placement.owns("n2", "t", "a")


def test_liveness_and_addresses_keep_owners_zones_may_change_them() -> None:
    users = [str(i) for i in range(100)]
    before = placed(node("n1", 1), node("n2", 1), node("n3", 1), factor=2)
    worse = before.joined_with(placed(node("n1", 2, MemberState.DOWN, port=7), node("n2", 1), node("n3", 1), factor=2))

    def owners(placement: Placement) -> list[list[str]]:
        return [[owner.node_id for owner in placement.owners("t", user)] for user in users]

    assert owners(before) == owners(worse)
    zoned = placed(node("n1", 1, zone="a"), node("n2", 1, zone="a"), node("n3", 1, zone="b"), factor=2)
    assert all("n3" in pair for pair in owners(zoned)) and not all("n3" in pair for pair in owners(before))
    assert all(zoned.owns(pair[0], "t", user) for pair, user in zip(owners(zoned), users, strict=True))
