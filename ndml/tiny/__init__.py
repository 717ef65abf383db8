"""The model in the box: a small causal language model of our own that answers from memory, offline. Card: docs/reference/ndml-tiny.md.

`path()` is what `AutoTokenizer.from_pretrained` and `AutoModelForCausalLM.from_pretrained` take. Importing this package loads neither torch
nor transformers; nor do `words`, `grammar`, `relations` and `scenes`, which write the conversations that it is trained on.
"""

from __future__ import annotations

from pathlib import Path

NAME = "ndml-tiny"


def path() -> Path:
    """The folder with weights, tokenizer and chat template."""
    return Path(__file__).parent / "weights"
