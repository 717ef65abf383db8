"""Loading a causal LM in fewer bits: the boxed model answers as before, in less memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import torch

from ndml import tiny
from ndml.errors import ModelUnavailable
from ndml.fusion.readout import Entry, MemoryReadout
from services.llm import loading
from services.llm.generator import LocalGenerator
from services.llm.local_model import LocalModel
from services.llm.models import torch_threads
from services.llm.ports import Ask, Finish, Message, Sampling
from services.llm.settings import ChatSection

MEMORY = MemoryReadout((Entry(1, "My sister is called Maja.", "user", datetime(2026, 1, 1, tzinfo=UTC)),))
QUESTION = Ask((Message("user", "What is my sister called?"),), Sampling(24), MEMORY)


async def answer(settings: ChatSection) -> str:
    generator = LocalGenerator(settings, lambda: LocalModel.load(settings), torch_threads(1))
    await generator.start()
    try:
        pieces = [piece async for piece in generator.generate(QUESTION, None)]
    finally:
        await generator.stop()
    return "".join(piece for piece in pieces if not isinstance(piece, Finish))


@pytest.mark.parametrize("bits", ["int8", "int4"])
async def test_a_model_in_fewer_bits_reads_memory_as_before(bits: str) -> None:
    settings = ChatSection(model=tiny.NAME, device="cpu", quantization=bits)
    assert "Maja" in await answer(settings)


@pytest.mark.parametrize(("bits", "smaller"), [("int8", 4), ("int4", 8)])
def test_layers_take_as_many_bits_as_said(bits: str, smaller: int) -> None:
    def layer(quantization: str) -> torch.nn.Parameter:
        network = loading.load(ChatSection(model=tiny.NAME, device="cpu", quantization=quantization))[2]
        weight: torch.nn.Parameter = network.model.layers[0].mlp.up_proj.weight
        return weight

    assert layer(bits).nbytes * smaller == layer("none").nbytes


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_installed", lambda package: package != "bitsandbytes")
    with pytest.raises(ModelUnavailable, match=r"chat\.quantization=int4 takes bitsandbytes.*pip install"):
        loading.load(ChatSection(model=tiny.NAME, device="cpu", quantization="int4"))
