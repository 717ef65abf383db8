"""Confidence: of the best of the first hits, each word by its rarity; between 0 and 1, higher for what is nearer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndml.v1.memory_pb2 import SearchMemoriesResponse
from services.memory_node.signals.confidence import LOOKED_AT, confidence
from tests.unit.memory_node import node_harness as harness
from tests.unit.memory_node.signals.test_retrieval import DENSE, FAST, FULL, conversation, query


def of(*similarities: list[float], weights: list[float] | None = None) -> float | None:
    found = np.array(similarities, np.float32)
    return confidence(found, np.array(weights or [1.0] * len(found), np.float32))


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9), st.floats(0, 0.5, width=32))
def test_it_is_a_share_and_grows_with_the_nearest_hit(words: list[float], more: float) -> None:
    one, nearer = of(*([word] for word in words)), of(*([word + more] for word in words))
    assert one is not None and nearer is not None and 0 <= one <= nearer <= 1
    assert of(*([word, -1.0] for word in words)) == pytest.approx(one)


def test_rare_words_count_more() -> None:
    rare_is_there, rare_is_missing = of([0.9], [0.1], weights=[5, 1]), of([0.9], [0.1], weights=[1, 5])
    assert rare_is_there is not None and rare_is_missing is not None and rare_is_there > 0.9 > 0.1 > rare_is_missing


def test_hits_beyond_the_first_count_for_nothing_and_without_words_there_is_none() -> None:
    assert of([0.1] * LOOKED_AT + [1.0]) == of([0.1] * LOOKED_AT)
    assert confidence(np.empty((0, 3), np.float32), np.empty(0, np.float32)) is None
    assert confidence(np.empty((2, 0), np.float32), np.ones(2, np.float32)) is None


async def test_answers_say_it_where_words_were_compared(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", *conversation())

        async def told(text: str, mode: int, k: int = 10) -> float | None:
            data = (await node.one(query("ann", text, k=k, mode=mode))).search.responses[0]
            stats = SearchMemoriesResponse.FromString(data).stats
            return stats.confidence if stats.HasField("confidence") else None

        known, unknown = await told("violin strings", FULL), await told("submarine parliament", FULL)
        assert known is not None and unknown is not None and 1 > known > unknown > 0
        assert await told("violin strings", FULL, k=1) == known
        assert [await told("violin strings", mode) for mode in (FAST, DENSE)] == [None, None]
        assert await told("of the", FULL) is None
        assert not (await node.search("bo", 1)).stats.HasField("confidence")
