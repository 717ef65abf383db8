from __future__ import annotations

from random import Random

import pytest
import torch
from tokenizers import Tokenizer

from ndml.tiny.examples import texts
from ndml.tiny.scenes import Plan, Writer
from ndml.tiny.tokens import train_tokenizer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    writer = Writer(Random(0), Plan())
    return train_tokenizer(texts([writer.scene() for _ in range(300)]), vocabulary=700)
