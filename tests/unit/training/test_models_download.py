"""`ndml models download` in a process of its own, from a hub of ours; what it brought is loaded by the code that serves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.llm.tiny_models import CHATML, save_causal
from tests.unit.training.hub import COMMIT, Hub, hub

MODEL = "our-models/tiny"
WEIGHTS = "model.safetensors"
GENERATE = """
import sys
from services.llm.local_model import LocalModel
from services.llm.settings import ChatSection
from services.llm.ports import Ask, Message, Sampling
from services.llm.generator import LocalGenerator
from services.llm.models import torch_threads
import asyncio, json

async def main():
    settings = ChatSection(model=sys.argv[1], device="cpu")
    generator = LocalGenerator(settings, lambda: LocalModel.load(settings), torch_threads(1))
    await generator.start()
    asked = Ask((Message("user", "Where is the red notebook?"),), Sampling(8))
    pieces = [piece async for piece in generator.generate(asked, None)]
    await generator.stop()
    print(json.dumps([generator.model, pieces[-1].completion_tokens]))

asyncio.run(main())
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    folder = save_causal(tmp_path / "served", "llama", CHATML)
    (folder / "pytorch_model.bin").write_bytes(b"weights again, in a format that runs code")
    with hub(folder, MODEL) as made:
        yield made


def run(served: Hub, at: Path, *arguments: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"HF_HOME": str(at / "hf"), "HF_ENDPOINT": served.url, "HF_HUB_OFFLINE": "1" if offline else "0"}
    env = {key: value for key, value in env.items() if key not in ("HF_HUB_CACHE", "HF_TOKEN", "HUGGINGFACE_HUB_CACHE")}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=300)


def download(served: Hub, at: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(served, at, "-m", "ndml.cli", "models", "download", *arguments, "-o", "json")


def test_a_model_from_the_hub_answers_without_the_hub(served: Hub, tmp_path: Path) -> None:
    served.breaks[WEIGHTS] = 1  # the first answer ends in the middle
    done = download(served, tmp_path, MODEL)
    assert done.returncode == 0, done.stderr
    brought = json.loads(done.stdout)
    assert brought["model"] == MODEL and Path(brought["path"]).name == COMMIT
    path = Path(brought["path"])
    assert (path / WEIGHTS).read_bytes() == (served.folder / WEIGHTS).read_bytes()
    assert (path / "config.json").is_file() and not (path / "pytorch_model.bin").exists()
    assert served.fetched.count(WEIGHTS) == 2 and served.fetched.count("config.json") == 1
    said = run(served, tmp_path, "-c", GENERATE, MODEL, offline=True)
    assert said.returncode == 0, said.stderr
    name, tokens = json.loads(said.stdout.splitlines()[-1])
    assert name == MODEL and 1 <= tokens <= 8


def test_a_file_that_breaks_off_is_one_error_and_the_next_try_brings_the_rest(served: Hub, tmp_path: Path) -> None:
    served.breaks[WEIGHTS] = 100
    folder = tmp_path / "model"
    broken = download(served, tmp_path, MODEL, "--to", str(folder))
    assert broken.returncode == 4
    assert "Traceback" not in broken.stderr and broken.stderr.count("MODEL_UNAVAILABLE") == 1
    assert f"{MODEL} cannot be fetched" in broken.stderr and "HF_ENDPOINT" in broken.stderr
    assert not (folder / WEIGHTS).exists() and (folder / "config.json").is_file()
    served.breaks.clear()
    served.fetched.clear()
    done = download(served, tmp_path, MODEL, "--to", str(folder))
    assert done.returncode == 0, done.stderr
    assert served.fetched == [WEIGHTS]
    assert (folder / WEIGHTS).read_bytes() == (served.folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize("arguments", [["our-models/other"], [MODEL, "--revision", "v9"]])
def test_what_the_hub_has_not_got_is_the_callers_error(served: Hub, tmp_path: Path, arguments: list[str]) -> None:
    refused = download(served, tmp_path, *arguments)
    assert refused.returncode == 2
    assert "FIELD_INVALID" in refused.stderr and "the hub has no model" in refused.stderr and "Traceback" not in refused.stderr
