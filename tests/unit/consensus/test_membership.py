"""The core of the consensus node, its time driven by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid, Overloaded, StaleEpoch
from ndml.placement import MemberPhase, MemberState, NodeRecord, digest_of
from services.consensus.membership import INCARNATION_KEY, REPLICA_KEY, Membership, Policy

POLICY = Policy(["n1", "n2"], suspect_after_s=3, down_after_s=10, max_standbys=2)


def record(node_id: str, incarnation: int = 1, port: int = 7710) -> NodeRecord:
    return NodeRecord(node_id, f"127.0.0.1:{port}", "zone-a", "general", incarnation)


def state(membership: Membership, node_id: str, now: float) -> MemberState | None:
    node = membership.placement(now).node(node_id)
    return None if node is None else node.state


def test_every_member_stands_in_the_placement_before_it_is_heard_of() -> None:
    placement = Membership(POLICY, now=0).placement(0)
    assert [(node.node_id, node.address, node.state) for node in placement.nodes] == [
        ("n1", "", MemberState.UNKNOWN),
        ("n2", "", MemberState.UNKNOWN),
    ]
    assert placement.epoch == 0


def test_liveness_follows_the_age_of_the_last_heartbeat_and_never_moves_an_owner() -> None:
    membership = Membership(POLICY, now=0)
    membership.heartbeat(record("n1"), now=100)
    membership.heartbeat(record("n2"), now=100)
    before = membership.placement(100)
    seen = {now: state(membership, "n1", now) for now in (100, 102.9, 103, 109.9, 110)}
    assert list(seen.values()) == [MemberState.ALIVE, MemberState.ALIVE, MemberState.SUSPECT, MemberState.SUSPECT, MemberState.DOWN]
    after = membership.placement(1000)
    assert after.epoch == before.epoch == 2
    assert all(
        [n.node_id for n in after.owners("t", str(u))] == [n.node_id for n in before.owners("t", str(u))] for u in range(50)
    )  # DOWN still owns: the data is on its disk
    membership.heartbeat(record("n1"), now=1000)
    assert state(membership, "n1", 1000) is MemberState.ALIVE


def test_a_member_known_from_others_is_unknown_then_down() -> None:
    membership = Membership(POLICY, now=50)
    membership.join([record("n1")])
    assert state(membership, "n1", 59) is MemberState.UNKNOWN
    assert state(membership, "n1", 60) is MemberState.DOWN


def test_time_in_which_the_process_slept_counts_against_nobody() -> None:
    membership = Membership(POLICY, now=0)
    membership.heartbeat(record("n1"), now=1)
    membership.forgive(59, now=60)
    assert state(membership, "n1", 60) is MemberState.ALIVE
    assert state(membership, "n1", 63) is MemberState.SUSPECT
    assert state(membership, "n2", 60) is MemberState.UNKNOWN


def test_a_changed_record_moves_the_epoch_a_repeated_one_does_not() -> None:
    membership = Membership(POLICY, now=0)
    membership.heartbeat(record("n1"), now=1)
    version = membership.version
    membership.heartbeat(record("n1"), now=2)
    assert (membership.epoch, membership.version) == (1, version)
    membership.heartbeat(record("n1", 2, port=9), now=3)
    assert membership.epoch == 2 and membership.version == version + 1
    node = membership.placement(3).node("n1")
    assert node is not None and node.address == "127.0.0.1:9"


@pytest.mark.parametrize(("incarnation", "port"), [(4, 7710), (5, 9)])
def test_a_record_from_the_past_is_told_what_to_count_past(incarnation: int, port: int) -> None:
    membership = Membership(POLICY, now=0)
    membership.heartbeat(record("n1", 5), now=0)
    with pytest.raises(StaleEpoch) as refused:
        membership.heartbeat(record("n1", incarnation, port), now=5)
    assert refused.value.metadata == {INCARNATION_KEY: "5", REPLICA_KEY: "0"}
    assert membership.roster["n1"] == record("n1", 5)
    assert state(membership, "n1", 5) is MemberState.ALIVE


def test_a_node_that_is_not_listed_stands_by_until_it_falls_silent() -> None:
    membership = Membership(POLICY, now=0)
    membership.heartbeat(record("n9", 7), now=1)
    assert state(membership, "n9", 1) is MemberState.STANDBY
    assert membership.epoch == 0 and not membership.is_member("n9")
    assert not any(membership.placement(1).owns("n9", "t", str(user)) for user in range(50))
    assert state(membership, "n9", 11) is None


def test_strangers_are_bounded_and_members_are_not_shut_out_by_them() -> None:
    membership = Membership(POLICY, now=0)
    for stranger in ("x1", "x2"):
        membership.heartbeat(record(stranger), now=0)
    with pytest.raises(Overloaded, match="max_standbys"):
        membership.heartbeat(record("x3"), now=0)
    membership.heartbeat(record("x1"), now=0)
    membership.heartbeat(record("n1"), now=0)
    membership.heartbeat(record("x3"), now=20)
    assert state(membership, "x3", 20) is MemberState.STANDBY


def test_a_bad_record_changes_nothing() -> None:
    membership = Membership(POLICY, now=0)
    with pytest.raises(FieldInvalid) as refused:
        membership.heartbeat(NodeRecord("n1", "nowhere", "", "general", 1), now=0)
    assert refused.value.violations[0].field == "node.address"
    with pytest.raises(FieldInvalid):
        membership.join([record("n2"), NodeRecord("n1", "nowhere", "", "general", 1)])
    assert membership.roster == {} and membership.version == 0


def test_peers_cannot_bring_in_members_that_are_not_configured() -> None:
    membership = Membership(POLICY, now=0)
    membership.join([record("n1"), record("n7")])
    assert list(membership.roster) == ["n1"]


OPEN = Policy(["n1"], suspect_after_s=3, down_after_s=10, max_standbys=2, admit=True, max_members=3)


def joining(node_id: str, incarnation: int = 1, phase: MemberPhase = MemberPhase.JOINING) -> NodeRecord:
    return replace(record(node_id, incarnation), phase=phase)


def test_a_node_that_joins_is_admitted_for_good_and_everywhere() -> None:
    membership, other = Membership(OPEN, now=0), Membership(OPEN, now=0)
    membership.heartbeat(record("n2"), now=1)
    assert state(membership, "n2", 1) is MemberState.STANDBY, "one that says it is ACTIVE has data from elsewhere, or is mistaken"
    membership.heartbeat(joining("n2", 2), now=2)
    assert state(membership, "n2", 2) is MemberState.ALIVE and membership.is_member("n2") and membership.epoch == 2
    assert state(membership, "n2", 1000) is MemberState.DOWN, "it is a member: silence does not remove it"
    membership.heartbeat(joining("n2", 3, MemberPhase.ACTIVE), now=1001)
    other.join(membership.roster.values())
    assert other.is_member("n2") and other.roster == membership.roster, "peers take it, whatever its phase is by now"


def test_admitted_members_are_bounded_and_the_listed_ones_have_their_places() -> None:
    membership = Membership(OPEN, now=0)
    for node_id in ("n2", "n3", "n4"):
        membership.heartbeat(joining(node_id), now=0)
    assert set(membership.roster) == {"n2", "n3"}, "n1 is listed, and has not come yet"
    assert state(membership, "n4", 0) is MemberState.STANDBY
    membership.join([joining("n5"), joining("n1")])
    assert set(membership.roster) == {"n1", "n2", "n3"}


def test_a_node_that_was_listed_later_joins_before_it_owns() -> None:
    membership = Membership(Policy(["n1", "n2", "n3"]), now=0)
    membership.found(["n1", "n2", "n0"])
    assert [node.node_id for node in membership.placement(0).members] == ["n1", "n2"], "nobody counts on it, and n0 is not listed any more"
    membership.heartbeat(record("n3"), now=0)
    assert state(membership, "n3", 0) is MemberState.STANDBY, "it is told that it is no member, so it says that it joins"
    membership.heartbeat(joining("n3", 2), now=0)
    assert state(membership, "n3", 0) is MemberState.ALIVE
    again = Membership(Policy(["n1", "n2", "n3"]), now=0)
    again.found(["n1", "n2"])
    again.join(membership.roster.values())
    assert again.is_member("n3")


def test_where_nobody_is_admitted_one_that_joins_stands_by() -> None:
    membership = Membership(POLICY, now=0)
    membership.heartbeat(joining("n9"), now=0)
    assert state(membership, "n9", 0) is MemberState.STANDBY and membership.epoch == 0


def test_a_founder_with_another_store_is_told_of_the_one_that_is_known() -> None:
    membership = Membership(POLICY, now=0)
    membership.heartbeat(replace(record("n1", 3), replica=11), now=0)
    with pytest.raises(StaleEpoch) as refused:
        membership.heartbeat(replace(record("n1", 1), replica=12), now=1)
    assert refused.value.metadata == {INCARNATION_KEY: "3", REPLICA_KEY: "11"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["n1", "n2"]), st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=12), st.integers(0, 9999)
)
def test_consensus_nodes_that_hear_in_any_order_converge(beats: list[tuple[str, int, int]], seed: int) -> None:
    """Three nodes hear shuffled, lossy heartbeats; each exchanging once with each in both directions makes them equal."""
    rng = random.Random(seed)
    nodes = [Membership(POLICY, now=0) for _ in range(3)]
    for node in nodes:
        for node_id, incarnation, port in rng.sample(beats, rng.randint(0, len(beats))):
            node.join([record(node_id, incarnation, port)])
    highest = max(node.epoch for node in nodes)
    for one in nodes:
        for other in nodes:
            other.join(one.roster.values())
            one.join(other.roster.values())
    assert len({digest_of(node.roster.values()) for node in nodes}) == 1
    assert len({node.epoch for node in nodes}) == 1 and nodes[0].epoch >= highest
