"""The `Generator` of a service that was given no chat model: says what to set."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from ndml.errors import ModelNotConfigured
from ndml.runtime.log import get_logger
from services.llm.ports import Finish, Message, Sampling

log = get_logger(__name__)

WHAT_TO_SET = (
    "no chat model is configured: set NDML_LLM__CHAT__MODEL=<directory or Hugging Face id of a causal LM> "
    "(chat.model in the llm service's config), or NDML_LLM__CHAT__UPSTREAM_URL=http://localhost:11434/v1 (chat.upstream_url; any "
    "OpenAI-compatible API) together with NDML_LLM__CHAT__MODEL=<the model's name there>, and restart ndml-llm; memory works without it"
)


class Unconfigured:
    """Memory needs no chat model, so the service runs without one."""

    model = ""

    async def start(self) -> None:
        log.info("no_chat_model", hint=WHAT_TO_SET)

    async def stop(self) -> None:
        """Holds nothing."""

    def generate(self, messages: Sequence[Message], sampling: Sampling, remaining_s: float | None) -> AsyncGenerator[str | Finish, None]:
        """Raises ModelNotConfigured."""
        raise ModelNotConfigured(WHAT_TO_SET)
