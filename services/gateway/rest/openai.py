"""OpenAI's routes: chat completions that remember, embeddings, models. Its clients work here with another base URL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast
from uuid import uuid4

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from ndml.errors import FieldInvalid, FieldViolation, ModelUnknown, NdmlError
from ndml.v1 import model_pb2
from services.gateway.rest.codec import to_json
from services.gateway.rest.openai_answers import Answering, Chunks, completion, embeddings_tree, model_tree
from services.gateway.rest.openai_bodies import ChatCompletionBody, EmbeddingsBody
from services.gateway.rest.openai_requests import ANY_MODEL, Asked, asked, model_of
from services.gateway.rest.operations import Group, Operation, Route
from services.gateway.rest.ports import Dispatcher
from services.gateway.rest.requests import Bodies, converted, metadata_of, timeout_of, until_gone
from services.gateway.rest.settings import RestSettings
from services.gateway.rest.streaming import StreamAnswer, whole_answer

MEMORY_HEADER = "ndml-memory"

_CHAT = "/ndml.v1.ChatService/Chat"
_MODELS = "/ndml.v1.ModelService/ListModels"
_EMBED = "/ndml.v1.ModelService/EmbedTexts"
_EMBED_TEXTS = 256  # of one EmbedTexts, as its proto says
_NO_USER = "off; no user given: set user, safety_identifier or the header ndml-user"

_TRACE = "0197f2c4a1b27c3d8e9f00112233aabb"
_CITATION = {"number": 1, "trace_id": _TRACE, "score": 0.83, "text": "Ann is allergic to nuts.", "mentioned": True}
_MODEL = {
    "id": "all-MiniLM-L6-v2",
    "object": "model",
    "created": 0,
    "owned_by": "ndml",
    "ndml": {"purpose": "embedding", "dimension": 384, "max_tokens": 256, "stands_for": ""},
}

OPERATIONS = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "chat_completions",
        ChatCompletionBody,
        {
            "id": "chatcmpl-5f0c",
            "object": "chat.completion",
            "created": 1800000000,
            "model": "ndml-tiny",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "No nuts, then [1].", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 41, "completion_tokens": 5, "total_tokens": 46},
            "ndml": {
                "memory": True,
                "fusion": "prompt",
                "answer_id": "AQGX8sShsnw9jp8AESIzqrvKziOz",
                "citations": [_CITATION],
                "recall_partial": False,
                "learned_trace_ids": [_TRACE],
                "consistency_token": "c",
            },
        },
        events=True,
    ),
    Operation(
        "POST",
        "/v1/embeddings",
        "embeddings",
        EmbeddingsBody,
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
            "model": "all-MiniLM-L6-v2",
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        },
    ),
    Operation("GET", "/v1/models", "models", None, {"object": "list", "data": [_MODEL]}),
    Operation("GET", "/v1/models/{model:path}", "model", None, _MODEL),
)


class OpenAIRoutes:
    """Handlers of /v1/chat/completions, /v1/embeddings and /v1/models. `clock` gives Unix seconds, `new_id` what no answer had before."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: RestSettings,
        bodies: Bodies,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._dispatcher = dispatcher
        self._settings = settings
        self._bodies = bodies
        self._clock = clock
        self._new_id = new_id

    def routes(self) -> Iterator[Route]:
        """(verb, path, handler) of each route."""
        for operation in OPERATIONS:
            yield operation.verb, operation.path, getattr(self, operation.name)

    async def chat_completions(self, request: Request) -> Response:
        """The model answers with what it remembers of the user. Beside the choices, `ndml` cites the memories that it read."""
        body = await self._bodies.parsed(request, ChatCompletionBody)
        call = asked(body, request.headers, metadata_of(request), self._settings.model_aliases)
        answering = self._answering(body, call)
        headers = {MEMORY_HEADER: "on" if call.remembers else _NO_USER}
        timeout_s = timeout_of(request, self._settings.max_timeout_s)
        parts = self._dispatcher.stream(_CHAT, call.request, call.metadata, timeout_s)
        if body.stream:
            chunks = Chunks(answering, call.metadata.get("traceparent", ""))
            return StreamAnswer(parts, timeout_s, chunks, self._settings.thread_above_bytes, headers)
        whole = whole_answer(parts, timeout_s, self._settings.chat_max_bytes)
        text, last = await until_gone(request.receive, whole)
        return await converted(len(text), self._settings.thread_above_bytes, lambda: _json(completion(answering, text, last), headers))

    async def embeddings(self, request: Request) -> Response:
        """The vectors under which texts would be stored and found, of unit length."""
        body = await self._bodies.parsed(request, EmbeddingsBody)
        limit = self._settings.max_embeddings
        if len(body.input) > limit:
            raise FieldInvalid(f"input has {len(body.input)} texts, at most {limit} are taken: send them in parts", field="input")
        vectors, model = await until_gone(request.receive, self._embed(body, request))
        size, packed = sum(map(len, vectors)), body.encoding_format == "base64"
        return await converted(size, self._settings.thread_above_bytes, lambda: _json(embeddings_tree(vectors, model, packed)))

    async def models(self, request: Request) -> Response:
        """The chat model, where one is configured, the embedding model, and the other names that they have here."""
        return _json({"object": "list", "data": await self._named(request)})

    async def model(self, request: Request) -> Response:
        """One model by its id, which may have slashes in it."""
        name = request.path_params["model"]
        named = await self._named(request)
        found = next((model for model in named if model["id"] == name), None)
        if found is None:
            raise ModelUnknown(f"no model {name[:256]!r} here; there are {', '.join(model['id'] for model in named)}", field="model")
        return _json(found)

    async def _named(self, request: Request) -> list[dict[str, Any]]:
        """Models, and what stands for one that is here: a name to choose from a list must be one that is answered."""
        listed = await self._listed(request)
        ids = {model.id: model for model in listed}
        aliases = {name: meant for name, meant in self._settings.model_aliases.items() if name not in (*ids, ANY_MODEL)}
        others = [model_tree(ids[meant] if meant else listed[0], name) for name, meant in aliases.items() if not meant or meant in ids]
        return [*map(model_tree, listed), *others]

    async def _listed(self, request: Request) -> list[model_pb2.Model]:
        answer = await self._unary(_MODELS, model_pb2.ListModelsRequest(), request, self._timeout(request))
        return list(cast(model_pb2.ListModelsResponse, answer).models)

    async def _embed(self, body: EmbeddingsBody, request: Request) -> tuple[list[bytes], str]:
        """Vectors and the model's name, by as many calls as it takes, one after the other and all within one deadline."""
        timeout_s = self._timeout(request)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        vectors: list[bytes] = []
        name = ""
        for first in range(0, len(body.input), _EMBED_TEXTS):
            wanted = model_pb2.EmbedTextsRequest(
                texts=body.input[first : first + _EMBED_TEXTS], model=model_of(body.model, self._settings.model_aliases)
            )
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                answer = cast(model_pb2.EmbedTextsResponse, await self._unary(_EMBED, wanted, request, left_s))
            except NdmlError as error:
                raise _counted_from(first, error) from None
            if body.dimensions not in (None, answer.dimension):
                text = f"{answer.model} has {answer.dimension} dimensions and cannot be cut to {body.dimensions}: leave dimensions out"
                raise FieldInvalid(text, field="dimensions")
            vectors += answer.embeddings
            name = answer.model
        return vectors, name

    async def _unary(self, method: str, message: Message, request: Request, timeout_s: float | None) -> Message:
        return await self._dispatcher.unary(method, message, metadata_of(request), timeout_s)

    def _timeout(self, request: Request) -> float | None:
        return timeout_of(request, self._settings.max_timeout_s)

    def _answering(self, body: ChatCompletionBody, call: Asked) -> Answering:
        return Answering(
            id=f"chatcmpl-{self._new_id()}",
            created=int(self._clock()),
            model=body.model,
            remembers=call.remembers,
            include_usage=body.stream_options.include_usage,
            parallel_tool_calls=body.parallel_tool_calls,
        )


def _counted_from(first: int, error: NdmlError) -> NdmlError:
    """The error with the texts' places in the whole input."""

    def moved(violation: FieldViolation) -> FieldViolation:
        head, bracket, rest = violation.field.partition("texts[")
        place, closing, tail = rest.partition("]")
        if head or not (bracket and closing and place.isdecimal()):
            return violation
        return FieldViolation(f"texts[{first + int(place)}]{tail}", violation.description, violation.rule)

    error.violations = tuple(moved(violation) for violation in error.violations)
    return error


def _json(tree: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(tree), 200, headers, "application/json")


GROUP = Group(
    "OpenAI",
    "What OpenAI's clients call: give them http://HOST:7780/v1 as base URL. `user` says whose memory takes part.",
    "openai",
    OPERATIONS,
    OpenAIRoutes,
    "OpenAIError",
)
