"""Runs as a whole: cut off and gone on with, bounded, refused, and what comes out of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ndml.errors import FieldInvalid, ModelUnavailable
from ndml.fusion import checkpoints
from ndml.fusion.families import study
from ndml.training.config import TrainConfig, as_mapping, parse
from ndml.training.states import State, States
from ndml.training.trainer import factor, train

SMALL = {
    "data": "builtin:entities",
    "steps": 12,
    "log_every": 1,
    "threads": 1,
    "adapter": {"width": 16, "heads": 2},
    "entities": {"facts": 6, "first": 4, "asks": 8},
    "evaluating": {"every": 4, "questions": 16, "patience": 0},
    "checkpoints": {"every": 3, "keep": 2},
}
Heard = list[tuple[str, dict[str, Any]]]


def config(untrained: Path, out: Path, **changes: Any) -> TrainConfig:
    return parse(TrainConfig, SMALL | {"model": str(untrained), "out": str(out)} | changes)


def run(wanted: TrainConfig, stop_after: int = 1 << 30, clock: Callable[[], float] = lambda: 0.0) -> tuple[Any, Heard]:
    heard: Heard = []

    def tell(kind: str, values: Mapping[str, Any]) -> None:
        heard.append((kind, dict(values)))

    steps = lambda: sum(kind == "measured" and "loss" in values for kind, values in heard)  # noqa: E731
    return train(wanted, tell, lambda: steps() >= stop_after, clock), heard


def final(out: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(sorted((out / "states").glob("step-*"))[-1] / "tensors.safetensors")
    return tensors


def losses(out: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


@pytest.mark.parametrize(
    "changes", [{}, {"way": "prefix"}, {"way": "prompt", "lora": {"rank": 2, "dropout": 0.3}}], ids=["adapter", "prefix", "lora"]
)
def test_a_run_that_is_cut_off_goes_on_bit_for_bit(untrained: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, cut = config(untrained, tmp_path / "whole", **changes), config(untrained, tmp_path / "cut", **changes)
    said, _ = run(whole)
    assert run(cut, stop_after=5)[0] is None
    resumed, heard = run(cut)
    assert heard[0] == ("begin", heard[0][1] | {"step": 5})
    one, other = final(tmp_path / "whole"), final(tmp_path / "cut")
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut") and [step for step, _ in losses(tmp_path / "cut")] == list(range(1, 13))
    assert said == resumed
    again, heard = run(cut)
    assert again == said and not any(kind == "measured" for kind, _ in heard)


def test_kill_nine_costs_the_steps_since_the_last_state_and_nothing_else(untrained: Path, tmp_path: Path) -> None:
    changes = {"steps": 1_000_000, "evaluating": {"every": 10, "questions": 16, "patience": 0}}  # it cannot end before the kill comes
    whole, cut = (config(untrained, tmp_path / name, **changes) for name in ("whole", "cut"))
    command = [sys.executable, "-m", "ndml.training", "--settings", json.dumps(as_mapping(cut))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "measured" and event["step"] >= 8:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "report.json").exists()
    saved = States(tmp_path / "cut" / "states", 2).steps()[-1]
    _, heard = run(cut, stop_after=8)
    assert heard[0] == ("begin", heard[0][1] | {"step": saved}) and saved >= 6
    run(whole, stop_after=saved + 8)
    one, other = final(tmp_path / "whole"), final(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one) and set(one) == set(other)
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert [step for step, _ in losses(tmp_path / "cut")] == list(range(1, saved + 9))


def test_a_damaged_state_is_passed_over_and_all_damaged_refused(untrained: Path, tmp_path: Path) -> None:
    wanted = config(untrained, tmp_path / "cut")
    run(wanted, stop_after=8)
    newest, older = sorted((tmp_path / "cut" / "states").glob("step-*"), reverse=True)
    data = bytearray((newest / "tensors.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "tensors.safetensors").write_bytes(data)
    _, heard = run(wanted, stop_after=0)
    assert heard[0][0] == "damaged" and newest.name in heard[0][1]["message"] and heard[1][1]["step"] == 6
    for each in (newest, older):
        (each / "state.json").write_text("{")
    with pytest.raises(ModelUnavailable, match="none of the states"):
        run(wanted)


def test_a_state_is_whole_or_not_there(tmp_path: Path) -> None:
    states = States(tmp_path, keep=2)
    for step in (1, 2, 3):
        states.save(State(step, {"x": torch.full((2,), float(step))}, {"n": step}))
    half = tmp_path / "step-000000009.part"
    half.mkdir()
    (half / "state.json").write_text("{}")
    newest = states.newest(pytest.fail)
    assert newest is not None and (newest.steps, newest.facts, newest.tensors["x"].tolist()) == (3, {"n": 3}, [3.0, 3.0])
    assert states.steps() == [2, 3]
    assert States(tmp_path / "none", 1).newest(pytest.fail) is None


def test_another_run_is_not_gone_on_with(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(FieldInvalid, match="cannot be read"):
        run(config(untrained, tmp_path, data=str(tmp_path / "mistyped")))
    run(config(untrained, tmp_path), stop_after=1)
    with pytest.raises(FieldInvalid, match=r"other settings \(seed\)"):
        run(config(untrained, tmp_path, seed=5))


def test_what_comes_out_loads_for_its_model_and_says_what_it_reached(untrained: Path, tmp_path: Path) -> None:
    said, _ = run(config(untrained, tmp_path))
    model = AutoModelForCausalLM.from_pretrained(untrained).eval()
    trained = checkpoints.load_adapter(tmp_path, study(model))
    assert trained.card.score == said["best"] and trained.card.steps == said["best_steps"]
    assert said["identity"] == 0.0 and said["ended"] == "steps" and said["reading"]["questions"] == 16
    assert set(said["reading"]["kinds"]) == {"same form", "paraphrase"}


def test_time_and_patience_end_a_run(untrained: Path, tmp_path: Path) -> None:
    ticks = iter(range(1000))
    said, _ = run(config(untrained, tmp_path / "time", max_seconds=4.0), clock=lambda: float(next(ticks)))
    assert said["ended"] == "time" and said["steps"] < 12
    patient = {"every": 1, "questions": 4, "patience": 2, "gain": 1.0}
    said, _ = run(config(untrained, tmp_path / "patience", evaluating=patient))
    assert said["ended"] == "patience" and said["steps"] < 12


def test_lora_becomes_a_model_that_needs_no_peft(untrained: Path, tmp_path: Path) -> None:
    run(config(untrained, tmp_path, way="prompt", lora={"rank": 2}, optimising={"rate": 0.05}))
    was, now = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (untrained, tmp_path / "model"))
    assert set(was) == set(now) and any(not torch.equal(was[name], now[name]) for name in was)
    assert torch.equal(was["lm_head.weight"], now["lm_head.weight"])
    with pytest.raises(FieldInvalid, match="targets"):
        run(config(untrained, tmp_path / "wrong", way="prompt", lora={"rank": 2, "targets": ["nowhere"]}))


@pytest.mark.parametrize("written", ["model", "model.part"])
def test_a_run_that_was_killed_while_it_wrote_its_model_writes_it_again(untrained: Path, tmp_path: Path, written: str) -> None:
    wanted = config(untrained, tmp_path, way="prompt", lora={"rank": 2})
    said, _ = run(wanted)
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    (tmp_path / "report.json").unlink()
    (tmp_path / "model").rename(tmp_path / written)
    (tmp_path / written / "half").write_text("")
    assert run(wanted)[0] == said
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == files and not (tmp_path / "model.part").exists()


def test_tensorboard_gets_the_same_numbers(untrained: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(config(untrained, tmp_path, tensorboard=True))
    shown = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert [(e.step, pytest.approx(e.value)) for e in shown.Scalars("loss")] == losses(tmp_path)


def test_the_rate_rises_in_a_line_and_falls_to_its_least() -> None:
    schedule = TrainConfig().optimising
    rates = [factor(step, 1000, schedule) for step in range(1001)]
    assert max(rates) == pytest.approx(1.0) and rates.index(max(rates)) == 30
    assert rates[0] < 0.04 and rates[-1] == pytest.approx(schedule.least)
    assert rates[:31] == sorted(rates[:31]) and rates[30:] == sorted(rates[30:], reverse=True)


def test_fresh_discards_what_a_run_wrote_and_nothing_else(untrained: Path, tmp_path: Path) -> None:
    from ndml.training.worker import discard

    run(config(untrained, tmp_path, way="prompt", lora={"rank": 2}))
    kept = [tmp_path / "notes.txt", tmp_path / "base" / "config.json", tmp_path / "model-00001-of-00002.safetensors"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    discard(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("given", [{"model_type": "llama"}, {}, [], "{"], ids=["model", "empty", "list", "broken"])
def test_what_is_no_run_is_neither_trained_over_nor_discarded(untrained: Path, tmp_path: Path, given: object) -> None:
    from ndml.training.worker import discard

    files = {tmp_path / "model" / "weights", tmp_path / "model-00001-of-00002.safetensors", tmp_path / "adapter.json"}
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    discard(tmp_path)
    with pytest.raises(FieldInvalid, match="a model that no run there wrote: take another --out"):
        run(config(untrained, tmp_path))
    (tmp_path / "config.json").write_text(given if isinstance(given, str) else json.dumps(given))
    with pytest.raises(FieldInvalid, match=r"of no training run.*take another --out"):
        discard(tmp_path)
    with pytest.raises(FieldInvalid, match=r"of no training run.*take another --out") as caught:
        run(config(untrained, tmp_path))
    assert caught.value.violations[0].field == "out"
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*files, tmp_path / "config.json"}
