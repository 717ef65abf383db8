"""What a node profile changes: terms that a text has beside its words, and weights of the ranking where the settings give none.

Only what a measurement speaks for stands here (docs/recall.md, "Routing"): `factual` and `conversational` are labels, alike to `general`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ndml.language.identifiers import name_terms
from ndml.v1.types_pb2 import (
    NODE_PROFILE_CODE,
    NODE_PROFILE_CONVERSATIONAL,
    NODE_PROFILE_FACTUAL,
    NODE_PROFILE_GENERAL,
    NodeProfile,
)
from services.memory_node.signals.lexical import Analyzer

ProfileName = Literal["general", "code", "factual", "conversational"]


class Profile(NamedTuple):
    """number: as answers name it. added: as LexicalOptions has it. weights: presets of settings under `ranking`, by name."""

    number: NodeProfile
    added: Analyzer | None = None
    weights: Mapping[str, float] = {}


PROFILES: Mapping[ProfileName, Profile] = {
    "general": Profile(NODE_PROFILE_GENERAL),
    "code": Profile(NODE_PROFILE_CODE, name_terms),
    "factual": Profile(NODE_PROFILE_FACTUAL),
    "conversational": Profile(NODE_PROFILE_CONVERSATIONAL),
}
