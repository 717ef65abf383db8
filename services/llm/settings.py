"""Every knob of the llm service, with its reason."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from ndml.runtime.settings import Section, ServiceSettings, settings_config

BUNDLED = "all-MiniLM-L6-v2"


class EmbeddingSection(Section):
    """The embedding model and its batches."""

    model: str = Field(
        BUNDLED, min_length=1, description="Encoder: all-MiniLM-L6-v2 (installed with the service), a directory, or a Hugging Face hub id."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one.")
    half_precision: bool = Field(
        False, description="float16 on cuda: about twice as fast, vectors differ by about 1e-3 from those made in float32."
    )
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Threads that run batches. 0: one for each core (16 at most) on CPU, one on cuda. Each has a batch of its own.",
    )
    torch_threads: int = Field(
        1,
        ge=1,
        le=64,
        description="Cores that one batch uses. More workers beat more cores a batch: OpenMP threads wait for each other at every "
        "layer, 8 ms each time another process holds one of the cores.",
    )
    batch_tokens: int = Field(
        512,
        ge=64,
        le=1 << 20,
        description="Tokens of a batch, padding included. A CPU core is at its best rate from 256 on, and a question waits for the batches "
        "under way; on cuda set 16384.",
    )
    queue_texts: int = Field(
        4096,
        ge=256,
        description="Texts waiting at most; past it OVERLOADED. Some 10 s of work on two cores; no less than one full request.",
    )
    max_token_vector_bytes: int = Field(
        24 << 20, ge=1 << 20, description="Token vectors of one answer at most: with the rest of the message they stay below its limit."
    )


class ChatSection(Section):
    """The chat model: a local one, or an upstream that speaks OpenAI's API."""

    model: str = Field("", description="Causal LM: a directory or a Hugging Face hub id; with upstream_url: the model's name there.")
    upstream_url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="Base URL of an OpenAI-compatible API, up to /v1: vLLM, Ollama, llama.cpp. Empty: local.",
    )
    api_key: SecretStr = Field(SecretStr(""), description="Bearer token for the upstream. Empty: none is sent.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Of a local model. auto: cuda where there is one.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of a local model's weights. auto: as they were saved, on CPU float32, which it computes fastest."
    )
    context_tokens: int = Field(0, ge=0, description="Prompt and answer together at most. 0: what the model was made for.")
    default_max_new_tokens: int = Field(
        256, ge=1, le=4096, description="Tokens of an answer whose caller set no limit: the contract's 256."
    )
    max_concurrent: int = Field(
        2, ge=1, le=1024, description="Generations at once. A local one holds a thread and a key-value cache; an upstream takes more."
    )
    max_waiting: int = Field(32, ge=0, description="Generations waiting for their turn at most; past it OVERLOADED.")
    torch_threads: int = Field(0, ge=0, le=64, description="Cores of one local generation. 0: cores / max_concurrent.")
    connect_timeout_s: float = Field(5.0, gt=0, description="Upstream: to connect. A live one does in milliseconds.")
    read_timeout_s: float = Field(60.0, gt=0, description="Upstream: silence at most, the wait for the first token included.")
    retries: int = Field(
        2, ge=0, le=10, description="Upstream: further attempts before the first token; none after it, so that no text comes twice."
    )
    retry_delay_s: float = Field(0.25, gt=0, description="Upstream: before the first retry; doubles, follows Retry-After up to 5 s.")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="Upstream: name of the answer's limit. Newer OpenAI models want max_completion_tokens, others the old one.",
    )

    @model_validator(mode="after")
    def _upstream_names_its_model(self) -> ChatSection:
        if self.upstream_url and not self.model:
            raise ValueError("upstream_url needs chat.model (NDML_LLM__CHAT__MODEL), the name of the model there")
        return self


class LlmSettings(ServiceSettings):
    """ndml-llm: embeds texts and generates answers."""

    model_config = settings_config("NDML_LLM__")
    embedding: EmbeddingSection = Field(default_factory=EmbeddingSection, description="Embedding.")
    chat: ChatSection = Field(default_factory=ChatSection, description="Generation.")
