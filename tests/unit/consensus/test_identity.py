"""A memory node's word about itself, and the settings on both sides of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ndml.errors import FieldInvalid
from ndml.placement import MemberPhase
from services.consensus.settings import ClusterSection, ConsensusSettings, LivenessSection
from services.memory_node.heartbeat import HeartbeatSettings, Identity


def identity(path: Path, address: str = "h:1", zone: str = "a", profile: str = "general") -> Identity:
    made = Identity(path, "m0", address, zone, profile)
    made.restore()
    return made


def test_the_incarnation_counts_changes_and_survives_restarts(tmp_path: Path) -> None:
    assert identity(tmp_path).record.incarnation == 1
    assert identity(tmp_path).record.incarnation == 1
    assert identity(tmp_path, address="h:2").record.incarnation == 2
    assert identity(tmp_path, address="h:2", zone="b").record.incarnation == 3
    assert identity(tmp_path, address="h:2", zone="b", profile="code").record.incarnation == 4
    assert identity(tmp_path, address="h:2", zone="b", profile="code").record.incarnation == 4
    assert identity(tmp_path).record.incarnation == 5, "going back is a change too"


def test_it_counts_past_what_is_known_once(tmp_path: Path) -> None:
    node = identity(tmp_path)
    node.count_past(7)
    node.count_past(7)  # a second consensus node says the same
    node.count_past(3)
    assert node.record.incarnation == 8
    assert identity(tmp_path).record == node.record


def with_store(path: Path, replica: int) -> Identity:
    made = Identity(path, "m0", "h:1", "a", "general", lambda: replica)
    made.restore()
    return made


def test_the_phase_survives_restarts_and_counts_as_a_change(tmp_path: Path) -> None:
    node = with_store(tmp_path, 5)
    assert (node.record.phase, node.record.incarnation, node.record.replica) == (MemberPhase.ACTIVE, 1, 5)
    node.set_phase(MemberPhase.LEAVING)
    node.set_phase(MemberPhase.LEAVING)
    assert (node.record.phase, node.record.incarnation) == (MemberPhase.LEAVING, 2)
    assert with_store(tmp_path, 5).record == node.record
    with pytest.raises(FieldInvalid):
        node.set_phase(MemberPhase.UNSPECIFIED)
    assert node.record.phase is MemberPhase.LEAVING


@pytest.mark.parametrize("phase", [MemberPhase.LEAVING, MemberPhase.LEFT])
def test_where_a_start_means_wanted_one_that_left_joins_again(tmp_path: Path, phase: MemberPhase) -> None:
    node = with_store(tmp_path, 5)
    node.set_phase(phase)
    back = Identity(tmp_path, "m0", "h:1", "a", "general", lambda: 5, rejoin=True)
    back.restore()
    assert (back.record.phase, back.record.incarnation) == (MemberPhase.JOINING, node.record.incarnation + 1)
    back.set_phase(MemberPhase.ACTIVE)
    again = Identity(tmp_path, "m0", "h:1", "a", "general", lambda: 5, rejoin=True)
    again.restore()
    assert again.record == back.record, "who serves goes on serving"


def test_an_older_identity_learns_its_store_and_stays_active(tmp_path: Path) -> None:
    identity(tmp_path)
    node = with_store(tmp_path, 5)
    assert (node.record.phase, node.record.incarnation, node.record.replica) == (MemberPhase.ACTIVE, 2, 5)


def test_a_store_that_was_replaced_under_its_identity_joins(tmp_path: Path) -> None:
    with_store(tmp_path, 5)
    node = with_store(tmp_path, 6)
    assert (node.record.phase, node.record.incarnation, node.record.replica) == (MemberPhase.JOINING, 2, 6)
    assert with_store(tmp_path, 6).record == node.record, "and goes on joining after a restart"


@pytest.mark.parametrize(
    ("own", "known", "phase"),
    [
        (6, 5, MemberPhase.JOINING),  # the disk is new
        (5, 5, MemberPhase.ACTIVE),  # only identity.json was lost
        (6, 0, MemberPhase.JOINING),  # known from before stores had numbers, and forgotten here: the disk was lost
        (0, 5, MemberPhase.ACTIVE),  # a node that does not know its store cannot tell
    ],
)
def test_what_is_known_of_a_node_tells_whether_its_store_is_new(tmp_path: Path, own: int, known: int, phase: MemberPhase) -> None:
    node = with_store(tmp_path, own)
    node.count_past(8, known)
    assert (node.record.phase, node.record.incarnation) == (phase, 9)


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"node_id": 5}', '{"node_id": "m0", "incarnation": "x"}', '{"node_id": "m0"}'])
def test_a_damaged_identity_begins_again(tmp_path: Path, damage: str) -> None:
    node = identity(tmp_path)
    node.count_past(7)
    (tmp_path / "identity.json").write_text(damage)
    assert identity(tmp_path).record.incarnation == 1
    assert identity(tmp_path).record.incarnation == 1


def test_an_address_that_nobody_can_reach_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(FieldInvalid) as refused:
        identity(tmp_path, address="somewhere")
    assert refused.value.violations[0].field == "node.address"


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        (ClusterSection, {"members": ["a", "a"]}, "stands twice"),
        (ClusterSection, {"members": [""]}, "1 to 128 bytes"),
        (ClusterSection, {"peers": ["host"]}, "host:port"),
        (ClusterSection, {"replication_factor": 0}, "greater than or equal to 1"),
        (LivenessSection, {"suspect_after_s": 5, "down_after_s": 4}, "must not be less"),
        (HeartbeatSettings, {"consensus": ["h:1", "h:1"]}, "stands twice"),
        (HeartbeatSettings, {"profile": "poetry"}, "Input should be 'general'"),
    ],
)
def test_settings_that_cannot_work_are_refused(section: type[ClusterSection], values: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        section.model_validate(values)


def test_an_override_of_one_knob_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDML_CONSENSUS__SERVER__PORT", "7999")
    monkeypatch.setenv("NDML_CONSENSUS__CLUSTER__MEMBERS", '["m0", "m1"]')
    settings = ConsensusSettings()
    assert (settings.server.port, settings.server.grace_s) == (7999, 1.0)
    assert (settings.cluster.members, settings.cluster.replication_factor) == (["m0", "m1"], 1)
    assert settings.watch.keep_alive_s < 10 and settings.watch.max_watchers < settings.server.max_in_flight
