"""Every knob of the llm service, with its reason."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from ndml import tiny
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


class JointSection(Section):
    """Joint encoders: texts beside images in one space. None by default: memory then keeps the vectors that callers bring."""

    models: dict[str, str] = Field(
        default={},
        max_length=8,
        description="Name of the space -> a directory or a Hugging Face hub id of a CLIP- or SigLIP-like model. In the environment: JSON.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one.")
    batch: int = Field(16, ge=1, le=256, description="Texts or contents in one forward pass: more cost a CPU memory and gain nothing.")
    queue: int = Field(32, ge=1, description="Requests waiting at most; past it OVERLOADED.")
    torch_threads: int = Field(1, ge=1, le=64, description="Cores that a forward pass uses.")


class ChatSection(Section):
    """The chat model: a local one, or an upstream. What bounds it, how it reads memory."""

    model: str = Field(
        tiny.NAME,
        description="Causal LM: ndml-tiny (in the box: it answers from memory and knows nothing else), a directory or a Hugging Face hub "
        "id; with upstream_url: the model's name there. Empty: none; memory works without one.",
    )
    upstream_url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="Base URL of an API, up to /v1: vLLM, Ollama, llama.cpp, LM Studio, OpenAI, Anthropic. Empty: local.",
    )
    upstream_kind: Literal["openai", "anthropic"] = Field(
        "openai", description="What the upstream speaks: OpenAI's chat completions, or Anthropic's messages."
    )
    api_key: SecretStr = Field(SecretStr(""), description="Token for the upstream. Empty: none is sent.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Of a local model. auto: cuda where there is one.")
    spread: bool = Field(
        False,
        description="Local: spread the layers over all GPUs and main memory, where one GPU cannot hold them. Takes accelerate.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of a local model's weights. auto: as they were saved, on CPU float32, which it computes fastest."
    )
    quantization: Literal["none", "int8", "int4"] = Field(
        "none",
        description="Local: weights of the layers in fewer bits, on CPU or cuda: less memory, slightly other answers. Takes bitsandbytes.",
    )
    fusion: Literal["auto", "prompt", "prefix", "adapter", "state", "knn"] = Field(
        "auto",
        description="How memory is read where a request does not say. auto: prompt, which any model can; where the block finds no room, "
        "what is trained. Anything else is checked at start.",
    )
    memory_tokens: int = Field(
        1024,
        ge=0,
        le=1 << 20,
        description="Tokens of memory in a prompt at most, rules and fence included: some 30 traces. More cost time in each answer and "
        "rarely change it; the context may leave less.",
    )
    entry_chars: int = Field(2000, ge=16, le=65536, description="Of one trace in a prompt: a pasted page must not push out the others.")
    trained: str = Field(
        "", description="Local: directory that `ndml train` wrote, with an adapter, a projector or both. Empty: neither can be asked for."
    )
    state_bytes: int = Field(
        256 << 20,
        ge=0,
        description="Local, fusion=state: of states kept for memory that comes again; 1,000 tokens of a 1 B model take 30 MiB.",
    )
    store_bytes: int = Field(256 << 20, ge=0, description="Local, fusion=knn: of datastores kept for memory that comes again.")
    knn_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Local, fusion=knn: part of the neighbours in the next token's probability (lambda of kNN-LM). The default is the "
        "papers' own, and rarely turns what a model is sure of; 0.5 and more do. 0: the model alone.",
    )
    knn_neighbours: int = Field(16, ge=1, le=1024, description="Local, fusion=knn: how many vote (k); a memory has some hundred tokens.")
    knn_temperature: float = Field(
        0.1,
        gt=0,
        le=100,
        description="Local, fusion=knn: of their votes, in units of the store's spread. Lower: the nearest decides; where states of two "
        "memories lie close, 0.0001 tells them apart.",
    )
    knn_reach: float = Field(
        1.0,
        gt=0,
        le=100,
        description="Local, fusion=knn: further neighbours, in spreads, have no vote; without any the model is alone.",
    )
    prefix_bytes: int = Field(
        64 << 20, ge=0, description="Local: of keys and values kept for beginnings that prompts share, such as rules and history. 0: none."
    )
    context_tokens: int = Field(0, ge=0, description="Prompt and answer together at most. 0: what the model was made for.")
    default_max_new_tokens: int = Field(
        256, ge=1, le=4096, description="Tokens of an answer whose caller set no limit: the contract's 256."
    )
    max_concurrent: int = Field(
        64, ge=1, le=1024, description="Generations at once: rows of a local model's batch, where more cost little; calls to an upstream."
    )
    batch_tokens: int = Field(
        16384,
        ge=256,
        le=1 << 24,
        description="Local: rows of the batch times its longest, which keys and values take memory for: some 100 KiB a token in a 7 B "
        "model, up to twice this being allocated ahead. One request alone may exceed it, and gives back what it took.",
    )
    prefill_tokens: int = Field(
        2048,
        ge=64,
        le=1 << 20,
        description="Local: prompt tokens read between two steps, padding included; running answers wait for them. A longer prompt is read "
        "alone.",
    )
    score_tokens: int = Field(
        512,
        ge=8,
        le=8192,
        description="Local: of context and text that Score reads at most: for each it holds logits, 4 bytes times the vocabulary.",
    )
    score_queue: int = Field(
        1024, ge=64, description="Local: texts waiting to be scored at most; past it OVERLOADED, for scores only weigh memories."
    )
    stream_interval_s: float = Field(
        0.1,
        ge=0,
        le=5,
        description="Local: from one piece of an answer to the next, at least; the first goes at once. A piece costs each hop as much "
        "as its tokens cost a small model, and nobody reads faster. 0: a piece for each token.",
    )
    max_waiting: int = Field(64, ge=0, description="Generations waiting for their turn at most; past it OVERLOADED.")
    torch_threads: int = Field(
        0, ge=0, le=64, description="Cores of a local model. 0: half of them on CPU, as embedding and the event loop need theirs."
    )
    connect_timeout_s: float = Field(5.0, gt=0, description="Upstream: to connect. A live one does in milliseconds.")
    read_timeout_s: float = Field(60.0, gt=0, description="Upstream: silence at most, the wait for the first token included.")
    retries: int = Field(
        2, ge=0, le=10, description="Upstream: further attempts before the first token; none after it, so that no text comes twice."
    )
    retry_delay_s: float = Field(0.25, gt=0, description="Upstream: before the first retry; doubles, follows Retry-After up to 5 s.")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="OpenAI upstream: name of the answer's limit. Newer OpenAI models want max_completion_tokens, others the old one.",
    )

    @model_validator(mode="after")
    def _upstream_names_its_model(self) -> ChatSection:
        if self.upstream_url and not (self.model and "model" in self.model_fields_set):
            raise ValueError("upstream_url needs chat.model (NDML_LLM__CHAT__MODEL), the name of the model there")
        if self.upstream_url and self.fusion not in ("auto", "prompt"):
            raise ValueError(f"chat.fusion is {self.fusion}, which needs the model here: with upstream_url set it to auto or prompt")
        return self


class LlmSettings(ServiceSettings):
    """ndml-llm: embeds texts and generates answers."""

    model_config = settings_config("NDML_LLM__")
    embedding: EmbeddingSection = Field(default_factory=EmbeddingSection, description="Embedding.")
    joint: JointSection = Field(default_factory=JointSection, description="Joint encoders.")
    chat: ChatSection = Field(default_factory=ChatSection, description="Generation.")
