"""Random models of a few kilobytes, one for each family, and a byte tokenizer; what each family can do is a table in test_families."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the first import of transformers: no test may reach for a network

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call] # that there are no kernels for CPU is known

SPECIALS = ["<|end|>", "<|im_start|>", "<|im_end|>", "<pad>"]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
VOCAB = 260
_NO_ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_BASE: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2} | _NO_ENDS
_ATTENTION = _BASE | {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 2048}
_HEAD8 = _ATTENTION | {"head_dim": 8}
_SSM = {"mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16}
_GPT = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048, "bos_token_id": None, "eos_token_id": None}

CONFIGS: dict[str, dict[str, Any]] = {
    "Llama": _ATTENTION,
    "Mistral": _ATTENTION,
    "Qwen2": _ATTENTION,
    "Qwen3": _HEAD8,
    "Phi": _ATTENTION | {"num_key_value_heads": 4},
    "Phi3": _ATTENTION,
    "Gemma": _HEAD8,
    "Gemma2": _HEAD8 | {"sliding_window": 24},
    "Gemma3Text": _HEAD8 | {"sliding_window": 24},
    "GPT2": _GPT,
    "GPTNeoX": _ATTENTION,
    "OPT": _BASE | {"num_attention_heads": 4, "ffn_dim": 64, "max_position_embeddings": 2048, "word_embed_proj_dim": 16},
    "Bloom": {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "Mixtral": _ATTENTION | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Mamba": _BASE | {"state_size": 8},
    "Mamba2": _BASE | {"state_size": 16, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16},
    "Rwkv": _BASE | {"attention_hidden_size": 32, "context_length": 2048},
    "RecurrentGemma": _BASE
    | {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 96, "lru_width": 32},
    "Jamba": _ATTENTION
    | {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "Zamba2": _ATTENTION
    | {"layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "mamba_d_state": 8, "mamba_headdim": 16, "n_mamba_heads": 4}
    | {"mamba_ngroups": 1, "use_mem_rope": True, "adapter_rank": 4, "chunk_size": 16},
    "FalconH1": _HEAD8 | _SSM | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "Bamba": _ATTENTION | _SSM | {"mamba_n_heads": 8, "mamba_d_head": 8, "attn_layer_indices": [1]},
    "GraniteMoeHybrid": _ATTENTION
    | _SSM
    | {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
        "shared_intermediate_size": 64,
    },
    "Qwen3Next": _HEAD8
    | {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2}
    | {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
    | {"shared_expert_intermediate_size": 32},
}


@cache
def model(name: str) -> Any:
    """One for the whole run: nothing that fusion does may change it, which is part of what is tested."""
    config = getattr(transformers, f"{name}Config")(**CONFIGS[name])
    torch.manual_seed(7)
    made: Any = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    made = made.eval()
    for parameter in made.parameters():  # random initialisation at .02 makes all logits nearly equal: spread them
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    return made


@cache
def tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A token for each byte, and four control tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(SPECIALS)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bare, eos_token="<|end|>", pad_token="<pad>", additional_special_tokens=SPECIALS[1:3]
    )
    fast.chat_template = chat_template
    return fast
