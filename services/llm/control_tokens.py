"""Texts that models' templates set between turns, where no tokenizer is at hand to tell."""

from __future__ import annotations

# Upstreams put text through their model's template: what reads as a control token there must not come from a memory.
CONTROL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|start|>", "<|message|>"),
    *("<|channel|>", "<|return|>", "<|call|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<start_of_turn>", "<end_of_turn>"),
    *("<bos>", "<eos>", "<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    *("[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
)

# What models write inside their own turns: it opens no other, and templates look for it in earlier answers.
_INSIDE = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "[TOOL_CALLS]", "[TOOL_RESULTS]")


def marks_of(template: str) -> tuple[str, ...]:
    """Those with which a chat template parts turns; in some vocabularies they are plain text, as [INST] is in Llama 2's."""
    return tuple(token for token in CONTROL_TOKENS if token in template and token not in _INSIDE)
