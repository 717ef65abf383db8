"""ndml chat: one question, or a conversation."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ndml.cli.output import table, text_and_id
from ndml.cli.session import Session
from ndml.client import ChatMessage, ChatStream, NdmlClient, Sampling, Tool
from ndml.errors import FieldInvalid

# A chat request takes 256 messages at most; older turns fall out of a conversation that goes on longer.
_TURNS = 255


def register(app: typer.Typer) -> None:
    app.command("chat")(chat)


def chat(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="What to ask; - reads stdin; nothing starts a conversation.", show_default=False)] = "",
    recall: Annotated[int | None, typer.Option("--recall", "-k", help="Memories to recall; 0: none.", show_default="5")] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of the answer at most; 0: 256.")] = 0,
    temperature: Annotated[float, typer.Option(help="0: greedy; limit 2.")] = 0.0,
    fusion: Annotated[str, typer.Option(help="How the model reads memory: prompt, prefix, adapter, state or knn.")] = "",
    learning: Annotated[str, typer.Option(help="What is learned of this: background, wait or off.")] = "",
    model: Annotated[str, typer.Option(help="Model to answer; ndml status and ListModels name it.")] = "",
    tools: Annotated[
        list[str] | None, typer.Option("--tool", help="Tool that the model may ask for, as name or name=JSON schema; may be repeated.")
    ] = None,
    tool_choice: Annotated[str, typer.Option(help="auto, none, required, or a tool's name.")] = "",
) -> None:
    """Ask a language model that remembers; says which memories stood behind the answer, and learns what is said."""
    session: Session = context.obj
    wishes: dict[str, Any] = {
        "recall_k": recall,
        "sampling": Sampling(max_new_tokens=max_tokens, temperature=temperature),
        "fusion": fusion,
        "learning": learning,
        "model": model,
        "tools": [_tool(text) for text in tools or ()],
        "tool_choice": tool_choice,
    }
    with session.client() as client:
        if question:
            asked = sys.stdin.read() if question == "-" else question
            _answer(session, client, [ChatMessage(asked)], wishes)
        else:
            _converse(session, client, wishes)


def _tool(text: str) -> Tool:
    """ "name" or "name={…}". Raises FieldInvalid."""
    name, _, schema = text.partition("=")
    if not name:
        raise FieldInvalid(f"a tool is name or name=schema, got {text!r}", field="tool")
    return Tool(name.strip(), parameters=schema.strip())


def _converse(session: Session, client: NdmlClient, wishes: dict[str, Any]) -> None:
    turns: list[ChatMessage] = []
    session.output.note("An empty line ends the conversation.")
    while question := _ask():
        turns = [*turns[-_TURNS:], ChatMessage(question)]
        answer = _answer(session, client, turns, wishes)
        if answer.text:
            turns.append(ChatMessage(answer.text, "assistant"))


def _ask() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def _answer(session: Session, client: NdmlClient, turns: list[ChatMessage], wishes: dict[str, Any]) -> ChatStream:
    with client.chat(turns, **wishes) as answer:
        for piece in answer:
            session.output.piece(piece)
    result = {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "model": answer.model,
        "fusion": answer.fusion,
        "citations": answer.citations,
        "answer_id": answer.answer_id,
        "tool_calls": answer.tool_calls,
        "learned_trace_ids": answer.learned_trace_ids,
        "usage": {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens},
    }
    session.output.result(result, "", *_tables(answer))
    if not session.output.as_json:
        _notes(session, answer)
    return answer


def _tables(answer: ChatStream) -> list[Any]:
    cited = [
        (f"[{each.number}]{'*' if each.mentioned else ''}", f"{each.score:.3f}", text_and_id(each.text, each.trace_id))
        for each in answer.citations
    ]
    called = [(call.id, call.name, call.arguments) for call in answer.tool_calls]
    tables = [table("=", ">score", "recalled (* mentioned)", rows=cited)] if cited else []
    return [*tables, table("=call", "=tool", "arguments", rows=called)] if called else tables


def _notes(session: Session, answer: ChatStream) -> None:
    if answer.recall_stats is not None and answer.recall_stats.partial:
        session.output.note("memory did not answer: this is the model alone")
    if answer.learned_trace_ids:
        session.output.note(f"learned: {', '.join(answer.learned_trace_ids)}")
    if answer.answer_id:
        session.output.note(f"answer id: {answer.answer_id}")
