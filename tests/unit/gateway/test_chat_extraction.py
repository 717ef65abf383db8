"""Statements that a model finds: taken where they are what was asked for, else the rules decide."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ndml.errors import ModelUnavailable, NdmlError
from services.gateway.extraction import LlmExtractor, RulesExtractor, parse_statements
from services.gateway.settings import LearningSettings
from tests.unit.gateway.talking import Model, Talk

HOME = "I live in Oslo."


def answering(*answers: str | NdmlError) -> Callable[[], Talk]:
    def make() -> Talk:
        finder = Model(*answers, read=[])
        options = LearningSettings(extractor="llm", extract_timeout_s=30.0)
        return Talk(extractor=LlmExtractor(finder, RulesExtractor(), options))

    return make


async def test_the_models_statements_are_taken_where_they_are_what_was_asked_for() -> None:
    found = json.dumps({"statements": ["I live in Oslo since 2015.", "", "My  cat is Miso."]})
    talk = answering("```json\n", found, "\n```")()
    await talk.say("oslo since 2015, cat miso")
    assert await talk.learned() == ["I live in Oslo since 2015.", "My cat is Miso."]
    assert next(iter(talk.memory.stored.values())).metadata["dates"] == "2015"


@pytest.mark.parametrize("answer", ["I think", '{"statements": [1]}', '["a"]', '{"statements": [], "x": 1}', ModelUnavailable("gone")])
async def test_anything_else_and_the_rules_decide(answer: str | NdmlError) -> None:
    talk = answering(answer)()
    await talk.say(HOME)
    assert await talk.learned() == [HOME]


@pytest.mark.parametrize("answer", ["{", "[" * 5000, '{"statements": "a"}', json.dumps({"statements": ["x" * 2001]}), "null"])
def test_garbage_is_refused(answer: str) -> None:
    with pytest.raises(ModelUnavailable):
        parse_statements(answer, 8)
    assert parse_statements('{"statements": []}', 8) == []
