"""Every reader of bytes or text from outside, in one table: what tests/fuzz/test_decoders.py and `make fuzz` run."""

from __future__ import annotations

from tests.fuzz import doors, stored, upstreams
from tests.fuzz.table import Decoder

DECODERS: dict[str, Decoder] = {each.name: each for each in (*doors.DECODERS, *stored.DECODERS, *upstreams.DECODERS)}
