"""ChatService and ModelService of the server over a dict (memory_server.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from ndml.errors import ModelNotConfigured, ModelUnknown
from ndml.v1 import chat_pb2, chat_pb2_grpc, model_pb2, model_pb2_grpc


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    def __init__(self, world: Any) -> None:
        self.world = world

    def Chat(self, request: chat_pb2.ChatRequest, context: grpc.ServicerContext) -> Iterator[chat_pb2.ChatResponse]:
        if not self.world.model:
            raise ModelNotConfigured("no model is configured: set NDML_LLM__GENERATOR__MODEL")
        for word in ("You ", "said ", "so."):
            yield chat_pb2.ChatResponse(delta=word)
        recalled = self.world.visible(request.scope, vectors=False)[: request.recall_k if request.HasField("recall_k") else 5]
        answer_id = f"answer-{len(self.world.answers)}" if recalled else ""
        if recalled:
            self.world.answers[answer_id] = [trace.trace_id for trace in recalled]
        yield chat_pb2.ChatResponse(
            finish_reason=chat_pb2.FINISH_REASON_STOP,
            citations=[
                chat_pb2.Citation(number=number, trace_id=trace.trace_id, score=0.5, text=trace.text, mentioned=number == 1)
                for number, trace in enumerate(recalled, 1)
            ],
            usage=chat_pb2.Usage(prompt_tokens=9, completion_tokens=3),
            model=self.world.model,
            answer_id=answer_id,
            fusion=request.fusion,
            tool_calls=[chat_pb2.ToolCall(id=f"call-{tool.name}", name=tool.name, arguments_json="{}") for tool in request.tools],
            learned_trace_ids=["f" * 32] if request.learning == chat_pb2.LEARNING_WAIT else [],
            consistency_token=request.request_id and f"after-{request.request_id}",
        )


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, world: Any) -> None:
        self.world = world

    def ListModels(self, request: model_pb2.ListModelsRequest, context: grpc.ServicerContext) -> model_pb2.ListModelsResponse:
        chat = model_pb2.Model(id=self.world.model, purpose=model_pb2.MODEL_PURPOSE_CHAT, max_tokens=99)
        words = model_pb2.Model(id="words", purpose=model_pb2.MODEL_PURPOSE_EMBEDDING, dimension=4)
        return model_pb2.ListModelsResponse(models=[chat, words] if self.world.model else [words])

    def EmbedTexts(self, request: model_pb2.EmbedTextsRequest, context: grpc.ServicerContext) -> model_pb2.EmbedTextsResponse:
        if request.model not in ("", "words"):
            raise ModelUnknown("there is words", field="model")
        return model_pb2.EmbedTextsResponse(embeddings=[text[:4].encode().ljust(16) for text in request.texts], dimension=4, model="words")
