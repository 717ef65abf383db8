"""The models behind the suite: which there are, and vectors of texts without a memory behind them."""

from __future__ import annotations

from ndml.errors import ModelUnknown
from ndml.runtime.call import Call
from ndml.v1 import model_pb2
from services.gateway.ports import Embedder, ModelDirectory
from services.gateway.vectors import VectorSpace


class Models:
    """Lists models and embeds texts."""

    def __init__(self, directory: ModelDirectory, embedder: Embedder, space: VectorSpace) -> None:
        self._directory = directory
        self._embedder = embedder
        self._space = space

    async def list_(self, call: Call) -> model_pb2.ListModelsResponse:
        """The chat model, where one is configured, then the embedding model. Raises ModelUnavailable."""
        info = await self._directory.info(call)
        chat = model_pb2.Model(id=info.chat_model, purpose=model_pb2.MODEL_PURPOSE_CHAT, max_tokens=info.context_tokens)
        embedding = model_pb2.Model(
            id=info.embedding_model, purpose=model_pb2.MODEL_PURPOSE_EMBEDDING, dimension=info.dimension, max_tokens=info.max_tokens
        )
        return model_pb2.ListModelsResponse(models=[chat, embedding] if info.chat_model else [embedding])

    async def embed(self, request: model_pb2.EmbedTextsRequest, call: Call) -> model_pb2.EmbedTextsResponse:
        """The vectors under which the texts would be found. Raises ModelUnknown, ModelUnavailable, Overloaded."""
        space = self._space
        if request.model not in ("", space.model):
            raise ModelUnknown(f"this suite embeds with {space.model!r}, not {request.model!r}: leave model out", field="model")
        vectors = [embedded.vector for embedded in await self._embedder.embed(request.texts, call)]
        return model_pb2.EmbedTextsResponse(embeddings=vectors, dimension=space.dimension, model=space.model)
