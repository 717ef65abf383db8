"""Contents on their way in and queries that look for them: what is checked, what encoders are asked, what goes to the node."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ndml.errors import EmbeddingNotFinite, FieldInvalid
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.runtime.call import Call
from ndml.runtime.validation import ProtoValidator
from ndml.v1 import memory_pb2, types_pb2
from ndml.v1.types_pb2 import Content, Embedding
from services.gateway.contents import Contents
from services.gateway.manage import Manage
from services.gateway.ports import Embedded, JointSpace
from services.gateway.recall import Recall
from services.gateway.remember import Remember
from services.gateway.vectors import VectorSpace
from tests.unit.gateway.test_memory_service import Nodes

SCOPE = types_pb2.Scope(user="ann")
CALL = Call("/ndml.v1.MemoryService/X", tenant="t")
WORDS = VectorSpace("m", 2)
CLIP = JointSpace("clip", 3, ("image",))
BROKEN = b"no image"


def vector(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


class Encoder:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str], call: Call) -> list[Embedded]:
        self.asked += texts
        return [Embedded(vector(1, 0)) for _ in texts]


class Joint:
    """A text or the data of a content is at the place that its length says."""

    async def spaces(self, call: Call) -> Sequence[JointSpace]:
        return [CLIP]

    async def embed_texts(self, space: JointSpace, texts: Sequence[str], call: Call) -> list[bytes]:
        return [vector(*np.eye(3)[len(text) % 3]) for text in texts]

    async def embed_contents(self, space: JointSpace, contents: Sequence[Content], call: Call) -> list[bytes]:
        for i, content in enumerate(contents):
            if content.data == BROKEN:
                raise FieldInvalid("no image that can be read", field=f"contents[{i}].data")
        return [vector(*np.eye(3)[len(content.data) % 3]) for content in contents]


def image(data: bytes = b"xxxx", **fields: Any) -> Content:
    return Content(media_type="image/png", data=data, **fields)


def stored(operation: pb.Operation) -> pb.OperationResult:
    return pb.OperationResult(put=pb.PutResult(outcomes=[pb.PutOutcome() for _ in operation.put.traces]))


def found(operation: pb.Operation) -> pb.OperationResult:
    action = operation.search
    count = len(action.vectors) // (4 * (action.dimension or 2))
    return pb.OperationResult(search=pb.SearchResult(responses=[b""] * count))


async def added(*memories: memory_pb2.NewMemory, joint: bool = True) -> tuple[list[types_pb2.MemoryTrace], list[str]]:
    nodes, encoder = Nodes(stored), Encoder()
    remember = Remember(nodes, encoder, WORDS, lambda: 1000, os.urandom, Contents(WORDS, Joint() if joint else None))
    done = await remember.add(memories, "", CALL, lambda i: f"memories[{i}]")
    assert all(item.error is None for item in done.items)
    return list(nodes.operations[0].put.traces), encoder.asked


def memory(*contents: Content, text: str = "") -> memory_pb2.NewMemory:
    return memory_pb2.NewMemory(scope=SCOPE, text=text, contents=contents)


async def test_words_of_contents_are_embedded_and_what_has_none_by_what_it_is() -> None:
    shown, told = image(text="a red boat", data_bytes=7), Content(media_type="audio/wav", text="ahoy", uri="s3://b/a.wav")
    traces, asked = await added(memory(shown, told, text="the harbour"), memory(image(uri="https://x/y/boat.png")), memory(image()))
    assert asked == ["the harbour\na red boat\nahoy", "image/png boat.png", "image/png"]
    assert traces[0].contents[0].data == b"xxxx" and traces[0].contents[0].data_bytes == 0, "data_bytes is an answer's to say"
    assert traces[0].contents[1] == told


async def test_a_joint_encoder_makes_the_vectors_that_are_lacking() -> None:
    given = Embedding(model="clip", vector=vector(0, 0, 5))
    other = Embedding(model="other", vector=vector(0, 2))
    wav, far = Content(media_type="audio/wav", data=b"x"), Content(media_type="image/png", uri="s3://b/a.png")
    traces, _ = await added(memory(image(), image(embeddings=[given, other]), wav, far))
    assert [[(each.model, each.vector) for each in content.embeddings] for content in traces[0].contents] == [
        [("clip", vector(0, 1, 0))],
        [("clip", vector(0, 0, 1)), ("other", vector(0, 1))],
        [],
        [],
    ]
    traces, _ = await added(memory(image()), joint=False)
    assert not traces[0].contents[0].embeddings, "without an encoder it is stored as it came"


@pytest.mark.parametrize(
    ("contents", "field", "why"),
    [
        ([], "text", "or there must be contents"),
        ([Content(media_type="image/png")], "contents[0]", "needs data, a uri, text or an embedding"),
        ([image(), image(BROKEN)], "contents[1].data", "no image that can be read"),
        ([image(bytes(200_000))] * 3, "contents", "at most 524288"),
        ([image(embeddings=[Embedding(vector=vector(1))])], "contents[0].embeddings[0].model", "must name the model"),
        ([image(embeddings=[Embedding(vector=vector(1), model="m")])], "contents[0].embeddings[0].model", "not the one of words"),
        ([image(embeddings=[Embedding(vector=vector(1), model="o")] * 2)], "contents[0].embeddings[1].model", "stands there twice"),
        ([image(embeddings=[Embedding(vector=b"12345", model="o")])], "contents[0].embeddings[0].vector", "4 bytes each"),
        ([image(embeddings=[Embedding(vector=vector(1), model="clip")])], "contents[0].embeddings[0].vector", "1 components, .* have 3"),
        (
            [image(embeddings=[Embedding(vector=vector(1), model="o", word_vectors=b"1")])],
            "contents[0].embeddings[0].word_vectors",
            "of words",
        ),
    ],
)
async def test_what_is_wrong_with_a_content_is_said_where_it_stands(contents: list[Content], field: str, why: str) -> None:
    with pytest.raises(FieldInvalid, match=why) as refused:
        await added(memory(text="fine"), memory(*contents))
    assert refused.value.violations[0].field == f"memories[1].{field}"


async def test_a_vector_without_direction_is_refused() -> None:
    with pytest.raises(EmbeddingNotFinite):
        await added(memory(image(embeddings=[Embedding(vector=vector(0, 0), model="o")])))


@pytest.mark.parametrize("media_type", ["", "image", "image/", "an image/png", "image/png; q=1"])
def test_a_media_type_that_is_none_is_refused(media_type: str) -> None:
    request = memory_pb2.AddMemoryRequest(memory=memory(Content(media_type=media_type, text="x")))
    with pytest.raises(FieldInvalid) as refused:
        ProtoValidator()(request)
    assert refused.value.violations[0].field == "memory.contents[0].media_type"


def query(**fields: Any) -> memory_pb2.SearchMemoriesRequest:
    return memory_pb2.SearchMemoriesRequest(scope=SCOPE, **fields)


async def searched(*requests: memory_pb2.SearchMemoriesRequest) -> list[tuple[str, int, bytes]]:
    """(space, components, vectors) of each operation that the node gets."""
    nodes = Nodes(found)
    await Recall(nodes, Encoder(), WORDS, Contents(WORDS, Joint())).search_all(requests, CALL)
    return [(o.search.space, o.search.dimension, o.search.vectors) for o in nodes.operations]


async def test_a_search_looks_in_the_space_that_it_names_or_that_its_content_is_of() -> None:
    own = image(b"", embeddings=[Embedding(vector=vector(0, 3), model="own")])
    operations = await searched(
        query(text="four", space="clip"),
        query(content=image(b"xx")),
        query(text="plain"),
        query(embedding=Embedding(vector=vector(0, 0, 2)), space="clip"),
        query(content=own),
        query(content=own, space="own", include_data=True),
    )
    assert operations == [
        ("clip", 3, vector(0, 1, 0) + vector(0, 0, 1)),
        ("", 0, vector(1, 0)),
        ("clip", 3, vector(0, 0, 1)),
        ("own", 2, vector(0, 1)),
        ("own", 2, vector(0, 1)),
    ]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (query(text="x", space="unheard of"), "space"),
        (query(content=Content(media_type="audio/wav", data=b"x")), "content.media_type"),
        (query(content=image(), space="other"), "content.media_type"),
        (query(content=Content(media_type="image/png", uri="s3://a/b")), "content.data"),
        (query(content=image(BROKEN)), "content.data"),
        (query(embedding=Embedding(vector=vector(1), model="clap"), space="clip"), "embedding.model"),
        (query(content=image(embeddings=[Embedding(vector=vector(1), model=m) for m in "ab"])), "content.embeddings"),
    ],
)
async def test_a_search_that_no_encoder_can_embed_says_why(request_: memory_pb2.SearchMemoriesRequest, field: str) -> None:
    with pytest.raises(FieldInvalid) as refused:
        await Recall(Nodes(found), Encoder(), WORDS, Contents(WORDS, Joint())).search(request_, CALL)
    assert refused.value.violations[0].field == field


async def test_changed_contents_are_embedded_with_the_words_that_stay() -> None:
    kept = types_pb2.MemoryTrace(text="the harbour", speaker="ann", contents=[image(text="old")])
    nodes, encoder = Nodes(lambda _: pb.OperationResult(trace=pb.TraceResult(trace=kept))), Encoder()
    manage = Manage(nodes, encoder, WORDS, lambda: 1000, Contents(WORDS, Joint()))
    change = types_pb2.MemoryTrace(scope=SCOPE, trace_id="0" * 32, contents=[image(text="a blue boat")])
    request = memory_pb2.UpdateMemoryRequest(trace=change)
    request.update_mask.paths.append("contents")
    answer = await manage.update(request, CALL)
    assert encoder.asked == ["ann: the harbour\na blue boat"]
    update = nodes.operations[-1].update
    assert list(update.fields) == ["contents", "embedding"]
    assert update.trace.contents[0].embeddings[0].model == "clip"
    assert answer.trace.contents[0].data == b"" and answer.trace.contents[0].data_bytes == 4
