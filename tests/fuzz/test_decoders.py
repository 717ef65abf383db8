"""Every decoder of tests/fuzz/decoders.py against damaged samples and noise: a value or a named refusal, and memory in proportion."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import NdmlError
from tests.fuzz.decoders import DECODERS
from tests.fuzz.table import Decoder

# What breaks readers: odd numbers of JSON, nesting, halves of characters, lengths that lie.
_PIECES = (
    *(b"1e999", b"-1", b"NaN", b"null", b"true", b"[]", b"{}", b'"\\ud800"', b"\xff", b"\x00", b'"\xc3\xa9"', b'""', b"1" * 400),
    *(b"[" * 200, b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"\x80" * 10, b"\x7f\xf0" + b"\0" * 6, b"\r\n", b'"a":', b","),
)
_ODD = (
    *("null", "true", "-1", "1e999", "1" * 400, '"x"', '"\\ud800"', '"\u00e9"', "[]", "{}", "[null]", '{"\\ud800": 1}'),
    *("[" * 300 + "]" * 300, "[" * 2_000),
)
ALL = pytest.mark.parametrize("decoder", DECODERS.values(), ids=lambda decoder: decoder.name)


@st.composite
def damaged(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """A sample with up to six things done to it."""
    data = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 12)))
        put = draw(st.sampled_from(_PIECES) | st.binary(max_size=6) | st.just(data[at:until] * 2))
        data = data[:at] + put + data[until:]
    return data


def of_json(sample: bytes) -> Iterator[bytes]:
    """The sample's JSON, behind the byte before it where there is one, with every value in turn replaced by each odd one."""
    start = next((at for at, letter in enumerate(sample[:40]) if letter in b"{["), -1)
    try:
        tree = json.loads(sample[start:])
    except (ValueError, RecursionError):  # no JSON, or too deep for Python's own reader
        return
    for changed in replaced(tree):
        yield sample[:start] + changed.encode()


def replaced(tree: object) -> Iterator[str]:
    """The tree as JSON with one place in it replaced."""
    yield from _ODD
    places = enumerate(tree) if isinstance(tree, list) else tree.items() if isinstance(tree, dict) else ()
    for place, inner in places:
        for text in replaced(inner):
            parts = list(tree) if isinstance(tree, list) else dict(tree)  # type: ignore[arg-type, call-overload]
            parts[place] = "@"
            yield json.dumps(parts).replace('"@"', text, 1)


@ALL
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_value_or_a_named_refusal(decoder: Decoder, data: st.DataObject) -> None:
    decoder.try_one(data.draw(damaged(decoder.samples) | st.binary(max_size=200)))


@ALL
def test_odd_json_is_a_value_or_a_named_refusal(decoder: Decoder) -> None:
    for sample in decoder.samples:
        for text in of_json(sample):
            decoder.try_one(text)


@ALL
def test_what_it_is_made_for_is_taken(decoder: Decoder) -> None:
    """Else damaged copies would be refused at the first byte, and nothing would be tried."""
    assert any(decoder.try_one(sample) for sample in decoder.samples)


@ALL
def test_memory_stays_in_proportion(decoder: Decoder) -> None:
    """Samples that are repeated, nested and cut to a megabyte at most: what Python holds at once has a bound that the table states."""
    tracemalloc.start()
    try:
        for sample in decoder.samples[:4]:
            for piece in (sample, sample[: len(sample) // 2], b"[" * 9, b'{"a":', b"\xff\xff\xff\xff", b"\x0a\x00", b"a"):
                data = sample[:1] + piece * min(20_000, 100_000 // max(1, len(piece)))
                assert decoder.peak(data) <= decoder.most(data), (decoder.name, piece[:20], len(data))
    finally:
        tracemalloc.stop()


def test_the_table_names_each_once_and_tells_faults_from_refusals() -> None:
    assert all(name == decoder.name and decoder.samples for name, decoder in DECODERS.items())
    broken = Decoder("broken", lambda data: {}[data], (b"",), (NdmlError,))
    with pytest.raises(KeyError):
        broken.try_one(b"")
