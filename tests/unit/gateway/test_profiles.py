"""Which copy a search goes to where copies have different node profiles; all else decides before it."""

from __future__ import annotations

import pytest

from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.placement import MemberState
from ndml.runtime.call import Call
from ndml.v1 import memory_pb2, types_pb2
from ndml.v1.types_pb2 import NodeProfile
from services.gateway.profiles import name_of, wanted_profile
from services.gateway.recall import Recall
from services.gateway.vectors import VectorSpace
from tests.unit.gateway.replicas import World
from tests.unit.gateway.test_quorum import ALL, ONE, QUORUM, simulated, write
from tests.unit.gateway.test_reads import GET, read
from tests.unit.gateway.test_recall import Encoder, Nodes, by_text, by_vector

GENERAL, CODE, FACTUAL = NodeProfile.NODE_PROFILE_GENERAL, NodeProfile.NODE_PROFILE_CODE, NodeProfile.NODE_PROFILE_FACTUAL
CALL = Call("/ndml.v1.MemoryService/X", tenant="t")
MIXED = frozenset({"general", "code"})


def searching(profile: NodeProfile) -> pb.Operation:
    return pb.Operation(tenant="t", user="ann", search=pb.SearchAction(k=3, node_profile=profile))


async def asked(world: World, operation: pb.Operation, consistency: int = ONE) -> list[str]:
    """Nodes that the read went to, in order."""
    world.sent.clear()
    await read(world, operation, consistency)
    return [node for node, _ in world.sent]


@simulated
async def test_the_copy_of_the_profile_is_asked_first_then_a_general_one() -> None:
    world = World(3, profiles=["general", "conversational", "code"])
    await write(world, consistency=ALL)
    assert await asked(world, searching(CODE)) == ["n2"]
    assert await asked(world, searching(NodeProfile.NODE_PROFILE_CONVERSATIONAL)) == ["n1"]
    assert await asked(world, searching(GENERAL)) == ["n0"]
    other = World(2, profiles=["code", "general"])
    await write(other, consistency=ALL)
    assert await asked(other, searching(FACTUAL)) == ["n1"]


@simulated
async def test_other_reads_and_searches_without_a_profile_keep_the_placement_s_order() -> None:
    world = World(3, profiles=["general", "general", "code"])
    await write(world, consistency=ALL)
    assert await asked(world, GET) == await asked(world, searching(NodeProfile.NODE_PROFILE_UNSPECIFIED)) == ["n0"]


@simulated
async def test_liveness_decides_before_the_profile_and_a_silent_copy_is_hedged() -> None:
    world = World(3, profiles=["general", "general", "code"])
    await write(world, consistency=ALL)
    world.faults = {"n2": ["before"]}
    assert await asked(world, searching(CODE)) == ["n2", "n0"]
    world.faults = {"n2": ["silent"]}
    assert await asked(world, searching(CODE)) == ["n2", "n0"]
    world.states["n2"] = MemberState.DOWN
    assert await asked(world, searching(CODE)) == ["n0"]


@simulated
async def test_reads_of_several_copies_take_the_profile_s_first() -> None:
    world = World(3, profiles=["general", "general", "code"])
    await write(world, consistency=ALL)
    assert await asked(world, searching(CODE), QUORUM) == ["n2", "n0"]


def test_the_request_decides_else_its_words_and_nobody_where_nodes_are_alike() -> None:
    request = by_text("where is max_retries set?")
    assert wanted_profile(request, MIXED) == CODE
    assert wanted_profile(request, {"code"}) == wanted_profile(request, frozenset()) == NodeProfile.NODE_PROFILE_UNSPECIFIED
    request.node_profile = GENERAL
    assert wanted_profile(request, MIXED) == GENERAL
    vector = by_vector(0.1)
    assert wanted_profile(vector, MIXED) == NodeProfile.NODE_PROFILE_UNSPECIFIED
    vector.node_profile = CODE
    assert wanted_profile(vector, MIXED) == CODE


@pytest.mark.parametrize(("number", "name"), [(GENERAL, "general"), (CODE, "code"), (0, ""), (99, "")])
def test_profiles_are_named_as_in_the_placement(number: NodeProfile, name: str) -> None:
    assert name_of(number) == name


async def test_a_batch_is_divided_by_profile_only_where_nodes_differ() -> None:
    for profiles, groups in ((MIXED, 2), (frozenset({"general"}), 1)):
        nodes = Nodes()
        nodes.profiles = profiles
        recall = Recall(nodes, Encoder(), VectorSpace("m", 2))  # type: ignore[arg-type]
        searches = [by_text("see max_retries"), by_text("When was it?"), by_text("see minRetries"), by_text("Who was it?")]
        answer = memory_pb2.BatchSearchMemoriesResponse.FromString(await recall.search_all(searches, CALL))
        assert len(answer.results) == 4 and len(nodes.searches) == groups
        assert {each.node_profile for each in nodes.searches} == ({CODE, FACTUAL} if groups == 2 else {0})


def test_every_profile_has_a_name_of_the_nodes_settings() -> None:
    from services.memory_node.profiles import PROFILES

    assert {name_of(number) for number in types_pb2.NodeProfile.values() if number} == set(PROFILES)
    assert all(name_of(profile.number) == name for name, profile in PROFILES.items())
