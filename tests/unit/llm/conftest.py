from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the first import of transformers: no test may reach for a network

import torch

from services.llm.encoder import HuggingFaceEncoder
from services.llm.settings import EmbeddingSection

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def minilm() -> HuggingFaceEncoder:
    return HuggingFaceEncoder.load(EmbeddingSection())


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")
