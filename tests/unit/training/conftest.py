"""A small random model with the words of the entity task, on disk: enough to see what training does, made in a moment."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from transformers import LlamaForCausalLM

from ndml.training import base

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(3)
    LlamaForCausalLM(base._config()).save_pretrained(directory)
    base.tokenizer().save_pretrained(directory)
    return directory
