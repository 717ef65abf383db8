"""What memories hold beside their text, on its way in, and queries that look for it: checked, and where a joint encoder can, embedded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from ndml.errors import FieldInvalid
from ndml.runtime.call import Call
from ndml.v1 import memory_pb2, types_pb2
from services.gateway.ports import JointEncoders, JointSpace
from services.gateway.vectors import VectorSpace, unit_vector

MOST_BYTES = 524_288
"""Contents of one memory together: with its text it is one content that another node takes."""
_TOGETHER = 32
"""Contents in one request to an encoder: 8 MiB of data at most."""
_INDEXED = re.compile(r"^contents\[(\d+)\](.*)$")


class Given(Protocol):
    """A new memory, or a trace that is imported."""

    @property
    def text(self) -> str: ...

    @property
    def contents(self) -> Sequence[types_pb2.Content]: ...


class Sought(NamedTuple):
    """What a search looks for: a unit vector, float32 little-endian, in a space of so many components."""

    space: str
    dimension: int
    vector: bytes


class NoJointEncoders:
    """Fulfils `ports.JointEncoders` where there are none: spaces hold what callers bring."""

    async def spaces(self, call: Call) -> Sequence[JointSpace]:
        return ()

    async def embed_texts(self, space: JointSpace, texts: Sequence[str], call: Call) -> list[bytes]:
        raise FieldInvalid(f"there is no encoder of {space.name!r}", field="space")

    async def embed_contents(self, space: JointSpace, contents: Sequence[types_pb2.Content], call: Call) -> list[bytes]:
        raise FieldInvalid(f"there is no encoder of {space.name!r}", field="space")


class Contents:
    """`space`: of words, which contents have no vectors in."""

    def __init__(self, space: VectorSpace, joint: JointEncoders | None = None) -> None:
        self._space = space
        self._joint: JointEncoders = joint or NoJointEncoders()

    def accept(self, given: Given, path: str) -> list[types_pb2.Content]:
        """Its contents as they are stored. Raises FieldInvalid, too where there is nothing to remember; EmbeddingNotFinite."""
        if not given.contents:
            if not given.text:
                raise FieldInvalid("must be at least 1 character, or there must be contents", field=f"{path}.text")
            return []
        return self.accept_all(given.contents, f"{path}.contents")

    def accept_all(self, given: Sequence[types_pb2.Content], path: str) -> list[types_pb2.Content]:
        """Contents as they are stored. Raises FieldInvalid, EmbeddingNotFinite."""
        size = sum(content.ByteSize() for content in given)
        if size > MOST_BYTES:
            raise FieldInvalid(f"{size} bytes together, at most {MOST_BYTES} a memory: leave data where it is and give its uri", field=path)
        return [self._accepted(content, f"{path}[{i}]") for i, content in enumerate(given)]

    def _accepted(self, given: types_pb2.Content, path: str) -> types_pb2.Content:
        if not (given.data or given.uri or given.text or given.embeddings):
            raise FieldInvalid("needs data, a uri, text or an embedding", field=path)
        made = types_pb2.Content(media_type=given.media_type, data=given.data, uri=given.uri, text=given.text)
        for i, embedding in enumerate(given.embeddings):
            where = f"{path}.embeddings[{i}]"
            self._check_model(embedding, where, {each.model for each in made.embeddings})
            made.embeddings.add(model=embedding.model, vector=unit_vector(embedding.vector, where))
        return made

    def _check_model(self, embedding: types_pb2.Embedding, path: str, others: set[str]) -> None:
        """Raises FieldInvalid."""
        if not embedding.model or embedding.model == self._space.model:
            raise FieldInvalid("must name the model that made the vector, and not the one of words", field=f"{path}.model")
        if embedding.model in others:
            raise FieldInvalid(f"{embedding.model!r} stands there twice: one vector of a content in a space", field=f"{path}.model")
        if embedding.word_vectors:
            raise FieldInvalid("word vectors are of words: leave them out", field=f"{path}.word_vectors")

    async def complete(self, contents: Sequence[Iterable[types_pb2.Content]], call: Call, path: Callable[[int], str]) -> None:
        """Add the vectors that joint encoders can make of the data of accepted contents; path(i): of the i-th memory's.

        Raises FieldInvalid for data that they cannot read, ModelUnavailable, Overloaded.
        """
        placed = [(f"{path(i)}[{j}]", content) for i, some in enumerate(contents) for j, content in enumerate(some)]
        if not placed:
            return
        spaces = {space.name: space for space in await self._joint.spaces(call)}
        for where, content in placed:
            _check_dimensions(content, spaces, where)
        for space in spaces.values():
            wanted = [(where, content) for where, content in placed if _reads(space, content)]
            for (_, content), vector in zip(wanted, await self._embed(space, wanted, call), strict=True):
                content.embeddings.add(model=space.name, vector=vector)

    async def _embed(self, space: JointSpace, placed: Sequence[tuple[str, types_pb2.Content]], call: Call) -> list[bytes]:
        made: list[bytes] = []
        for start in range(0, len(placed), _TOGETHER):
            part = placed[start : start + _TOGETHER]
            try:
                made += await self._joint.embed_contents(space, [content for _, content in part], call)
            except FieldInvalid as error:
                raise _at_its_place(error, [where for where, _ in part]) from None
        return made

    async def sought(self, requests: Sequence[tuple[memory_pb2.SearchMemoriesRequest, str]], call: Call) -> list[Sought]:
        """What searches in spaces of contents look for; each has its path with a dot, or "".

        Raises FieldInvalid, EmbeddingNotFinite, ModelUnavailable, Overloaded.
        """
        found = {i: given for i, (request, prefix) in enumerate(requests) if (given := self._brought(request, prefix)) is not None}
        lacking = [i for i in range(len(requests)) if i not in found]
        spaces = await self._joint.spaces(call) if lacking else ()
        by_space: dict[JointSpace, list[int]] = defaultdict(list)
        for i in lacking:
            by_space[_space_of(*requests[i], spaces)].append(i)
        for space, places in by_space.items():
            for query, embed in (("text", self._texts), ("content", self._images)):
                some = [i for i in places if requests[i][0].WhichOneof("query") == query]
                vectors = await embed(space, [requests[i] for i in some], call) if some else []
                found |= {i: Sought(space.name, space.dimension, vector) for i, vector in zip(some, vectors, strict=True)}
        return [found[i] for i in range(len(requests))]

    async def _texts(self, space: JointSpace, some: Sequence[tuple[memory_pb2.SearchMemoriesRequest, str]], call: Call) -> list[bytes]:
        return await self._joint.embed_texts(space, [request.text for request, _ in some], call)

    async def _images(self, space: JointSpace, some: Sequence[tuple[memory_pb2.SearchMemoriesRequest, str]], call: Call) -> list[bytes]:
        return await self._embed(space, [(f"{prefix}content", request.content) for request, prefix in some], call)

    def _brought(self, request: memory_pb2.SearchMemoriesRequest, prefix: str) -> Sought | None:
        """The vector that the request itself brings; None: it brings none."""
        if request.HasField("embedding"):
            return _sought(request.embedding, request.space, f"{prefix}embedding")
        if not request.HasField("content") or not request.content.embeddings:
            return None
        given = [each for each in request.content.embeddings if request.space in ("", each.model)]
        if len(given) != 1:
            raise FieldInvalid("must have one vector of the space that is searched: set space", field=f"{prefix}content.embeddings")
        return _sought(given[0], given[0].model, f"{prefix}content.embeddings")


def in_a_space(request: memory_pb2.SearchMemoriesRequest) -> bool:
    """Whether the search looks for contents, by their vectors."""
    return bool(request.space) or request.HasField("content")


def _sought(embedding: types_pb2.Embedding, space: str, path: str) -> Sought:
    if not space or embedding.model not in ("", space):
        raise FieldInvalid(f"the vector is of {embedding.model!r}, the search in {space!r}: they do not compare", field=f"{path}.model")
    return Sought(space, len(embedding.vector) // 4, unit_vector(embedding.vector, path))


def _space_of(request: memory_pb2.SearchMemoriesRequest, prefix: str, spaces: Sequence[JointSpace]) -> JointSpace:
    """Where a query that an encoder must embed is looked for. Raises FieldInvalid."""
    configured = ", ".join(space.name for space in spaces) or "none"
    if request.HasField("content"):
        if not request.content.data:
            raise FieldInvalid("must have data that an encoder reads, or a vector in embeddings", field=f"{prefix}content.data")
        reading = [space for space in spaces if request.space in ("", space.name) and _media(request.content) in space.media]
        if not reading:
            raise FieldInvalid(
                f"no joint encoder reads {request.content.media_type} here (there is {configured}): give its vector in embeddings",
                field=f"{prefix}content.media_type",
            )
        return reading[0]
    found = next((space for space in spaces if space.name == request.space), None)
    if found is None:
        raise FieldInvalid(
            f"no joint encoder is called {request.space!r} (configured: {configured}): search with a vector", field=f"{prefix}space"
        )
    return found


def _check_dimensions(content: types_pb2.Content, spaces: dict[str, JointSpace], path: str) -> None:
    """Raises FieldInvalid where a caller's vector cannot be compared with those that the encoder of its space makes."""
    for i, embedding in enumerate(content.embeddings):
        space, size = spaces.get(embedding.model), len(embedding.vector) // 4
        if space is not None and space.dimension != size:
            raise FieldInvalid(
                f"the vector has {size} components, those of {space.name!r} have {space.dimension}", field=f"{path}.embeddings[{i}].vector"
            )


def _reads(space: JointSpace, content: types_pb2.Content) -> bool:
    """Whether the encoder can make a vector of it that it lacks."""
    return bool(content.data) and _media(content) in space.media and all(each.model != space.name for each in content.embeddings)


def _media(content: types_pb2.Content) -> str:
    return content.media_type.partition("/")[0].lower()


def _at_its_place(error: FieldInvalid, paths: Sequence[str]) -> FieldInvalid:
    """What the llm service says of `contents[i]`, said of where that stands in the request."""
    found = _INDEXED.match(error.violations[0].field) if error.violations else None
    place = int(found.group(1)) if found is not None else len(paths)
    if found is None or place >= len(paths):
        return error
    return FieldInvalid(error.violations[0].description, field=f"{paths[place]}{found.group(2)}")
