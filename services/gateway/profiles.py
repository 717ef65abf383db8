"""Which node profile suits a search best. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set

from ndml.language.kinds import Kind, kind_of
from ndml.v1 import memory_pb2, types_pb2
from ndml.v1.types_pb2 import NodeProfile

GENERAL = "general"
_PREFIX = "NODE_PROFILE_"
_NUMBERS: Mapping[Kind, NodeProfile] = {
    "general": types_pb2.NODE_PROFILE_GENERAL,
    "code": types_pb2.NODE_PROFILE_CODE,
    "factual": types_pb2.NODE_PROFILE_FACTUAL,
    "conversational": types_pb2.NODE_PROFILE_CONVERSATIONAL,
}


def wanted_profile(request: memory_pb2.SearchMemoriesRequest, profiles: Set[str]) -> NodeProfile:
    """What the request says, else what its text looks like, a vector to nobody in particular. Unspecified where `profiles`, those of the
    nodes that serve, leave no choice: then requests stay alike that differ in nothing else."""
    if len(profiles) < 2:
        return types_pb2.NODE_PROFILE_UNSPECIFIED
    if request.node_profile or not request.text:
        return request.node_profile
    return _NUMBERS[kind_of(request.text)]


def name_of(profile: NodeProfile) -> str:
    """As the placement names it; "" for unspecified, and for one that only a later release knows."""
    if not profile or profile not in NodeProfile.values():
        return ""
    return NodeProfile.Name(profile).removeprefix(_PREFIX).lower()
