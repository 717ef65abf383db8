"""LangChain and LlamaIndex against a running suite: their OpenAI classes with another base URL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from ndml.client import NdmlClient
from ndml.testing import Suite
from tests.doors.model import NAME
from tests.doors.toolchain import unavailable

DOORS = Path(__file__).parents[1] / "doors"


def new_user() -> str:
    return f"user-{uuid.uuid4().hex[:8]}"


def chat_of(suite: Suite, user: str, **options: Any) -> ChatOpenAI:
    wishes: Any = {"extra_body": {"user": user, "metadata": {"learning": "wait"}}, **options}
    return ChatOpenAI(base_url=f"{suite.rest_url}/v1", api_key=SecretStr("any"), model=NAME, max_retries=0, timeout=60, **wishes)


@tool
def look_up(about: str) -> str:
    """Looks it up in the wiki."""
    return f"all about {about}"


class Place(BaseModel):
    """Where somebody lives."""

    about: str


def test_langchain_talks_remembers_and_streams(doors: Suite) -> None:
    user = new_user()
    model = chat_of(doors, user, include_response_headers=True)
    told = model.invoke("I moved to Porto in May.")
    assert told.response_metadata["headers"]["ndml-memory"] == "on"
    asked = model.invoke("Where do I live?")
    assert "Porto" in str(asked.content) and asked.response_metadata["finish_reason"] == "stop"
    assert asked.usage_metadata is not None and asked.usage_metadata["total_tokens"] > 0
    chunks = list(chat_of(doors, user).stream("Where do I live?"))
    assert len(chunks) > 4 and "Porto" in "".join(str(chunk.content) for chunk in chunks)
    with NdmlClient(doors.grpc_address, user=user) as memory:
        assert any("Porto" in item.text for item in memory.list())


async def test_langchain_uses_tools_whole_and_streamed(doors: Suite) -> None:
    model = chat_of(doors, new_user()).bind_tools([look_up])
    question = HumanMessage("What is Delft known for?")
    answer = await model.ainvoke([question])
    [call] = answer.tool_calls
    assert (call["name"], call["args"]) == ("look_up", {"about": "What is Delft known for?"})
    final = await model.ainvoke([question, answer, ToolMessage(look_up.invoke(call["args"]), tool_call_id=call["id"])])
    assert final.content == "The tool says: all about What is Delft known for?"
    gathered: AIMessageChunk | None = None
    async for chunk in model.astream([question]):
        assert isinstance(chunk, AIMessageChunk)
        gathered = chunk if gathered is None else gathered + chunk
    assert gathered is not None and [call["args"] for call in gathered.tool_calls] == [{"about": "What is Delft known for?"}]
    structured = chat_of(doors, new_user()).with_structured_output(Place, method="function_calling")
    assert await structured.ainvoke("Ann lives in Ghent.") == Place(about="Ann lives in Ghent.")


async def test_langchain_embeds_and_raises_openais_errors(doors: Suite) -> None:
    options: Any = {"base_url": f"{doors.rest_url}/v1", "api_key": SecretStr("any"), "model": "all-MiniLM-L6-v2", "max_retries": 0}
    embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, **options)
    many = await embeddings.aembed_documents([f"fact {number}" for number in range(300)])
    one = await embeddings.aembed_query("fact 7")
    assert (len(many), len(one)) == (300, 384) and many[7] == pytest.approx(one, abs=1e-4)
    with pytest.raises(openai.NotFoundError):
        chat_of(doors, new_user()).bind(model="gpt-9").invoke("hi")
    with pytest.raises(openai.BadRequestError):
        chat_of(doors, new_user()).with_structured_output(Place, method="json_schema").invoke("Ann lives in Ghent.")


@pytest.fixture(scope="module")
def llama_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LlamaIndex beside the virtual environment: it wants an older OpenAI client, which is thereby tested too."""
    target = tmp_path_factory.mktemp("llama_index")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(target)]
    done = subprocess.run([*install, "-r", str(DOORS / "llama_index.txt")], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        unavailable(f"LlamaIndex cannot be installed here: {done.stderr[-300:]}")
    return target


@pytest.mark.timeout(600)
def test_llama_index_talks_remembers_uses_tools_and_embeds(doors: Suite, llama_index: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(llama_index), "NDML_REST": doors.rest_url, "NDML_MODEL": NAME, "NDML_USER": new_user()}
    command = [sys.executable, str(DOORS / "llama_index_client.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert "Porto" in said["asked"] and "Porto" in said["streamed"] and said["chunks"] > 4
    assert (said["tool"], said["arguments"]) == ("look_up", {"about": "What is Delft known for?"})
    assert said["after_tool"] == "The tool says: blue tiles"
    assert said["dimension"] == 384 and said["error"] == "NotFoundError 404 model_not_found"
    assert said["client"].startswith("2.")
