"""A conversation as the token ids that a model continues, cut to its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jinja2.exceptions import TemplateError

from ndml.errors import FieldInvalid
from services.llm.ports import Message

PLAIN_STOPS = ("\nuser:", "\nsystem:")  # a model without a chat template goes on to write the other side's lines


class PromptWriter:
    """Writes prompts for one tokenizer: its chat template where it has one, "role: content" lines where not."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.plain = not getattr(tokenizer, "chat_template", None)

    def fit(self, messages: Sequence[Message], budget: int | None) -> list[int]:
        """Token ids of at most `budget`: oldest turns give way, system messages and the last message never.

        Raises FieldInvalid (messages) with the numbers where those alone are too long.
        """
        kept = list(messages)
        ids = self.encode(kept)
        if budget is None or len(ids) <= budget:
            return ids
        sizes = {id(m): len(self._tokenizer(m.content, add_special_tokens=False)["input_ids"]) for m in messages}
        around = max(0, len(ids) - sum(sizes.values())) // len(messages)  # what the template adds to each message
        while len(ids) > budget:
            dropped = _drop_oldest(kept)
            while dropped and sum(sizes[id(m)] + around for m in kept) > budget:
                dropped = _drop_oldest(kept)
            ids = self.encode(kept)
            if not dropped and len(ids) > budget:
                raise FieldInvalid(
                    f"the last message and the system messages take {len(ids)} tokens, the model has room for {budget} beside the answer: "
                    "shorten them or ask for fewer max_new_tokens",
                    field="messages",
                )
        return ids

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """All of it. Raises FieldInvalid where the model's template refuses the order of roles."""
        text = _plain(messages) if self.plain else self._templated(messages)
        ids: list[int] = self._tokenizer(text, add_special_tokens=self.plain)["input_ids"]
        return ids

    def _templated(self, messages: Sequence[Message]) -> str:
        try:
            return self._apply(messages)
        except TemplateError:
            pass  # many templates know no system role and want turns to alternate: say the same in the form they take
        try:
            return self._apply(_alternating(messages))
        except TemplateError as error:
            raise FieldInvalid(f"the model's chat template refuses these messages: {error}", field="messages") from error

    def _apply(self, messages: Sequence[Message]) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text


def _plain(messages: Sequence[Message]) -> str:
    return "".join(f"{m.role}: {m.content}\n" for m in messages) + "assistant:"


def _alternating(messages: Sequence[Message]) -> list[Message]:
    """System text at the head of the first user turn, neighbours of one role joined."""
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    turns: list[Message] = []
    for message in (m for m in messages if m.role != "system"):
        if turns and turns[-1].role == message.role:
            turns[-1] = replace(message, content=f"{turns[-1].content}\n\n{message.content}")
        else:
            turns.append(message)
    if not system:
        return turns
    if turns and turns[0].role == "user":
        return [replace(turns[0], content=f"{system}\n\n{turns[0].content}"), *turns[1:]]
    return [Message("user", system), *turns]


def _drop_oldest(messages: list[Message]) -> bool:
    """Remove the oldest turn before the last message, and answers that then stand without their question. False: none is left."""
    turns = [i for i, m in enumerate(messages[:-1]) if m.role != "system"]
    if not turns:
        return False
    later = next((n for n, i in enumerate(turns[1:], 1) if messages[i].role == "user"), len(turns))
    for i in reversed(turns[:later]):
        del messages[i]
    return True
