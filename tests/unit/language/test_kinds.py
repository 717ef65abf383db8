"""What a query looks like."""

from __future__ import annotations

import pytest

from ndml.language.kinds import kind_of


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Who calls load_config?", "code"),
        ("you said ECONNRESET, remember?", "code"),
        ("When did Melanie run a race?", "factual"),
        ("In which city does Ann live?", "factual"),
        ("how many dogs has Bo", "factual"),
        ("What did you tell me about Rome?", "conversational"),
        ("Hi, how are things?", "conversational"),
        ("my trip to Rome", "conversational"),
        ("Did Ann enjoy the concert?", "general"),
        ("", "conversational"),
    ],
)
def test_kinds(text: str, kind: str) -> None:
    assert kind_of(text) == kind


def test_only_the_beginning_is_read() -> None:
    assert kind_of("Did it rain? " + "so " * 9000 + "max_retries") == "general"
