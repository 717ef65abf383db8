"""What a text names as its cause or explains, and what it does not although it comes after."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.btsp.salience import word_set
from ndml.language.causes import EVIDENCE_CHARS, LOOKED_BACK, MOST_CAUSES, Cause, Turn, causes

FAILED = Turn("tool", "$ make image-resizer -> FAILED: E4")


def found(text: str, *earlier: Turn, speaker: str = "ann") -> list[tuple[int, bool]]:
    return [(each.place, each.explains) for each in causes(speaker, text, lambda: earlier)]


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("The nightly backup failed again.", "That's because the disk was full."),
        ("The nightly backup failed again.", "The reason is simple: the disk was full."),
        ("Why did the nightly backup fail?", "Mainly since the disk was full."),
        ("Must it really run twice?", "Because the first pass only counts."),
        ("$ make image-resizer -> FAILED: E4", "The image resizer failed because two workers took the same lock."),
    ],
)
def test_a_reason_explains_what_was_said_before(before: str, text: str) -> None:
    assert found(text, Turn("bo", before)) == [(0, True)]


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("My firm opened an office in Rome.", "That is why I moved to Rome."),
        ("The disk of node three is full.", "So we moved the logs to another disk."),
        ("The disk of node three is full.", "Therefore I cleaned up."),
        ("The image resizer fails with error 4.", "We went back to the old release because the image resizer failed."),
        ("The image resizer fails with error 4.", "After the image resizer failed we went back to the old release."),
    ],
)
def test_what_follows_came_about_because_of_what_was_said_before(before: str, text: str) -> None:
    assert found(text, Turn("bo", before)) == [(0, False)]


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("The nightly backup failed again.", "Then I had lunch in the park."),  # later, and nothing else
        ("The nightly backup failed again.", "So, how are you?"),
        ("The nightly backup failed again.", "Since then I sleep badly."),
        ("The nightly backup failed again.", "I like jazz because it is never the same twice."),
        ("Hello!", "So I moved the logs."),
        ("Shall we eat?", "That is why I moved to Rome."),
        ("I also like pottery.", "Pottery is a great way to relax, so it must have been tough."),
        ("The image resizer failed because two workers took one lock.", "The image resizer failed because two workers took one lock."),
    ],
)
def test_without_evidence_there_is_no_cause(before: str, text: str) -> None:
    assert found(text, Turn("bo", before)) == []


def test_words_point_past_what_was_said_between_and_a_pronoun_does_not() -> None:
    between = (FAILED, Turn("bo", "Lunch is at noon in the garden."))
    assert found("The image resizer failed because two workers took the same lock.", *between) == [(0, True)]
    assert found("That is because two workers took the same lock.", *between) == [(1, True)]
    far = (FAILED, *[Turn("bo", "Lunch is at noon.")] * LOOKED_BACK)
    assert found("The image resizer failed because two workers took the same lock.", *far) == []


def test_one_answers_somebody_else_s_question_and_not_their_own() -> None:
    asked = Turn("ann", "Why is the build red?")
    assert found("Because a test was renamed.", asked, speaker="bo") == [(0, True)]
    assert found("Because a test was renamed.", asked, speaker="ann") == []


def test_one_text_may_have_a_cause_and_explain_something() -> None:
    turns = (Turn("bo", "The nightly backup is red."), Turn("bo", "The old disk of node three broke."))
    assert found("The nightly backup is red because the old disk of node three broke.", *turns) == [(1, False), (0, True)]


def test_nobody_is_asked_for_earlier_turns_without_a_marker() -> None:
    def never() -> list[Turn]:
        raise AssertionError("asked")

    assert causes("ann", "The disk is full.", never) == []


WORDS = st.sampled_from(sorted(word_set("because so the disk failed after we moved why that is , . ? reason: due to nightly backup")))
TEXTS = st.lists(WORDS, max_size=60).map(" ".join) | st.text(max_size=300)


@given(TEXTS, st.lists(st.builds(Turn, st.sampled_from(["ann", "bo"]), TEXTS), max_size=12))
def test_laws(text: str, turns: list[Turn]) -> None:
    each: list[Cause] = causes("ann", text, lambda: turns)
    assert len(each) <= MOST_CAUSES and len({cause.place for cause in each}) == len(each)
    for cause in each:
        assert max(0, len(turns) - LOOKED_BACK) <= cause.place < len(turns)
        assert 0 < cause.weight <= 1 and len(cause.evidence) <= EVIDENCE_CHARS and cause.evidence in text
