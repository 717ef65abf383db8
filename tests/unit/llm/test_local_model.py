"""What a local model makes of a request's memory: readers that were trained, and room beside tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ndml.errors import FieldInvalid
from ndml.fusion import checkpoints
from ndml.fusion.adapter import Adapter, AdapterConfig
from ndml.fusion.checkpoints import Trained, card_for
from ndml.fusion.families import study
from ndml.fusion.prefix import Projector, ProjectorConfig
from ndml.fusion.readout import Entry, MemoryReadout
from services.llm.generator import LocalGenerator
from services.llm.local_model import LocalModel
from services.llm.ports import Ask, Finish, Message, Sampling, Tool, WayName
from services.llm.settings import ChatSection
from tests.unit.fusion import tiny

ASK = (Message("user", "where is the notebook?"),)
VECTORS = np.eye(2, 8, dtype=np.float32)  # what a projector reads
CAT = MemoryReadout((Entry(1, "my cat is called Miso", "Ana", embedding=VECTORS[0]), Entry(2, "the notebook is red", embedding=VECTORS[1])))
TOOLS = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}" + tiny.CHATML


def adapter() -> Adapter:
    return Adapter(AdapterConfig((0,), 32, 32, width=8, heads=2))


def projector() -> Projector:
    return Projector(ProjectorConfig(vector=8, embed=32, tokens=2, width=8))


@pytest.mark.parametrize(("way", "make"), [("adapter", adapter), ("prefix", projector)])
async def test_a_trained_reader_is_loaded_and_read_by(way: WayName, make: Callable[[], Adapter | Projector], tmp_path: Path) -> None:
    torch.manual_seed(1)
    reader = make()
    checkpoints.save(tmp_path, Trained(reader, card_for(reader, study(tiny.model("Llama")), steps=1, score=0.0)))
    settings = ChatSection(model="Llama", trained=str(tmp_path))
    made = LocalModel("Llama", tiny.tokenizer(), tiny.model("Llama"), settings)
    generator = LocalGenerator(settings, lambda: made)
    await generator.start()
    try:
        assert not generator.abilities.refusals[way]
        assert all(generator.abilities.refusals[other] for other in ("adapter", "prefix") if other != way)
        *_, finish = [piece async for piece in generator.generate(Ask(ASK, Sampling(5), CAT, way), None)]
        assert isinstance(finish, Finish) and (finish.fusion, set(finish.read)) == (way, {1, 2})
    finally:
        await generator.stop()
        made.fusion.close()


def test_memory_gives_way_to_tools_not_the_question_to_memory() -> None:
    settings = ChatSection(model="Llama", context_tokens=900)
    made = LocalModel("Llama", tiny.tokenizer(TOOLS), tiny.model("Llama"), settings)
    read = []
    for length in (1, 100, 500, 600):
        tool = Tool("weather", "d" * length, json.dumps({"type": "object"}))
        job = made.prepare(Ask(ASK, Sampling(16), CAT, "prompt", tools=(tool,)))
        read.append(len(job.plan.used))
        assert job.plan.positions + 16 <= 900
        assert made.prepare(Ask(ASK, Sampling(16), CAT, "prompt", tools=(tool,), tool_choice="none")).plan.used == (2, 1)
    assert read == sorted(read, reverse=True) and read[0] == 2 and read[-1] == 0
    with pytest.raises(FieldInvalid, match="the last message, the system messages and the tools take"):
        made.prepare(Ask(ASK, Sampling(16), CAT, "prompt", tools=(Tool("weather", "d" * 900),)))
