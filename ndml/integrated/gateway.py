"""`memory_gateway`: the suite as the seed's callers know it, every call of theirs and a vector door of `memory_dimension` components."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ndml.cli import records
from ndml.client import Added, CallOptions, Embedding, Memory, NdmlClient, SearchResult
from ndml.errors import FieldInvalid, ModelUnavailable
from ndml.fusion.readout import Floats
from ndml.integrated.config import MemoryConfig, labels
from ndml.integrated.projection import Projection

R = TypeVar("R")
Context = Mapping[str, Any] | None


class MemoryGateway:
    """Memory by its own calls. Whose it is says the context (`user_id`, `session_id`), else the config. Any thread, any event loop.

    Vectors, given and shown, have `memory_dimension` components.
    """

    def __init__(self, client: NdmlClient, config: MemoryConfig, memory_dimension: int | None, executor: Executor) -> None:
        """Raises FieldInvalid (memory_dimension), ModelUnavailable for a suite without an embedder."""
        self.client, self._config, self._executor = client, config, executor
        found = [model for model in client.models() if model.purpose == "embedding"]
        if not found:
            raise ModelUnavailable("the suite has no embedding model: start its llm service")
        self.embedding_model = found[0].id
        self.projection = Projection(found[0].dimension, memory_dimension)

    async def add_memory_async(
        self, content: str, context: Context = None, salience: float = 0.0, *, embedding: Any = None, deduplicate: bool = False
    ) -> Added:
        """Store one memory; it is on disk and findable when this returns. content: its text.

        embedding: a vector (tensor, array, list) in place of the suite's own of the text. What the context has beside the scope becomes
        labels. Raises FieldInvalid where there is no user, EmbeddingDimensionMismatch, and what `NdmlClient.add` raises.
        """
        if not isinstance(content, str):
            raise FieldInvalid(f"content is a {type(content).__name__}: a memory is a text, give its vector as embedding", field="content")
        vector = None if embedding is None else self.projection.up(embedding)
        scope = self._scope(context)
        return await self._away(
            partial(
                self.client.add, content, metadata=labels(context), salience=salience, embedding=vector, deduplicate=deduplicate, **scope
            )
        )

    async def retrieve_memories_async(self, query: Any, context: Context = None, k: int | None = None) -> list[tuple[Memory, float]]:
        """The k memories nearest to a text or to a vector, best first, with their scores; `embedding` has memory_dimension components.

        A text finds by everything that the suite ranks by, a vector by its angle alone.
        """
        found = await self._away(partial(self.search, query, self._scope(context), k or self._config.retrieval_k, vectors=True))
        return [(self._shown(hit.memory), hit.score) for hit in found]

    async def periodic_maintenance(self, context: Context = None) -> dict[str, Any]:
        """Consolidate a user's memories now; the suite does so by itself where it is told to. Gives what came of it."""
        return await self._away(partial(self._consolidated, self._scope(context)))

    async def delete_memory_async(self, trace_id: str, context: Context = None) -> bool:
        """Remove one for good; False where it was not there."""
        return await self._away(partial(self.client.delete, trace_id, allow_missing=True, **self._scope(context)))

    async def feedback_async(self, trace_id: str, grade: float, context: Context = None) -> None:
        """How useful it was, -1 to 1: only this strengthens a memory, being found does not."""
        await self._away(partial(self.client.reinforce, trace_id, grade, **self._scope(context)))

    def search(self, query: Any, scope: CallOptions, k: int, *, vectors: bool) -> SearchResult:
        """Blocking; over all sessions of the user. vectors: with the suite's own embeddings."""
        everywhere = scope | {"session": ""}
        if isinstance(query, str):
            return self.client.search(query, k=k, include_embedding=vectors, **everywhere)
        return self.client.search(embedding=self.projection.up(query), k=k, include_embedding=vectors, **everywhere)

    def stats(self, context: Context = None) -> dict[str, Any]:
        """Counts of the user's memory, of the whole tenant where no user is known."""
        scope = self._config.scope(context)
        return {
            **asdict(self.client.stats(**scope)),
            "user": scope["user"],
            "memory_dimension": self.projection.dimension,
            "embedding_model": self.embedding_model,
        }

    def save(self, path: Path, context: Context = None) -> int:
        """Write a user's memories, of all sessions and agents, as JSON lines, vectors included, whole or not at all; `ndml import` reads
        them too. Gives how many.
        """
        scope = self._scope(context) | {"session": "", "agent": ""}
        draft = path.with_name(path.name + ".part")
        count = 0
        with draft.open("w", encoding="utf-8") as file:
            for memory in self.client.export(include_embedding=True, **scope):
                file.write(json.dumps(records.plain(memory), ensure_ascii=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        return count

    def load(self, path: Path, context: Context = None) -> int:
        """Take in what `save` wrote, with ids and times; what is there already stays as it is. Gives how many are new.

        A context with a user takes all of it for that user. Raises FieldInvalid with the line, and the first refusal of the suite.
        """
        into = self._config.scope(context)["user"] if context else ""
        result = self.client.import_(self._stored(path), user=into)
        if result.failures:
            raise result.failures[0].error
        return result.imported

    def _stored(self, path: Path) -> Iterator[Memory]:
        try:
            with path.open(encoding="utf-8") as lines:
                yield from records.memories(lines)
        except (OSError, UnicodeDecodeError) as error:
            raise FieldInvalid(f"{path} is no checkpoint of memories: {error}", field="path") from error

    def _consolidated(self, scope: CallOptions) -> dict[str, Any]:
        stream = self.client.consolidate(**scope)
        for _ in stream:
            continue
        return {} if stream.last is None else asdict(stream.last)

    def _shown(self, memory: Memory) -> Memory:
        if memory.embedding is None:
            return memory
        vector: Floats = np.frombuffer(memory.embedding.vector, "<f4")
        return replace(memory, embedding=Embedding(self.projection.down(vector).astype("<f4").tobytes(), memory.embedding.model))

    def _scope(self, context: Context) -> CallOptions:
        scope = self._config.scope(context)
        if not scope["user"]:
            raise FieldInvalid("say whose memory: give context user_id, or memory_config user", field="context.user_id")
        return scope

    async def _away(self, act: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, act)
