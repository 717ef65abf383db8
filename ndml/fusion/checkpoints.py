"""Trained adapters and projectors on disk: safetensors, and a card that says for which model they were trained and what they reached.

Untrained readers only add noise, so nothing switches on without a card that shows training, and nothing loads into another model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from ndml.errors import FieldInvalid, ModelNotConfigured, ModelUnavailable
from ndml.fusion.adapter import Adapter, AdapterConfig
from ndml.fusion.families import Family
from ndml.fusion.prefix import Projector, ProjectorConfig

Kind = Literal["adapter", "projector"]
M = TypeVar("M", bound=nn.Module)
C = TypeVar("C")
FORMAT = 1
_CARD_BYTES = 1 << 20  # a card is a page of text


@dataclass(frozen=True, slots=True)
class Card:
    """What a checkpoint is.

    architecture, hidden, embed, vocab, layers  of the model it was trained with, which it must meet again
    vector                                      components of the sentence vectors it reads, 0: none
    steps, score, metric                        how long it was trained, what it reached then, in what
    config                                      of the module; weights, sha256: file beside the card and its digest
    """

    kind: Kind
    architecture: str
    hidden: int
    embed: int
    vocab: int
    layers: int
    vector: int
    steps: int
    score: float
    metric: str = ""
    model: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    sha256: str = ""
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Trained(Generic[M]):
    """A module and the card that vouches for it."""

    module: M
    card: Card


def card_for(module: Adapter | Projector, family: Family, *, steps: int, score: float, metric: str = "", model: str = "") -> Card:
    """The card of a module trained with a model of this family."""
    return Card(
        kind="adapter" if isinstance(module, Adapter) else "projector",
        architecture=family.architecture,
        hidden=family.hidden,
        embed=family.embed,
        vocab=family.vocab,
        layers=family.layers,
        vector=module.config.vector,
        steps=steps,
        score=score,
        metric=metric,
        model=model,
        config=json.loads(json.dumps(asdict(module.config))),  # as it will be read: lists for tuples
    )


def check(card: Card, family: Family) -> None:
    """Raises ModelNotConfigured where the card shows no training, or was written for another model."""
    if card.steps < 1 or not math.isfinite(card.score):
        raise ModelNotConfigured(
            f"this {card.kind} has no training behind it ({card.steps} steps, score {card.score}): untrained it only adds noise. Train "
            "it first, or use way=prompt"
        )
    wanted = {name: getattr(card, name) for name in ("architecture", "hidden", "embed", "vocab", "layers")}
    wrong = [f"{name} {wanted[name]} (here {getattr(family, name)})" for name in wanted if wanted[name] != getattr(family, name)]
    if wrong:
        raise ModelNotConfigured(
            f"this {card.kind} was trained for another model: {', '.join(wrong)}. Train one for this model, or load that one"
        )


def save(directory: Path, trained: Trained[Any]) -> Card:
    """Write weights, then the card that names them, so that a card never speaks of half a file; older weights go last. Gives the card."""
    directory.mkdir(parents=True, exist_ok=True)
    data = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in trained.module.state_dict().items()})
    digest = hashlib.sha256(data).hexdigest()
    card = replace(trained.card, weights=f"{trained.card.kind}-{digest[:16]}.safetensors", sha256=digest)
    _write(directory / card.weights, data)
    _write(directory / f"{card.kind}.json", json.dumps(asdict(card), indent=1).encode())
    for old in directory.glob(f"{card.kind}-*.safetensors"):
        if old.name != card.weights:
            old.unlink()
    return card


def load_adapter(directory: Path, family: Family) -> Trained[Adapter]:
    """Raises ModelUnavailable (nothing there, damaged), ModelNotConfigured (untrained, or for another model)."""
    card = read_card(directory, "adapter")
    check(card, family)
    return Trained(_filled(Adapter(_shape(AdapterConfig, card)), directory, card), card)


def load_projector(directory: Path, family: Family) -> Trained[Projector]:
    """As `load_adapter`."""
    card = read_card(directory, "projector")
    check(card, family)
    return Trained(_filled(Projector(_shape(ProjectorConfig, card)), directory, card), card)


def read_card(directory: Path, kind: Kind) -> Card:
    """Raises ModelUnavailable where there is no card that can be read."""
    path = directory / f"{kind}.json"
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_CARD_BYTES))
        card = Card(**values)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelUnavailable(
            f"{path} is no card of a trained {kind}: {error}. Point the setting at a directory that training wrote"
        ) from error
    if card.format != FORMAT or card.kind != kind:
        raise ModelUnavailable(f"{path} is a card of kind {card.kind}, format {card.format}; this release reads {kind}, format {FORMAT}")
    return card


def _shape(config: Callable[..., C], card: Card) -> C:
    try:
        return config(**card.config)
    except (TypeError, FieldInvalid) as error:
        raise ModelUnavailable(f"the card's config describes no {card.kind} of this release: {error}") from error


def _filled(module: M, directory: Path, card: Card) -> M:
    path = directory / Path(card.weights).name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelUnavailable(f"{path}, which the card names, cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise ModelUnavailable(f"{path} is not what its card describes (sha256 differs): copy or train it again")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise ModelUnavailable(f"{path} is no safetensors file: {error}") from error
    wrong = _differences(tensors, module)
    if wrong:
        raise ModelNotConfigured(f"{path} does not have the shape that its card describes: {', '.join(wrong[:4])}")
    module.load_state_dict(tensors)
    return module.eval()


def _differences(tensors: dict[str, Any], module: nn.Module) -> Sequence[str]:
    have, want = ({name: tuple(t.shape) for name, t in each.items()} for each in (tensors, module.state_dict()))
    return [f"{name} {have.get(name)} (needs {want.get(name)})" for name in sorted({*have, *want}) if have.get(name) != want.get(name)]


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, on disk."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
