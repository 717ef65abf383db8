"""Tearing a log: it ends, or turns to noise, at a byte of its own, and what stood before that byte stands."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.disk import tear


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(0, 5000), garble=st.booleans())
def test_what_stands_before_the_cut_is_untouched(tmp_path_factory: object, seed: int, size: int, garble: bool) -> None:
    path = tmp_path_factory.mktemp("log") / "wal"  # type: ignore[attr-defined]
    before = Random(seed).randbytes(size)
    path.write_bytes(before)
    gone = tear(path, Random(seed + 1), garble=garble)
    after = path.read_bytes()
    assert (gone > 0) == (size > 0)
    assert after[: size - gone] == before[: size - gone]
    assert len(after) == (size if garble else size - gone)


def test_no_log_is_no_fault(tmp_path: Path) -> None:
    assert tear(tmp_path / "none", Random(1), garble=True) == 0
