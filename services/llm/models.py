"""Which adapter the settings ask for.

torch and transformers are imported inside the functions: they take seconds, which must fall into a component's start, when health checks
are answered already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from services.llm.anthropic import AnthropicDialect
from services.llm.cores import usable_cores
from services.llm.generator import LocalGenerator
from services.llm.model_files import resolve
from services.llm.openai import OpenAIDialect
from services.llm.ports import Encoder, Generator, JointEncoder
from services.llm.settings import ChatSection, EmbeddingSection, JointSection
from services.llm.unconfigured import Unconfigured
from services.llm.upstream import Upstream

if TYPE_CHECKING:
    from services.llm.local_model import LocalModel


class ChatModel(Generator, Protocol):
    """A generator with a component's life."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def encoder_loader(settings: EmbeddingSection) -> Callable[[], Encoder]:
    """What loads the encoder; call it off the event loop."""

    def load() -> Encoder:
        resolve(settings.model)  # a wrong path need not wait for torch
        from services.llm.encoder import HuggingFaceEncoder

        return HuggingFaceEncoder.load(settings)

    return load


def joint_loader(settings: JointSection) -> Callable[[], Mapping[str, JointEncoder]]:
    """What loads the joint encoders, by space; call it off the event loop."""

    def load() -> Mapping[str, JointEncoder]:
        for model in settings.models.values():
            resolve(model)  # a wrong path need not wait for torch
        from services.llm.joint_encoder import HuggingFaceJointEncoder

        return {space: HuggingFaceJointEncoder.load(model, settings.device) for space, model in settings.models.items()}

    return load


def torch_threads(count: int) -> Callable[[], None]:
    """What a thread that computes runs first: torch keeps its number of cores for each thread."""

    def prepare() -> None:
        import torch

        torch.set_num_threads(count)

    return prepare


def chat_model(settings: ChatSection) -> ChatModel:
    """Upstream, local model, or the one that says what to set."""
    if settings.upstream_url:
        openai = settings.upstream_kind == "openai"
        return Upstream(settings, OpenAIDialect(settings.max_tokens_field) if openai else AnthropicDialect())
    if not settings.model:
        return Unconfigured()

    def load() -> LocalModel:
        resolve(settings.model)
        from services.llm.local_model import LocalModel

        return LocalModel.load(settings)

    return LocalGenerator(settings, load, torch_threads(settings.torch_threads or max(1, usable_cores() // 2)))
