"""What a search brings to the node: vectors, the words that they came from, and how to rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ndml.errors import FieldInvalid
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime.call import Call
from ndml.runtime.validation import ProtoValidator
from ndml.v1 import memory_pb2, types_pb2
from ndml.v1.types_pb2 import SearchMode
from services.gateway.ports import NOTHING_SEEN, Done, Embedded, Seen
from services.gateway.recall import Recall
from services.gateway.scopes import Owner
from services.gateway.vectors import VectorSpace

FULL, FAST, DENSE = SearchMode.SEARCH_MODE_FULL, SearchMode.SEARCH_MODE_FAST, SearchMode.SEARCH_MODE_DENSE
SCOPE = types_pb2.Scope(user="ann")
CALL = Call("/ndml.v1.MemoryService/X", tenant="t")


def unit(angle: float) -> bytes:
    return np.array([np.cos(angle), np.sin(angle)], "<f4").tobytes()


class Encoder:
    """Every text has a vector and word vectors of its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str], call: Call) -> list[Embedded]:
        self.asked += texts
        return [Embedded(unit(len(text)), text.encode()) for text in texts]


class Nodes:
    """One node that answers each query with the vector that it got, as a trace's id, so that answers can be told apart."""

    copies_each = 1
    profiles: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.searches: list[pb.SearchAction] = []

    async def execute(
        self,
        owner: Owner,
        operation: pb.Operation,
        call: Call,
        *,
        seen: Seen = NOTHING_SEEN,
        consistency: types_pb2.Consistency = types_pb2.CONSISTENCY_UNSPECIFIED,
    ) -> Done:
        self.searches.append(operation.search)
        found = [memory_pb2.SearchHit(trace=types_pb2.MemoryTrace(trace_id=vector.hex())) for vector in vectors(operation.search)]
        responses = [memory_pb2.SearchMemoriesResponse(hits=[hit]).SerializeToString() for hit in found]
        return Done(pb.OperationResult(search=pb.SearchResult(responses=responses)))

    def execute_on_all(self, *_: object) -> None:
        raise AssertionError("a search asks its owner alone")

    export = consolidate = execute_on_all


def vectors(action: pb.SearchAction) -> list[bytes]:
    return [action.vectors[at : at + 8] for at in range(0, len(action.vectors), 8)]


def by_text(text: str, mode: int = 0) -> memory_pb2.SearchMemoriesRequest:
    return memory_pb2.SearchMemoriesRequest(scope=SCOPE, text=text, mode=mode)  # type: ignore[arg-type]


def by_vector(angle: float, mode: int = 0) -> memory_pb2.SearchMemoriesRequest:
    return memory_pb2.SearchMemoriesRequest(scope=SCOPE, embedding=types_pb2.Embedding(vector=unit(angle)), mode=mode)  # type: ignore[arg-type]


def recall() -> tuple[Recall, Nodes, Encoder]:
    nodes, encoder = Nodes(), Encoder()
    return Recall(nodes, encoder, VectorSpace("m", 2)), nodes, encoder  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [0, FULL, FAST])
async def test_a_search_by_text_brings_its_words_and_its_mode(mode: int) -> None:
    searching, nodes, _ = recall()
    await searching.search(by_text("plum jam", mode), CALL)
    [action] = nodes.searches
    assert (action.vectors, action.mode) == (unit(8), mode)
    assert list(action.texts) == [pb.QueryText(text="plum jam", word_vectors=b"plum jam")]


async def test_where_similarity_alone_ranks_words_stay_behind() -> None:
    searching, nodes, _ = recall()
    await searching.search(by_text("plum jam", DENSE), CALL)
    [action] = nodes.searches
    assert (action.vectors, action.mode, list(action.texts)) == (unit(8), DENSE, [])


@pytest.mark.parametrize("mode", [0, FULL, FAST, DENSE])
async def test_a_search_by_vector_has_no_words(mode: int) -> None:
    searching, nodes, encoder = recall()
    await searching.search(by_vector(1.0, mode), CALL)
    [action] = nodes.searches
    assert (action.vectors, action.mode, list(action.texts), encoder.asked) == (unit(1.0), mode, [], [])


async def test_a_batch_keeps_texts_vectors_and_modes_apart_and_answers_in_order() -> None:
    searching, nodes, encoder = recall()
    searches = [
        by_text("a"), by_vector(0.1), by_text("bb", FAST), by_text("ccc"), by_vector(0.2), by_text("dddd", DENSE), by_vector(0.3, FAST),
        by_text("eeeee", FULL), by_text("ffffff", FAST),
    ]  # fmt: skip
    answer = memory_pb2.BatchSearchMemoriesResponse.FromString(await searching.search_all(searches, CALL))
    expected = [request.embedding.vector or unit(len(request.text)) for request in searches]
    assert [result.response.hits[0].trace.trace_id for result in answer.results] == [each.hex() for each in expected]
    groups = {(action.mode, tuple(text.text for text in action.texts)): len(vectors(action)) for action in nodes.searches}
    assert groups == {
        (0, ("a", "ccc")): 2, (0, ()): 2, (FAST, ("bb", "ffffff")): 2, (DENSE, ()): 1, (FAST, ()): 1, (FULL, ("eeeee",)): 1
    }  # fmt: skip
    for action in nodes.searches:
        if action.texts:
            assert [unit(len(text.text)) for text in action.texts] == vectors(action), "each text stands at its vector"
            assert all(text.word_vectors == text.text.encode() for text in action.texts)
    assert encoder.asked == ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"]


async def test_more_queries_than_an_operation_holds_keep_their_texts() -> None:
    searching, nodes, _ = recall()
    await searching.search_all([by_text("x" * n) for n in range(1, 151)], CALL)
    assert [len(action.texts) for action in nodes.searches] == [64, 64, 22]
    assert [text.text for action in nodes.searches for text in action.texts] == ["x" * n for n in range(1, 151)]


def test_a_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(FieldInvalid) as refused:
        ProtoValidator()(by_text("a", 9))
    assert refused.value.violations[0].field == "mode"
