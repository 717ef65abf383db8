"""Loading a causal LM in fewer bits, or spread over devices: the boxed model answers as before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

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


async def answer(settings: ChatSection, load: Callable[[ChatSection], LocalModel] = LocalModel.load) -> str:
    generator = LocalGenerator(settings, lambda: load(settings), torch_threads(1))
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


# ---- layers in several places. There is one device here: what a second GPU is to the first, the disk is to the memory of this machine --
# accelerate's own hooks bring what a layer needs to where it computes, and its weights are not where the embedding's are.


async def test_a_model_whose_layers_lie_in_two_places_reads_memory_as_a_whole_one(tmp_path: Path) -> None:
    places = {f"model.layers.{n}": "disk" if n >= 2 else "cpu" for n in range(4)}
    places |= {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "disk", "lm_head": "cpu"}
    spread: list[Any] = []

    def load(settings: ChatSection) -> LocalModel:
        name, tokenizer, whole = loading.load(settings)
        given: dict[str, Any] = {"dtype": "float32", "device_map": places, "offload_folder": str(tmp_path)}
        spread.append(AutoModelForCausalLM.from_pretrained(tiny.path(), **given).eval())
        assert sum(p.numel() for p in spread[0].parameters()) == sum(p.numel() for p in whole.parameters())
        return LocalModel(name, tokenizer, spread[0], settings)

    settings = ChatSection(model=tiny.NAME, device="cpu")
    apart = await answer(settings, load)
    assert apart == await answer(settings) and "Maja" in apart
    layers = spread[0].model.layers
    assert {str(layers[n].mlp.up_proj.weight.device) for n in (0, 1)} == {"cpu"}
    assert {str(layers[n].mlp.up_proj.weight.device) for n in (2, 3)} == {"meta"}  # on disk between two passes


def test_spread_leaves_the_placing_to_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed to see what is asked for: accelerate finds none and takes main memory, which the setting allows too."""
    real, asked = AutoModelForCausalLM.from_pretrained, []
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *args, **given: asked.append(given) or real(*args, **given))
    loading.load(ChatSection(model=tiny.NAME, device="cpu"))
    monkeypatch.setattr(loading, "pick_device", lambda wanted, setting: torch.device("cuda"))
    network = loading.load(ChatSection(model=tiny.NAME, spread=True))[2]
    assert [given.get("device_map") for given in asked] == [None, "auto"]
    assert torch.cuda.is_available() or network.device.type == "cpu"
    monkeypatch.setattr(loading, "_installed", lambda package: package != "accelerate")
    with pytest.raises(ModelUnavailable, match=r"chat\.spread=true takes accelerate.*pip install"):
        loading.load(ChatSection(model=tiny.NAME, spread=True))
