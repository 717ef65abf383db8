"""How often a reader says exactly what was wanted, and whether it is memory that says it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from ndml.fusion.readout import MemoryReadout
from ndml.training.data import Episode, Source
from ndml.training.readers import Reader

_IDENTITY = 8  # questions that show whether an idle reader changes anything


@dataclass(frozen=True, slots=True)
class Score:
    """exact: share of answers that greedy decoding says in full; loss: cross-entropy of their tokens; kinds: exact by kind of question."""

    questions: int
    exact: float
    loss: float
    kinds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has reached.

    reading   with its memory; control: with memories that do not answer; without: with none
    identity  largest change of a logit by an attached reader that has nothing to read: 0
    """

    reading: Score
    control: Score
    without: Score
    identity: float


def score(reader: Reader, episodes: Sequence[Episode], batch: int) -> Score:
    """At most `batch` questions at a time."""
    losses, hits = [], defaultdict[str, list[bool]](list)
    for part in _parts(episodes, batch):
        with torch.inference_mode():
            seen = reader.read(part)
        asks = [ask for episode in part for ask in episode.asks]
        for ask, right in zip(asks, seen.right().tolist(), strict=True):
            hits[ask.kind].append(right)
        losses += [float(seen.spoken_loss())] * len(asks)
    every = [right for rights in hits.values() for right in rights]
    kinds = {kind: sum(rights) / len(rights) for kind, rights in sorted(hits.items()) if kind}
    return Score(len(every), sum(every) / len(every), sum(losses) / len(losses), kinds)


def report(reader: Reader, plain: Reader, source: Source, questions: int, batch: int) -> Report:
    """With memory, with another's, with none. plain: reads nothing and adds nothing; `reader` is closed to compare with it."""
    asked = source.held_out(questions)
    nothing = [emptied(episode) for episode in asked]
    reading, control = score(reader, asked, batch), score(reader, source.control(questions), batch)
    without = score(reader, nothing, batch)
    part = next(_parts(nothing, min(batch, _IDENTITY)))
    with torch.inference_mode():
        attached = reader.read(part).logits
        reader.close()
        change = float((attached - plain.read(part).logits).abs().max())
    return Report(reading, control, without, change)


def emptied(episode: Episode) -> Episode:
    """The same questions, and nothing to read."""
    return replace(episode, readout=MemoryReadout(), asks=tuple(replace(ask, used=()) for ask in episode.asks))


def _parts(episodes: Sequence[Episode], batch: int) -> Iterator[list[Episode]]:
    """Episodes cut so that no part asks more than `batch`."""
    part: list[Episode] = []
    room = batch
    for episode in episodes:
        asks = episode.asks
        while asks:
            part.append(replace(episode, asks=asks[:room]))
            asks, room = asks[room:], room - len(part[-1].asks)
            if not room:
                yield part
                part, room = [], batch
    if part:
        yield part
