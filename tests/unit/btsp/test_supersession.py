"""Which of the recalled traces are read, in which order: tables of what was said when."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ndml.btsp.supersession import Read, Recalled, replaced, to_read

OSLO, PORTO, ROME = "I live in Oslo.", "I moved to Porto.", "Rome is my new home."


def said(number: int, text: str, at: int = 0, speaker: str = "", supersedes: Sequence[int] = ()) -> Recalled:
    return Recalled(str(number), text, speaker, at, tuple(map(str, supersedes)))


def read(recalled: Sequence[Recalled], k: int = 9, *, past: bool = False) -> list[str]:
    return [recalled[each.place].text for each in to_read(recalled, k, past=past)]


def test_what_a_later_one_replaces_is_known_by_link_and_by_rule() -> None:
    assert replaced([said(0, "the plan is A"), said(1, "it is B now", 1, supersedes=[0])], 9) == {"0": "1"}
    assert replaced([said(0, OSLO), said(1, PORTO, 9)], 9) == {"0": "1"}
    assert replaced([said(0, OSLO, 9), said(1, PORTO)], 9) == {"1": "0"}
    assert replaced([said(0, OSLO, speaker="Ann"), said(1, PORTO, 9, "Bob")], 9) == {}


def test_an_import_of_older_words_does_not_replace_newer_ones_whatever_the_gate_linked() -> None:
    assert replaced([said(0, "the plan is B", 5), said(1, "the plan is A", 1, supersedes=[0])], 9) == {"1": "0"}


def test_the_newest_takes_the_best_place_of_all_that_it_replaces() -> None:
    others = [said(i, f"I know {i} songs by heart.") for i in range(4, 8)]
    recalled = [said(0, OSLO), *others, said(1, PORTO, 1), said(2, ROME, 2)]
    assert read(recalled, 2) == [ROME, others[0].text]
    assert read(recalled, 7, past=True) == [ROME, *(other.text for other in others), OSLO, PORTO]
    assert to_read(recalled, 7, past=True)[5:] == [Read(0, superseded=True), Read(5, superseded=True)]


def test_a_replacement_that_the_rules_stop_before_is_followed_by_its_link() -> None:
    recalled = [said(0, "the plan is A"), said(1, "it is B", 1, supersedes=[0]), said(2, "it is C", 2, supersedes=[1])]
    assert read(recalled, 1) == ["it is C"]


def test_of_the_same_words_the_last_said_count_so_that_moving_back_is_understood() -> None:
    recalled = [said(0, OSLO), said(1, PORTO, 3), said(2, "i live in  Oslo.", 6)]
    assert to_read(recalled, 5, past=False) == [Read(2)]


TEXTS = st.sampled_from([OSLO, PORTO, ROME, "I like tea.", "My cat is called Miso.", "My cat is called Tom now.", ""])
TRACES = st.lists(st.tuples(TEXTS, st.integers(0, 5), st.lists(st.integers(0, 9), max_size=2)), max_size=8)


@given(TRACES, st.integers(0, 9), st.booleans())
def test_nothing_is_read_twice_and_something_is_wherever_something_was_found(
    traces: list[tuple[str, int, list[int]]], k: int, past: bool
) -> None:
    recalled = [said(i, text, at, supersedes=[n for n in links if n != i]) for i, (text, at, links) in enumerate(traces)]
    chosen = to_read(recalled, k, past=past)
    assert len(chosen) <= k and len({each.place for each in chosen}) == len(chosen)
    assert past or not any(each.superseded for each in chosen)
