"""A tiny model of random weights on disk, and one integrated model with a suite of its own, which the others use by its address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ndml.integrated import NDMLIntegratedLLM
from tests.unit.fusion.tiny import model, tokenizer


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    model("Llama").save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def own(folder: Path) -> Iterator[NDMLIntegratedLLM]:
    with NDMLIntegratedLLM(str(folder), memory_config={"learning": "wait", "ready_timeout_s": 600, "timeout_s": 120}) as made:
        yield made


@pytest.fixture(scope="session")
def address(own: NDMLIntegratedLLM) -> str:
    return own.address
