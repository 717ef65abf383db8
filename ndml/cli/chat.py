"""ndml chat: one question, or a conversation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ndml.cli.output import table, text_and_id
from ndml.cli.session import Session
from ndml.client import ChatMessage, ChatStream, NdmlClient, Sampling

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
) -> None:
    """Ask a language model that remembers; says which memories stood behind the answer."""
    session: Session = context.obj
    sampling = Sampling(max_new_tokens=max_tokens, temperature=temperature)
    with session.client() as client:
        if question:
            asked = sys.stdin.read() if question == "-" else question
            _answer(session, client, [ChatMessage(asked)], recall, sampling)
        else:
            _converse(session, client, recall, sampling)


def _converse(session: Session, client: NdmlClient, recall: int | None, sampling: Sampling) -> None:
    turns: list[ChatMessage] = []
    session.output.note("An empty line ends the conversation.")
    while question := _ask():
        turns = [*turns[-_TURNS:], ChatMessage(question)]
        answer = _answer(session, client, turns, recall, sampling)
        if answer.text:
            turns.append(ChatMessage(answer.text, "assistant"))


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _answer(session: Session, client: NdmlClient, turns: list[ChatMessage], recall: int | None, sampling: Sampling) -> ChatStream:
    with client.chat(turns, recall_k=recall, sampling=sampling) as answer:
        for piece in answer:
            session.output.piece(piece)
    result = {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "model": answer.model,
        "citations": answer.citations,
        "answer_id": answer.answer_id,
        "usage": {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens},
    }
    rows = [(f"[{cited.number}]", f"{cited.score:.3f}", text_and_id(cited.text, cited.trace_id)) for cited in answer.citations]
    session.output.result(result, "", *([table("=", ">score", "recalled", rows=rows)] if rows else []))
    if answer.answer_id and not session.output.as_json:
        session.output.note(f"answer id: {answer.answer_id}")
    return answer
