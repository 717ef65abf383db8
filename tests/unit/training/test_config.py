"""Settings: what is refused, by name, and when a run may go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndml.errors import FieldInvalid, FieldUnknown
from ndml.training.config import TrainConfig, as_mapping, load, parse


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({"stps": 3}, "stps", "no setting here; there are model"),
        ({"lora": {"rang": 3}}, "lora.rang", "there are rank"),
        ({"steps": "many"}, "steps", "a whole number"),
        ({"steps": 0}, "steps", "give 1 to"),
        ({"steps": True}, "steps", "a whole number"),
        ({"device": "tpu"}, "device", "one of auto, cpu, cuda"),
        ({"lora": 4}, "lora", "group of settings"),
        ({"adapter": {"blocks": [0, "x"]}}, "adapter.blocks[1]", "a whole number"),
        ({"optimising": {"rate": float("nan")}}, "optimising.rate", "1e-08 to 1"),
        ({"way": "prompt"}, "way", "lora.rank"),
        ({"data": ""}, "data", "name one"),
        ({"entities": {"facts": 4, "first": 9}}, "entities.first", "give 1 to 4"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_name(given: dict[str, object], field: str, said: str) -> None:
    with pytest.raises((FieldInvalid, FieldUnknown), match=said) as caught:
        parse(TrainConfig, given)
    assert caught.value.violations[0].field == field


def test_yaml_with_changes_on_top(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("model: ndml-tiny\nsteps: 10\noptimising: {rate: 1}\nadapter: {blocks: [1, 2]}\n")
    config = load(path, {"steps": 20, "optimising.warm": 0.5, "lora.rank": 2})
    assert (config.steps, config.optimising.rate, config.optimising.warm, config.lora.rank) == (20, 1.0, 0.5, 2)
    assert config.adapter.blocks == (1, 2)
    again = parse(TrainConfig, json.loads(json.dumps(as_mapping(config))))
    assert again == config
    for text, said in (("a: [", "YAML"), ("- 1", "no mapping"), ("lora: 3", "group of settings")):
        path.write_text(text)
        with pytest.raises(FieldInvalid, match=said):
            load(path, {"lora.rank": 2})
    with pytest.raises(FieldInvalid, match="cannot be read"):
        load(tmp_path / "none.yaml", {})


def test_a_run_goes_on_with_other_bounds_but_not_as_another_run() -> None:
    begun = json.loads(json.dumps(as_mapping(TrainConfig())))
    assert TrainConfig(out="elsewhere", max_seconds=5.0, tensorboard=True, threads=1).differences(begun) == []
    assert TrainConfig(seed=1, steps=9).differences(begun) == ["seed", "steps"]
