"""The `Generator` of a service that was given no chat model: says what to set."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from ndml.errors import ModelNotConfigured
from ndml.runtime.log import get_logger
from services.llm.ports import WAYS, Abilities, Ask, Finish, Score

log = get_logger(__name__)

WHAT_TO_SET = (
    "no chat model is configured: chat.model of the llm service is empty. Set NDML_LLM__CHAT__MODEL=ndml-tiny, which is in the box, or to "
    "a directory or Hugging Face id of a causal LM, or NDML_LLM__CHAT__UPSTREAM_URL=http://localhost:11434/v1 (chat.upstream_url; an "
    "OpenAI-compatible API) together with NDML_LLM__CHAT__MODEL=<the model's name there>, and restart ndml-llm; memory works without it"
)


class Unconfigured:
    """Memory needs no chat model, so the service runs without one."""

    model = ""

    async def start(self) -> None:
        log.info("no_chat_model", hint=WHAT_TO_SET)

    async def stop(self) -> None:
        """Holds nothing."""

    @property
    def abilities(self) -> Abilities:
        return Abilities(dict.fromkeys(WAYS, "no chat model is configured"), scores=False, context_tokens=0)

    def generate(self, ask: Ask, remaining_s: float | None) -> AsyncGenerator[str | Finish, None]:
        """Raises ModelNotConfigured."""
        raise ModelNotConfigured(WHAT_TO_SET)

    async def score(self, texts: Sequence[str], context: str, remaining_s: float | None) -> list[Score]:
        """Raises ModelNotConfigured."""
        raise ModelNotConfigured(WHAT_TO_SET)
