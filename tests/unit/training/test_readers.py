"""One pass of each way: rows do not touch each other, nothing to read changes nothing, the loss of looking looks at the right place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ndml.errors import FieldInvalid
from ndml.fusion.readout import MemoryReadout
from ndml.training import models
from ndml.training.config import Lora, TrainConfig
from ndml.training.data import Episode
from ndml.training.entities import VECTOR, Entities
from ndml.training.evaluation import emptied
from ndml.training.models import Subject
from ndml.training.readers import AdapterReader, Reader, reader

WAYS = ("adapter", "prefix", "prompt")


def config(untrained: Path, way: str) -> TrainConfig:
    return TrainConfig(model=str(untrained), way=way, lora=Lora(rank=1))  # type: ignore[arg-type]


@pytest.fixture
def subject(untrained: Path) -> Subject:
    return models.load(config(untrained, "adapter"))


@pytest.fixture(params=WAYS)
def taught(request: pytest.FixtureRequest, untrained: Path, subject: Subject) -> Iterator[Reader]:
    """Of each way, with weights that do something."""
    torch.manual_seed(1)
    made = reader(subject, config(untrained, request.param), VECTOR)
    for name, parameter in made.module.named_parameters() if made.module else ():
        if "leave.weight" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    yield made
    made.close()


def asked(count: int = 3, facts: int = 5) -> list[Episode]:
    task = TrainConfig().entities
    source = Entities(replace(task, facts=facts, first=1, easy=0.0, asks=2), 0, vectors=True)
    return [replace(e, asks=e.asks[:2]) for step in range(count) for e in source.batch(step, 1)]


@torch.inference_mode()
def test_a_batch_says_what_each_alone_says(taught: Reader) -> None:
    episodes = [*asked(2), *asked(1, facts=2), emptied(asked(1)[0])]
    together, row = taught.read(episodes), 0
    for episode in episodes:
        alone = taught.read([episode])
        for place in range(len(episode.asks)):
            wanted = alone.labels[place].ne(-100)
            have = together.labels[row].ne(-100)
            assert torch.allclose(together.logits[row][have], alone.logits[place][wanted], atol=1e-4)
            row += 1
    assert together.right().shape == (row,)


@torch.inference_mode()
def test_nothing_to_read_changes_nothing_and_something_does(taught: Reader, subject: Subject) -> None:
    episodes = asked(2)
    nothing = [emptied(e) for e in episodes]
    idle = taught.read(nothing).logits
    if taught.module is not None:  # the words of this model are not those of a quoted block
        busy, quiet = taught.read(episodes), taught.read(nothing)
        assert not torch.allclose(busy.logits[busy.labels.ne(-100)], quiet.logits[quiet.labels.ne(-100)], atol=1e-3)
    taught.close()
    bare = reader(subject, config(Path(subject.source), "prompt"), 0).read(nothing).logits
    assert torch.equal(idle, bare)


def test_the_loss_of_looking_is_low_where_the_answer_is_looked_at(untrained: Path, subject: Subject) -> None:
    """Scores are set by hand: all attention of every head on the value of the fact, then on that of the next."""
    made = reader(subject, config(untrained, "adapter"), 0)
    assert isinstance(made, AdapterReader)
    (episode,) = asked(1)
    entries = tuple(replace(e, embedding=None) for e in episode.readout.entries)
    episode = Episode(MemoryReadout(entries), episode.asks)
    length = len(entries[0].text.split())
    losses = {}
    for shift in (0, 1):
        pointed = [((ask.used[0] - 1 + shift) % len(entries)) * length + length - 1 for ask in episode.asks]

        def point(_module: object, _args: object, out: tuple[torch.Tensor, torch.Tensor], to: list[int] = pointed) -> object:
            added, scores = out
            fixed = torch.full_like(scores, -30.0)
            for row, place in enumerate(to):
                fixed[row, :, :, place] = 30.0
            return added, fixed

        handles = [b.register_forward_hook(point) for b in made.module.blocks]
        losses[shift] = float(made.read([episode], look=True).look)
        for handle in handles:
            handle.remove()
    made.close()
    assert losses[0] < 1e-6 and losses[1] > 20


def test_a_prefix_needs_vectors(untrained: Path, subject: Subject) -> None:
    with pytest.raises(FieldInvalid, match="name an embedder"):
        reader(subject, config(untrained, "prefix"), 0)
