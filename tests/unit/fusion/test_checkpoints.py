"""What was trained comes back as it was, for its own model, or is refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ndml.errors import FieldInvalid, ModelNotConfigured, ModelUnavailable
from ndml.fusion import checkpoints
from ndml.fusion.adapter import Adapter, AdapterConfig
from ndml.fusion.checkpoints import Trained, card_for
from ndml.fusion.families import Family, study
from ndml.fusion.prefix import Projector, ProjectorConfig
from ndml.fusion.prompt import Message
from ndml.fusion.readout import Entry, MemoryReadout
from ndml.fusion.ways import Fusion
from tests.unit.fusion.tiny import model, tokenizer


@pytest.fixture(scope="module")
def family() -> Family:
    return study(model("Llama"))


def adapter(family: Family, steps: int = 5, score: float = 0.9, blocks: tuple[int, ...] = (1,)) -> Trained[Adapter]:
    made = Adapter(AdapterConfig(blocks, family.hidden, family.embed, width=8, heads=2))
    for reader in made._readers():
        torch.nn.init.normal_(reader.leave.weight)
    return Trained(made, card_for(made, family, steps=steps, score=score, metric="exact", model="tiny"))


def test_what_was_saved_is_what_is_loaded(tmp_path: Path, family: Family) -> None:
    trained = adapter(family)
    card = checkpoints.save(tmp_path, trained)
    found = checkpoints.load_adapter(tmp_path, family)
    assert found.card == card and found.card.score == 0.9 and found.module.config == trained.module.config and not found.module.training
    assert all(torch.equal(a, b) for a, b in zip(trained.module.parameters(), found.module.parameters(), strict=True))
    projector = Projector(ProjectorConfig(6, family.embed), scale=0.25)
    checkpoints.save(tmp_path, Trained(projector, card_for(projector, family, steps=1, score=0.0)))
    back = checkpoints.load_projector(tmp_path, family)
    assert back.card.vector == 6 and float(back.module.scale) == 0.25
    assert torch.equal(back.module(torch.ones(2, 6)), projector(torch.ones(2, 6)))
    checkpoints.save(tmp_path, adapter(family))
    assert len(list(tmp_path.glob("adapter-*.safetensors"))) == 1 and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(("steps", "score"), [(0, 0.5), (10, float("nan"))])
def test_what_was_not_trained_does_not_switch_on(tmp_path: Path, family: Family, steps: int, score: float) -> None:
    trained = adapter(family, steps, score)
    checkpoints.save(tmp_path, trained)
    with pytest.raises(ModelNotConfigured, match="no training behind it"):
        checkpoints.load_adapter(tmp_path, family)
    with pytest.raises(ModelNotConfigured, match="no training behind it"):
        Fusion(model("Llama"), tokenizer(), adapter=trained, family=family)


def test_without_a_checkpoint_its_ways_are_closed(family: Family) -> None:
    made = Fusion(model("Llama"), tokenizer(), family=family)
    assert made.ways() == ("prompt", "state", "knn")
    for way in ("adapter", "prefix"):
        with pytest.raises(ModelNotConfigured, match=f"way={way} needs a trained"):
            made.plan([Message("user", "hi")], MemoryReadout((Entry(1, "x"),)), way)
    with pytest.raises(FieldInvalid, match="choose auto, prompt") as raised:
        made.plan([Message("user", "hi")], MemoryReadout(), "magic")  # type: ignore[arg-type]
    assert raised.value.violations[0].field == "way"


def test_another_model_is_refused_by_name_and_number(tmp_path: Path, family: Family) -> None:
    checkpoints.save(tmp_path, adapter(family))
    with pytest.raises(ModelNotConfigured, match=r"architecture LlamaForCausalLM \(here GPT2LMHeadModel\)"):
        checkpoints.load_adapter(tmp_path, study(model("GPT2")))
    with pytest.raises(ModelNotConfigured, match=r"hidden 32 \(here 64\), layers 2 \(here 30\)"):
        checkpoints.load_adapter(tmp_path, replace(family, hidden=64, layers=30))
    with pytest.raises(FieldInvalid, match="does not fit LlamaForCausalLM"):
        adapter(family, blocks=(7,)).module.attach(model("Llama"), family)


def test_damage_is_seen(tmp_path: Path, family: Family) -> None:
    with pytest.raises(ModelUnavailable, match="no card of a trained adapter"):
        checkpoints.load_adapter(tmp_path, family)
    card = checkpoints.save(tmp_path, adapter(family))
    weights, page = tmp_path / card.weights, tmp_path / "adapter.json"
    data, text = weights.read_bytes(), page.read_text()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelUnavailable, match="sha256 differs"):
        checkpoints.load_adapter(tmp_path, family)
    weights.unlink()
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        checkpoints.load_adapter(tmp_path, family)
    weights.write_bytes(data)
    page.write_text(text.replace('"width": 8', '"width": 16'))
    with pytest.raises(ModelNotConfigured, match="shape that its card describes"):
        checkpoints.load_adapter(tmp_path, family)
    for broken in (
        text[:40],
        "[]",
        json.dumps(json.loads(text) | {"format": 2}),
        json.dumps(json.loads(text) | {"secret": 1}),
        text.replace("width", "girth"),
    ):
        page.write_text(broken)
        with pytest.raises(ModelUnavailable):
            checkpoints.load_adapter(tmp_path, family)
    page.write_text(json.dumps(json.loads(text) | {"weights": "../../etc/passwd"}))
    with pytest.raises(ModelUnavailable, match="passwd, which the card names, cannot be read") as raised:
        checkpoints.load_adapter(tmp_path, family)
    assert str(tmp_path / "passwd") in raised.value.message


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdapterConfig((), 8, 8),
        lambda: AdapterConfig((1, 1), 8, 8),
        lambda: AdapterConfig((0,), 8, 8, width=10, heads=4),
        lambda: AdapterConfig((0,), 8, 8, window=0),
        lambda: ProjectorConfig(0, 8),
    ],
)
def test_impossible_shapes_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(FieldInvalid):
        make()
