"""What a node's profile changes, and what settings change back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ndml.v1.types_pb2 import NodeProfile
from services.memory_node.heartbeat import HeartbeatSettings
from services.memory_node.profiles import PROFILES, Profile, ProfileName
from services.memory_node.settings import NodeSettings, RankingSection
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.signals.test_retrieval import kept, query, turn

NAMED = "set maxRetries to four"
FILLERS = [f"the {a} {b}" for a in ("max", "min", "mean", "set") for b in ("tries", "load", "timeout", "four")]


async def shares(path: Path, profile: ProfileName, text: str) -> dict[str, float]:
    """What shared words add to each memory's score, by its text."""
    config = harness.settings(path)
    config.heartbeat = HeartbeatSettings(profile=profile)
    async with harness.running(config) as node:
        await node.put("ann", turn("x", NAMED), *(turn(each, each) for each in FILLERS))
        answer = harness.SearchMemoriesResponse.FromString((await node.one(query("ann", text, k=20, explain=True))).search.responses[0])
        assert answer.stats.node_profile == PROFILES[profile].number
        empty = await node.search("bo", 1)
        assert not empty.hits and empty.stats.node_profile == PROFILES[profile].number
        return {hit.trace.text: sum(each.share for each in hit.signals if each.signal == "lexical") for hit in answer.hits}


async def test_code_finds_a_name_in_another_spelling_where_general_does_not(tmp_path: Path) -> None:
    asked = "what is max_retries?"
    general, code = await shares(tmp_path / "general", "general", asked), await shares(tmp_path / "code", "code", asked)
    assert max(code, key=lambda text: code[text]) == NAMED
    assert max(general, key=lambda text: general[text]) != NAMED
    assert await shares(tmp_path / "factual", "factual", asked) == general


def test_word_vectors_go_by_the_same_places_under_every_profile() -> None:
    """The code profile adds terms and leaves words where they are: what the llm service made of them still fits."""
    assert len(kept(NAMED)) == 2 * 3 and all(profile.added is None for name, profile in PROFILES.items() if name != "code")


def test_weights_that_nobody_set_are_the_profile_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROFILES, "code", Profile(NodeProfile.NODE_PROFILE_CODE, None, {"lexical": 3.0, "late": 0.5}))  # type: ignore[misc]
    code = {"heartbeat": {"profile": "code"}}
    assert (NodeSettings.model_validate(code).ranking.lexical, NodeSettings.model_validate(code).ranking.late) == (3.0, 0.5)
    assert NodeSettings.model_validate({**code, "ranking": {"lexical": 1.0}}).ranking.lexical == 1.0
    assert NodeSettings.model_validate({**code, "ranking": {"lexical": 1.0}}).ranking.late == 0.5
    assert NodeSettings().ranking == RankingSection()


def test_presets_are_settings_of_the_ranking() -> None:
    for profile in PROFILES.values():
        RankingSection(**profile.weights)  # type: ignore[arg-type]
        assert profile.weights.keys() <= RankingSection.model_fields.keys()
