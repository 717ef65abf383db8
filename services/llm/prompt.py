"""A conversation as the token ids that a model continues, cut to its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jinja2.exceptions import TemplateError

from ndml.errors import FieldInvalid
from ndml.fusion.families import special_tokens
from ndml.fusion.prompt import broken, control_tokens, plain_line
from services.llm.control_tokens import marks_of
from services.llm.ports import Message, Tool
from services.llm.tool_calls import function_of, turn_of
from services.llm.vocabulary import Vocabulary

PLAIN_STOPS = ("\nuser:", "\nsystem:")  # a model without a chat template goes on to write the other side's lines


class PromptWriter:
    """Writes prompts for one tokenizer: its chat template where it has one, "role: content" lines where not.

    What begins and ends turns comes from the template alone: where a text spells it, a blank breaks it.
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary | None = None) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary or Vocabulary(tokenizer)
        given = getattr(tokenizer, "chat_template", None)
        template = " ".join(given.values()) if isinstance(given, dict) else given or ""
        self.plain = not template
        self.knows_tools = "tools" in template
        self._marks = control_tokens([*special_tokens(tokenizer), *marks_of(template)])

    def fit(self, messages: Sequence[Message], budget: int | None, tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids of at most `budget`: oldest turns give way, system messages and the last message never.

        Raises FieldInvalid (messages) with the numbers where those alone are too long.
        """
        kept = list(messages)
        ids = self.encode(kept, tools)
        if budget is None or len(ids) <= budget:
            return ids
        sizes = {id(m): len(self._vocabulary.ids(m.content)) for m in messages}
        around = max(0, len(ids) - sum(sizes.values())) // len(messages)  # what the template adds to each message
        while len(ids) > budget:
            dropped = _drop_oldest(kept)
            while dropped and sum(sizes[id(m)] + around for m in kept) > budget:
                dropped = _drop_oldest(kept)
            ids = self.encode(kept, tools)
            if not dropped and len(ids) > budget:
                must = "the last message, the system messages and the tools" if tools else "the last message and the system messages"
                raise FieldInvalid(
                    f"{must} take {len(ids)} tokens, the model has room for {budget} beside the answer: "
                    "shorten them or ask for fewer max_new_tokens",
                    field="messages",
                )
        return ids

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """All of it. Raises FieldInvalid where the model's template refuses the order of roles."""
        text = self._lines(messages) if self.plain else self._templated(messages, tools)
        return self._vocabulary.ids(text, special=self.plain)

    def length(self, tools: Sequence[Tool]) -> int:
        """Tokens that these tools take of a prompt."""
        around = [Message("user", "")]
        return len(self.encode(around, tools)) - len(self.encode(around)) if tools else 0

    def _templated(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        try:
            return self._apply(messages, tools)
        except TemplateError:
            pass  # many templates know no system role and want turns to alternate: say the same in the form they take
        try:
            return self._apply(_alternating(messages), tools)
        except TemplateError as error:
            raise FieldInvalid(f"the model's chat template refuses these messages: {error}", field="messages") from error

    def _apply(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        turns = [self._said(turn_of(m, parsed=True)) for m in messages]
        functions = [self._said(function_of(tool)) for tool in tools] or None
        text: str = self._tokenizer.apply_chat_template(turns, tools=functions, tokenize=False, add_generation_prompt=True)
        return text

    def _lines(self, messages: Sequence[Message]) -> str:
        return "".join(f"{plain_line(m.role, self._said(m.content))}\n" for m in messages) + "assistant:"

    def _said(self, value: Any) -> Any:
        """Every text in a message or tool, without the model's control tokens."""
        if isinstance(value, str):
            return broken(value, self._marks)
        if isinstance(value, dict):
            return {self._said(key): self._said(each) for key, each in value.items()}
        return [self._said(each) for each in value] if isinstance(value, list) else value


def _alternating(messages: Sequence[Message]) -> list[Message]:
    """System text at the head of the first user turn, neighbours of one role joined, what tools returned said by the user."""
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    turns: list[Message] = []
    for message in (Message("user" if m.role == "tool" else m.role, m.content) for m in messages if m.role != "system"):
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
