"""What a LlamaIndex user writes; prints what came of it as JSON. Run by tests/integration/test_openai_frameworks.py."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import openai
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

URL = os.environ["NDML_REST"] + "/v1"
MODEL = os.environ["NDML_MODEL"]


def model(name: str = MODEL) -> OpenAILike:
    body = {"user": os.environ["NDML_USER"], "metadata": {"learning": "wait"}}
    common: dict[str, Any] = {"api_base": URL, "api_key": "any", "is_chat_model": True, "max_retries": 0, "timeout": 60.0}
    return OpenAILike(model=name, is_function_calling_model=True, additional_kwargs={"extra_body": body}, **common)


def look_up(about: str) -> str:
    """Looks it up in the wiki."""
    return f"all about {about}"


def asks(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def failure() -> str:
    try:
        model("gpt-9").chat([asks("hi")])
    except openai.APIStatusError as error:
        return f"{type(error).__name__} {error.status_code} {error.code}"
    return "none"


def main() -> None:
    llm = model()
    llm.chat([asks("I moved to Porto in May.")])
    asked = llm.chat([asks("Where do I live?")])
    streamed = [chunk.delta or "" for chunk in llm.stream_chat([asks("Where do I live?")])]
    question = asks("What is Delft known for?")
    tool = FunctionTool.from_defaults(look_up)
    answer = llm.chat_with_tools([tool], chat_history=[question])
    [call] = llm.get_tool_calls_from_response(answer)
    told = ChatMessage(role=MessageRole.TOOL, content="blue tiles", additional_kwargs={"tool_call_id": call.tool_id})
    after = llm.chat([question, answer.message, told])
    embedding = OpenAILikeEmbedding(model_name="all-MiniLM-L6-v2", api_base=URL, api_key="any")
    said = {
        "asked": asked.message.content,
        "streamed": "".join(streamed),
        "chunks": len(streamed),
        "tool": call.tool_name,
        "arguments": call.tool_kwargs,
        "after_tool": after.message.content,
        "dimension": len(embedding.get_text_embedding("a fact")),
        "error": failure(),
        "client": openai.__version__,
    }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
