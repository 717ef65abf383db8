"""What a chat's two models take on a core that does nothing else: the part `floor` of `bench_chat`.

The question's embedding and the model's forward passes, without a service around them: no search, no template, no stream.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from services.llm.encoder import HuggingFaceEncoder
from services.llm.settings import EmbeddingSection
from tests.perf.bench_state import median_us
from tests.perf.chat_load import NEW_TOKENS, People
from tests.perf.tables import Part, Table

ALONE, TOGETHER = 1, 64
_READ_TOGETHER = 16  # prompts of a pass: more of them are no faster
_NOTE = """One thread, no service: the embedder (packed) and transformers' own passes of the chat model, medians of {rounds} runs, ms
for each chat. {together} at once: questions in one batch, prompts read {read} at a time, steps of all together. Nothing of gRPC, search,
prompt, text or stream is in it: what the other processes take stands in the table above. The last column is what {cores} cores could
answer that do these passes and nothing else."""


@torch.inference_mode()
def floor(model: Path, prompt_tokens: int, cores: int, rounds: int) -> Part:
    """Milliseconds of each pass for a chat, and the chats that they alone would let `cores` answer."""
    torch.set_num_threads(1)
    encoder = HuggingFaceEncoder.load(EmbeddingSection())
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    people = People(TOGETHER)
    rows = []
    for count in (ALONE, TOGETHER):
        tokens = encoder.tokenize([people.question(n) for n in range(count)])
        embed = median_us(lambda tokens=tokens: encoder.encode(tokens, token_vectors=False), rounds) / 1e3 / count  # type: ignore[misc]
        read_at_once = min(count, _READ_TOGETHER)
        prompts = torch.randint(10, network.config.vocab_size, (read_at_once, prompt_tokens))
        read = median_us(lambda prompts=prompts: network(input_ids=prompts, logits_to_keep=1), rounds) / 1e3 / read_at_once  # type: ignore[misc]
        step = _steps(network, count, prompt_tokens) / count
        whole = embed + read + step
        rows.append((str(count), *(f"{ms:.2f}" for ms in (embed, read, step, whole)), f"{cores * 1e3 / whole:.0f}"))
    head = ("at once", "embed the question", f"read {prompt_tokens} tokens", f"{NEW_TOKENS} steps", "sum", f"chats/s on {cores} cores")
    note = _NOTE.format(rounds=rounds, together=TOGETHER, read=_READ_TOGETHER, cores=cores)
    return Part([], [Table("What the models alone take", note, head, rows)])


def _steps(network: torch.nn.Module, count: int, prompt_tokens: int) -> float:
    """Milliseconds of all steps of `count` answers after their prompts, in transformers' own cache."""
    prompts = torch.randint(10, 1000, (count, prompt_tokens))
    cache = network(input_ids=prompts, use_cache=True, logits_to_keep=1).past_key_values
    token = prompts[:, :1]
    began = time.perf_counter()
    for _ in range(NEW_TOKENS):
        found = network(input_ids=token, past_key_values=cache, use_cache=True)
        token = found.logits[:, -1:].argmax(-1)
    return 1e3 * (time.perf_counter() - began)
