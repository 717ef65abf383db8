"""The network: a plain Llama of transformers, and a faster forward pass for training that also shows where it looks.

Only answers are trained on, so the last block runs for the rows before answer tokens alone. `tests/unit/tiny` holds that the logits are
those of transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True, slots=True)
class Size:
    """Of the network. `context` is how far positions were meant to reach."""

    vocabulary: int
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 384
    context: int = 2048
    theta: float = 10_000.0


@dataclass(frozen=True, slots=True)
class Look:
    """Log-probabilities of where heads look: before and number (B, P, T), the first two heads of the first block; source (B, R, T), the
    first of the last block but one; copy (B, H, R, T), all heads of the last block."""

    before: Tensor
    number: Tensor
    source: Tensor
    copy: Tensor


def build(size: Size, start: int, end: int, pad: int) -> LlamaForCausalLM:
    """A fresh network. Its last block begins as a copier: what it looks at is what it says."""
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        intermediate_size=size.inner,
        max_position_embeddings=size.context,
        rope_parameters={"rope_type": "default", "rope_theta": size.theta},
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=pad,
    )
    model = LlamaForCausalLM(config)
    last = model.model.layers[-1].self_attn
    with torch.no_grad():
        last.v_proj.weight.add_(torch.eye(size.hidden))
        last.o_proj.weight.add_(torch.eye(size.hidden))
    return model


def rotary(size: Size, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, D / 2)."""
    width = size.hidden // size.heads
    speeds = size.theta ** -(torch.arange(0, width, 2) / width)
    angles = torch.outer(torch.arange(length).float(), speeds)
    return angles.cos(), angles.sin()


def forward(model: LlamaForCausalLM, size: Size, ids: Tensor, rows: Tensor, probes: Tensor) -> tuple[Tensor, Look]:
    """Logits (B, R, V) at `rows` (B, R) of `ids` (B, T), and where the heads looked: those of the first block at `probes` (P)."""
    count, width = ids.shape
    cos, sin = rotary(size, width)
    x = F.embedding(ids, model.model.embed_tokens.weight)
    near = source = torch.empty(0)
    layers = model.model.layers
    for depth, layer in enumerate(layers[:-1]):
        q, k, v = _heads(layer, x, cos, sin)
        if depth == 0:
            near = _looks(q[:, :2, probes], k[:, :2], probes.expand(count, -1))
        if depth == len(layers) - 2:
            source = _looks(_pick(q[:, :1], rows), k[:, :1], rows)[:, 0]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = _finish(layer, x, mixed)
    q, k, v = _heads(layers[-1], x, cos, sin)
    copy = _looks(_pick(q, rows), k, rows)
    x = torch.gather(x, 1, rows[..., None].expand(-1, -1, x.shape[-1]))
    x = _norm(_finish(layers[-1], x, copy.exp() @ v), model.model.norm.weight)
    return F.linear(x, model.model.embed_tokens.weight), Look(near[:, 0], near[:, 1], source, copy)


def _heads(layer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    attention = layer.self_attn
    h = _norm(x, layer.input_layernorm.weight)
    q, k, v = (
        F.linear(h, part.weight).view(*x.shape[:2], -1, attention.head_dim).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return _turn(q, cos, sin), _turn(k, cos, sin), v


def _finish(layer: Any, x: Tensor, mixed: Tensor) -> Tensor:
    x = x + F.linear(mixed.transpose(1, 2).flatten(2), layer.self_attn.o_proj.weight)
    h, mlp = _norm(x, layer.post_attention_layernorm.weight), layer.mlp
    return x + F.linear(F.silu(F.linear(h, mlp.gate_proj.weight)) * F.linear(h, mlp.up_proj.weight), mlp.down_proj.weight)


def _looks(q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
    """Log of the attention of queries at `rows`, causal."""
    scores: Tensor = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    later = torch.arange(k.shape[-2]) > rows[:, None, :, None]
    return scores.masked_fill(later, -1e9).log_softmax(-1)


def _pick(q: Tensor, rows: Tensor) -> Tensor:
    return torch.gather(q, 2, rows[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight
