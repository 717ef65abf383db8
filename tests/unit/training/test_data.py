"""Examples from files: what is refused and where, sides that never meet, orders that can be gone on with."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid, NdmlError
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.training.data import Ask, Episode, Listed, episode_of, read, split

GOOD = {"memories": ["I live in Oslo.", {"text": "My cat is Miso.", "said_at": "2026-01-02", "embedding": [1, 0]}]}
ONE = GOOD | {"question": "Where?", "answer": "Oslo", "used": [1]}


def test_both_forms_of_an_example(tmp_path: Path) -> None:
    asks = GOOD | {"asks": [{"question": "Where?", "answer": "Oslo", "used": [1]}, {"question": "Cat?", "answer": "Miso", "kind": "pet"}]}
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ONE) + "\n\n" + json.dumps(asks) + "\n")
    first, second = read(path, 10)
    assert first.asks == (Ask("Where?", "Oslo", (1,)),) and (first.line, second.line) == (1, 3)
    assert second.asks[1].kind == "pet" and second.readout.entries[1].embedding is not None
    assert [e.number for e in first.readout.entries] == [1, 2] and str(first.readout.entries[1].said_at)[:10] == "2026-01-02"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no JSON"),
        ("[]", "line 2: an example is an object"),
        (ONE | {"answr": "x"}, "no field 'answr'"),
        (ONE | {"used": [3]}, "numbers of the memories, 1 to 2"),
        (ONE | {"used": [True]}, "numbers of the memories"),
        (ONE | {"answer": " "}, "answer is ' ': give a text"),
        (ONE | {"memories": "x"}, "memories is a list"),
        (ONE | {"memories": [{"text": 3}]}, "memory 1"),
        (ONE | {"memories": [{"text": "x", "said_at": "soon"}]}, "memory 1"),
        (ONE | {"memories": [{"text": "x", "strength": 2}]}, "from 0 to 1"),
        (ONE | {"memories": [{"text": "x", "vector": []}]}, "no field 'vector'"),
        (ONE | {"asks": []}, "not both"),
        (GOOD | {"asks": [ONE]}, "no field 'memories'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, said: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ONE) + "\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(NdmlError, match=said) as caught:
        read(path, 10)
    assert "line 2" in caught.value.message and caught.value.violations[0].field == "data"


def test_bounds_and_absence(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(ONE) + "\n" for _ in range(3)))
    with pytest.raises(FieldInvalid, match="more than 2 examples"):
        read(path, 2)
    with pytest.raises(FieldInvalid, match="cannot be read"):
        read(tmp_path / "none", 2)
    with pytest.raises(FieldInvalid, match="0 to evaluate on"):
        Listed([episode_of(ONE)], [], 4, 0)


def episodes(count: int) -> list[Episode]:
    return [Episode(MemoryReadout((Entry(1, f"fact {i}"),)), (Ask(f"what {i}", f"{i}", (1,)),)) for i in range(count)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_each_pass_has_every_example_once_and_any_step_can_be_asked_first(count: int, batch: int, seed: int) -> None:
    known = episodes(count)
    source = Listed(known, known[:1], batch, seed)
    seen = [e.asks[0].answer for step in range(count) for e in source.batch(step, 99)]  # `batch` passes
    assert set(Counter(seen).values()) == {batch} and len(set(seen)) == count
    late = Listed(known, known[:1], batch, seed).batch(count - 1, 99)
    assert [e.asks for e in late] == [e.asks for e in source.batch(count - 1, 99)]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 60), st.floats(0.05, 0.9))
def test_sides_never_meet_and_a_longer_file_keeps_them(count: int, share: float) -> None:
    learned, held_out = split(episodes(count), share)
    more_learned, more_held_out = split(episodes(count + 20), share)
    assert len(learned) + len(held_out) == count
    assert [e for e in more_held_out if e in held_out] == held_out and [e for e in more_learned if e in learned] == learned


def test_the_control_asks_the_same_and_reads_what_belongs_to_another() -> None:
    source = Listed(episodes(9), episodes(5), 4, 0)
    asked, control = source.held_out(4), source.control(4)
    assert [c.asks[0].question for c in control] == [a.asks[0].question for a in asked]
    assert all(c.readout.entries[0].text != a.readout.entries[0].text and not c.asks[0].used for a, c in zip(asked, control, strict=True))
    alone = Listed(episodes(2), episodes(1), 4, 0).control(4)
    assert len(alone) == 1 and not alone[0].readout and alone[0].asks[0].question == "what 0"
