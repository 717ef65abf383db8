from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.llm.sse import EventTooLong, SseDecoder
from services.llm.text_stream import Detokenizer, StopFilter
from tests.unit.llm.tiny_models import byte_tokenizer

TOKENIZER = byte_tokenizer()


def _decode(ids: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_pieces_are_whole_characters_and_add_up(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    detokenizer = Detokenizer(_decode)
    pieces = [detokenizer.add(token) for token in ids] + [detokenizer.flush()]
    assert "".join(pieces) == _decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(4, len(TOKENIZER) - 1), max_size=60))
def test_random_tokens_lose_nothing_but_broken_bytes(ids: list[int]) -> None:
    detokenizer = Detokenizer(_decode)
    text = "".join([*(detokenizer.add(token) for token in ids), detokenizer.flush()])
    assert text.replace("\ufffd", "") == _decode(ids).replace("\ufffd", "")


def test_a_broken_run_is_not_held_for_ever() -> None:
    broken = TOKENIZER("🙂")["input_ids"][0]
    detokenizer = Detokenizer(_decode)
    assert any(detokenizer.add(broken) for _ in range(32))


@settings(max_examples=300, deadline=None)
@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_filter_equals_a_cut_of_the_whole_text(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    stop = StopFilter(stops)
    made = "".join(map(stop.add, parts)) + stop.flush()
    # The stream stops at the stop string that is complete first; of those complete at one place, at the one that began first.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    if not ends:
        assert made == text
        assert not stop.stopped
    else:
        assert stop.stopped
        assert made in {text[: text.find(s)] for s in stops if s in text}
        assert len(made) <= min(ends)[0]


def test_stop_filter_lets_text_through_as_soon_as_it_is_certain() -> None:
    stop = StopFilter(["\nuser:"])
    assert [stop.add(p) for p in ("hello", "\n", "us", "ed", "\nuser", ": hi", "more")] == ["hello", "", "", "\nused", "", "", ""]
    assert stop.stopped


def test_stop_filter_holds_back_the_longest_beginning() -> None:
    stop = StopFilter(["aab"])
    assert [stop.add(p) for p in ("a", "a", "a", "b")] == ["", "", "a", ""]
    assert stop.stopped


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6), st.sampled_from(["\n", "\r\n"]), st.data())
def test_sse_is_the_same_however_it_is_cut(texts: list[str], newline: str, data: st.DataObject) -> None:
    events = [json.dumps({"t": text}, ensure_ascii=False) for text in texts]
    stream = "".join(f": ping{newline}event: x{newline}data: {event}{newline}{newline}" for event in events).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = SseDecoder()
    found: list[str] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    assert [json.loads(event) for event in found + decoder.close()] == [{"t": text} for text in texts]


def test_sse_joins_data_lines_and_takes_a_last_event_without_its_blank_line() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\ndata:b\n\ndata: c") == ["a\nb"]
    assert decoder.close() == ["c"]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 1000, b"data: " + b"y" * 1000 + b"\n"])
def test_sse_has_a_bound(chunk: bytes) -> None:
    decoder = SseDecoder()
    with pytest.raises(EventTooLong):
        for _ in range(2000):
            decoder.feed(chunk)
