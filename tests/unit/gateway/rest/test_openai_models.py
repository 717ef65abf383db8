"""OpenAI's routes for embeddings and models over ASGI with a scripted dispatcher."""

from __future__ import annotations

import base64
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from google.protobuf.message import Message

from ndml import errors
from services.gateway.rest import codec, openai, validation
from tests.unit.gateway.rest.openai_script import Script, client_of


async def test_embeddings_as_numbers_and_as_base64() -> None:
    script = Script()
    async with client_of(script) as client:
        numbers = (await client.post("/v1/embeddings", json={"input": ["a", "bbb"], "model": "mini", "dimensions": 2})).json()
        packed = (await client.post("/v1/embeddings", json={"input": "a", "model": "mini", "encoding_format": "base64"})).json()
    assert numbers["data"] == [
        {"object": "embedding", "index": 0, "embedding": [1.0, 0.5]},
        {"object": "embedding", "index": 1, "embedding": [3.0, 0.5]},
    ]
    assert (numbers["object"], numbers["model"]) == ("list", "mini")
    assert base64.b64decode(packed["data"][0]["embedding"]) == struct.pack("<2f", 1.0, 0.5)


@pytest.mark.parametrize(("above", "here"), [(1 << 20, True), (4, False)])
async def test_large_bodies_and_many_vectors_are_converted_off_the_loop(monkeypatch: pytest.MonkeyPatch, above: int, here: bool) -> None:
    threads: list[int] = []

    def noted(act: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def here(given: Any) -> Any:
            threads.append(threading.get_ident())
            return act(given)

        return here

    monkeypatch.setattr(validation, "parse_json", noted(codec.parse_json))
    monkeypatch.setattr(openai, "to_json", noted(codec.to_json))
    async with client_of(Script(), thread_above_bytes=above) as client:
        answer = await client.post("/v1/embeddings", json={"input": ["a", "bbb"]})
    assert [row["embedding"][0] for row in answer.json()["data"]] == [1.0, 3.0]
    assert [thread == threading.get_ident() for thread in threads] == [here, here]


async def test_many_texts_go_in_several_calls_and_errors_name_the_place_in_the_whole() -> None:
    script = Script()
    texts = ["x" * (1 + n % 7) for n in range(600)]
    async with client_of(script, max_embeddings=600) as client:
        answer = (await client.post("/v1/embeddings", json={"input": texts})).json()
        many = await client.post("/v1/embeddings", json={"input": [*texts, "y"]})
        script.fails = errors.FieldInvalid("too long", field="texts[3]")
        wrong = await client.post("/v1/embeddings", json={"input": texts})
    assert [len(request.texts) for _, request, _ in script.calls[:3]] == [256, 256, 88]
    assert [row["embedding"][0] for row in answer["data"]] == [float(len(text)) for text in texts]
    assert (many.status_code, many.json()["error"]["param"]) == (400, "input")
    assert wrong.json()["error"]["param"] == "input[3]"


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"input": [1, 2]}, "input", "token ids"),
        ({"input": [[1], [2]]}, "input", "token ids"),
        ({"input": []}, "input", "at least 1"),
        ({"model": "mini"}, "input", "required"),
        ({"input": ["a", 5]}, "input[1]", "string"),
        ({"input": "a", "dimensions": 9}, "dimensions", "has 2 dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "float"),
    ],
)
async def test_embeddings_that_are_refused(body: dict[str, Any], param: str, says: str) -> None:
    async with client_of(Script()) as client:
        response = await client.post("/v1/embeddings", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param) and says in error["message"].lower(), error


async def test_a_place_in_a_later_call_is_counted_from_the_first_text() -> None:
    class Late(Script):
        async def unary(self, method: str, request: Message, metadata: Mapping[str, str], timeout_s: float | None) -> Message:
            self.fails = errors.FieldInvalid("too long", field="texts[3]") if len(self.calls) == 1 else None
            return await super().unary(method, request, metadata, timeout_s)

    async with client_of(Late()) as client:
        response = await client.post("/v1/embeddings", json={"input": ["x"] * 300})
    assert response.json()["error"]["param"] == "input[259]"


async def test_models() -> None:
    async with client_of(Script()) as client:
        listed = (await client.get("/v1/models")).json()
        one = (await client.get("/v1/models/org/tiny")).json()
        quoted = (await client.get("/v1/models/org%2Ftiny")).json()
        missing = await client.get("/v1/models/gpt-4o")
    assert listed["object"] == "list" and [model["id"] for model in listed["data"]] == ["org/tiny", "mini", "default"]
    about = {"purpose": "chat", "dimension": 0, "max_tokens": 512, "stands_for": ""}
    assert one == quoted == {"id": "org/tiny", "object": "model", "created": 0, "owned_by": "ndml", "ndml": about}
    error = missing.json()["error"]
    assert (missing.status_code, error["code"], error["param"]) == (404, "model_not_found", "model") and "org/tiny" in error["message"]


async def test_other_names_are_listed_where_they_are_answered() -> None:
    aliases = {"gpt-4o-mini": "", "text-embedding-3-small": "mini", "gone": "no/such", "mini": "org/tiny", "*": ""}
    async with client_of(Script(), model_aliases=aliases) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        one = (await client.get("/v1/models/gpt-4o-mini")).json()
        gone = await client.get("/v1/models/gone")
    names = {model["id"]: model["ndml"]["stands_for"] for model in listed}
    assert names == {"org/tiny": "", "mini": "", "gpt-4o-mini": "org/tiny", "text-embedding-3-small": "mini"}
    assert one == next(model for model in listed if model["id"] == "gpt-4o-mini") and one["ndml"]["purpose"] == "chat"
    assert gone.status_code == 404


async def test_a_name_that_nothing_has_says_how_it_gets_one() -> None:
    async with client_of(Script([errors.ModelUnknown("model 'gpt-4o' is not served here", field="model")])) as client:
        refused = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}], "model": "gpt-4o"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "GET /v1/models" in error["message"] and "NDML_GATEWAY__REST__MODEL_ALIASES" in error["message"]
