"""Who owns what while members join and leave: nothing is read from who has nothing yet, and nothing written is missed by who comes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.placement import MemberPhase, MemberState, NodeRecord, Placement, PlacementNode, join
from ndml.runtime.placement import placement_from_proto, placement_to_proto
from ndml.v1 import admin_pb2

USERS = [str(user) for user in range(80)]
PHASES = st.sampled_from([MemberPhase.JOINING, MemberPhase.ACTIVE, MemberPhase.LEAVING, MemberPhase.LEFT])
MEMBERS = st.dictionaries(st.sampled_from([f"n{i}" for i in range(6)]), st.tuples(PHASES, st.sampled_from(["", "z"])), min_size=1)


def placed(members: dict[str, tuple[MemberPhase, str]], factor: int, like: Placement | None = None) -> Placement:
    records = [NodeRecord(node_id, "h:1", zone, "general", 1, phase) for node_id, (phase, zone) in members.items()]
    return Placement([PlacementNode(record, MemberState.ALIVE) for record in records], factor, like=like)


def ids(nodes: tuple[PlacementNode, ...]) -> list[str]:
    return [node.node_id for node in nodes]


def test_phases_are_those_of_the_contract() -> None:
    contract = {value.name.removeprefix("MEMBER_PHASE_"): value.number for value in admin_pb2.MemberPhase.DESCRIPTOR.values}
    assert {phase.name: phase.value for phase in MemberPhase} == contract


@settings(max_examples=150, deadline=None)
@given(MEMBERS, st.integers(1, 3))
def test_who_owns_and_who_is_coming_follow_from_the_two_rings(members: dict[str, tuple[MemberPhase, str]], factor: int) -> None:
    now = placed(members, factor)
    serving = {n: m for n, m in members.items() if m[0] in (MemberPhase.ACTIVE, MemberPhase.LEAVING)}
    staying = {n: (MemberPhase.ACTIVE, m[1]) for n, m in members.items() if m[0] in (MemberPhase.ACTIVE, MemberPhase.JOINING)}
    serving = serving or {n: (MemberPhase.ACTIVE, m[1]) for n, m in members.items() if m[0] is MemberPhase.JOINING}
    today, then = placed(serving, factor), placed(staying, factor)
    for user in USERS[:20]:
        owners, coming, copies = ids(now.owners("t", user)), ids(now.coming("t", user)), ids(now.copies("t", user))
        assert owners == ids(today.owners("t", user)), "the ring of those that serve"
        assert set(owners) | set(coming) >= set(ids(then.owners("t", user))), "who will own it gets its writes now"
        assert set(coming) == set(ids(then.owners("t", user))) - set(owners)
        assert copies == owners + coming == list(now.copy_ids("t", user)) and len(set(copies)) == len(copies)
        for node_id, (phase, _) in members.items():
            assert now.owns(node_id, "t", user) == (node_id in owners)
            assert now.takes(node_id, "t", user) == (node_id in copies)
            assert phase is not MemberPhase.LEFT or node_id not in copies


@settings(max_examples=100, deadline=None)
@given(MEMBERS, st.integers(1, 3), st.data())
def test_a_move_is_safe_because_who_comes_has_the_writes_before_he_owns(
    members: dict[str, tuple[MemberPhase, str]], factor: int, data: st.DataObject
) -> None:
    """One member turns from JOINING to ACTIVE, or from LEAVING to LEFT: whoever owns an owner then was a copy of it before."""
    steps = {MemberPhase.JOINING: MemberPhase.ACTIVE, MemberPhase.LEAVING: MemberPhase.LEFT}
    movable = [n for n, (phase, _) in members.items() if phase in steps]
    if not movable:
        return
    moved = data.draw(st.sampled_from(movable))
    after = {**members, moved: (steps[members[moved][0]], members[moved][1])}
    before, then = placed(members, factor), placed(after, factor)
    others_move = any(phase in steps for node_id, (phase, _) in members.items() if node_id != moved)
    for user in USERS[:20]:
        if not others_move:
            assert set(ids(then.owners("t", user))) <= set(ids(before.copies("t", user)))
        else:
            assert set(ids(then.owners("t", user))) <= {n for n, (phase, _) in after.items() if phase is not MemberPhase.LEFT}


def test_a_node_that_lost_its_store_serves_nothing_until_it_is_active_again() -> None:
    whole = {f"n{i}": (MemberPhase.ACTIVE, "") for i in range(3)}
    before, after = placed(whole, 2), placed({**whole, "n1": (MemberPhase.JOINING, "")}, 2)
    for user in USERS:
        assert "n1" not in ids(after.owners("t", user))
        assert after.takes("n1", "t", user) == before.owns("n1", "t", user), "it gets the writes of what it is to own again"
        assert len(after.owners("t", user)) == 2, "the others stand in"


def test_where_nobody_has_anything_the_joining_ones_serve() -> None:
    fresh = placed({"n0": (MemberPhase.JOINING, ""), "n1": (MemberPhase.LEFT, "")}, 2)
    assert ids(fresh.owners("t", "u")) == ["n0"] and fresh.coming("t", "u") == ()
    assert ids(placed({"n1": (MemberPhase.LEFT, "")}, 2).copies("t", "u")) == []


def test_cached_look_ups_outlive_a_change_of_liveness_and_follow_one_of_phase() -> None:
    members = {f"n{i}": (MemberPhase.ACTIVE, "") for i in range(3)}
    before = placed(members, 2)
    same = placed(members, 2, like=before)
    assert same._ring is before._ring and same._next is same._ring
    joining = placed({**members, "n3": (MemberPhase.JOINING, "")}, 2, like=before)
    assert joining._ring is before._ring and joining._next is not before._ring
    joined = placed({**members, "n3": (MemberPhase.ACTIVE, "")}, 2, like=joining)
    assert joined._ring is joining._next, "the ring that was coming is the one that is there now"


def test_an_older_report_does_not_take_a_phase_back() -> None:
    old, new = NodeRecord("n1", "h:1", incarnation=2), NodeRecord("n1", "h:1", incarnation=3, phase=MemberPhase.LEAVING)
    assert join({}, [new, old])["n1"].phase is MemberPhase.LEAVING
    held = Placement([PlacementNode(new)], 1)
    after = held.joined_with(Placement([PlacementNode(old)], 1))
    assert after.epoch == 3 and after.members[0].phase is MemberPhase.LEAVING


@settings(max_examples=50, deadline=None)
@given(MEMBERS, st.integers(1, 3), st.integers(0, 2**63 - 1))
def test_a_placement_crosses_the_wire_whole(members: dict[str, tuple[MemberPhase, str]], factor: int, replica: int) -> None:
    records = [NodeRecord(n, "h:1", zone, "general", 1, phase, replica) for n, (phase, zone) in members.items()]
    sent = Placement([PlacementNode(record, MemberState.SUSPECT) for record in records], factor)
    assert placement_from_proto(placement_to_proto(sent)).same_as(sent)


def test_a_record_of_an_older_release_reads_as_active() -> None:
    older = {"node_id": "n1", "address": "h:1", "zone": "", "profile": "general", "incarnation": 4}
    record = NodeRecord.from_json(older)
    assert (record.phase, record.replica) == (MemberPhase.ACTIVE, 0)
    assert NodeRecord.from_json(record.to_json()) == record
    message = placement_to_proto(Placement([PlacementNode(record)], 1))
    message.nodes[0].record.ClearField("phase")
    assert placement_from_proto(message).members[0].phase is MemberPhase.ACTIVE
