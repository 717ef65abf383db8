"""Calls about language models: chat, the models there are, vectors of texts. No I/O: the two clients add that."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack
from uuid import uuid4

from ndml.client import _decode as decode
from ndml.client import _encode as encode
from ndml.client import _models as models
from ndml.client._basics import Basics, owner_of
from ndml.client._calls import Streamed, Unary
from ndml.client._contents import Embedding
from ndml.client._models import ChatMessage
from ndml.client._options import CallOptions
from ndml.client._session import Owner, Tokens
from ndml.v1 import chat_pb2, model_pb2


@dataclass(frozen=True, slots=True)
class Talking(Basics):
    """Talking, with memory and without."""

    def chat(
        self,
        messages: str | Sequence[ChatMessage],
        *,
        recall_k: int | None = None,
        sampling: models.Sampling | None = None,
        fusion: str = "",
        learning: str = "",
        tools: Sequence[models.Tool] = (),
        tool_choice: str = "",
        model: str = "",
        request_id: str = "",
        consistency_token: str = "",
        **options: Unpack[CallOptions],
    ) -> Streamed:
        """Ask the language model with the user's memory at hand; the answer comes piece by piece.

        `messages`: a question, or the conversation whose last message asks; what the user said in it since the model's last words is
        learned. `recall_k`: memories to recall (None: 5, 0: none). `fusion`: how the model reads them, "prompt", "prefix", "adapter",
        "state" or "knn"; empty: the best that it can. `learning`: "background" (the default), "wait" (before the last piece, which names
        the traces) or "off". `tools` that the model may ask for, `tool_choice` "auto", "none", "required" or a tool's name. `model`: one
        of `models()`. `request_id` makes a repeat learn once (made up where it is not given).
        Raises ModelNotConfigured, ModelUnavailable, ModelUnknown, FusionUnsupported, LearningBacklog, FieldInvalid.
        """
        turns = [ChatMessage(messages)] if isinstance(messages, str) else messages
        scope = self._scope(options)
        request = chat_pb2.ChatRequest(
            scope=encode.scope(scope),
            messages=[encode.chat_message(turn) for turn in turns],
            sampling=encode.sampling(sampling),
            recall_k=None if recall_k is None else encode.integer("recall_k", recall_k),
            fusion=encode.fusion(fusion),
            learning=encode.learning(learning),
            tools=[encode.tool(each) for each in tools],
            tool_choice=encode.text("tool_choice", tool_choice),
            model=encode.text("model", model),
            consistency_token=self._token(scope, consistency_token),
            request_id=encode.text("request_id", request_id) or uuid4().hex,
        )
        return Streamed(self._call("chat", "Chat", options, stream=True), request, partial(_note, self.tokens, owner_of(scope)))

    def models(self, **options: Unpack[CallOptions]) -> Unary[builtins.list[models.ModelInfo]]:
        """The chat model, where one is configured, and the embedding model. Raises ModelUnavailable."""
        return Unary(self._call("model", "ListModels", options), model_pb2.ListModelsRequest(), decode.models_listed)

    def embed(self, texts: str | Sequence[str], *, model: str = "", **options: Unpack[CallOptions]) -> Unary[builtins.list[Embedding]]:
        """Unit vectors of up to 256 texts, in order: those under which memories with these texts are stored and found.

        `model`: an embedding model of `models()`. Raises ModelUnknown, ModelUnavailable, Overloaded, FieldInvalid.
        """
        given = [texts] if isinstance(texts, str) else texts
        request = model_pb2.EmbedTextsRequest(
            texts=[encode.text(f"texts[{i}]", each) for i, each in enumerate(given)], model=encode.text("model", model)
        )
        return Unary(self._call("model", "EmbedTexts", options), request, decode.embedded)


def _note(tokens: Tokens, owner: Owner, response: Any) -> None:
    tokens.remember(owner, response.consistency_token)
