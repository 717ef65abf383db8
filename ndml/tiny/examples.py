"""Scenes as numbers: token ids, what is to be predicted, and where in memory each copied token stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from ndml.tiny.scenes import Line, Scene, Turn
from ndml.tiny.tokens import ASSISTANT, END, MEMORY, START, USER, special

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Style:
    """How memory prints its lines: the name of the user as speaker, mostly none; whether days are known."""

    user: str = ""
    dated: bool = True


STYLES = (*[Style()] * 12, *[Style("user")] * 3, Style(dated=False))


@dataclass(slots=True)
class Example:
    """One scene.

    rows      positions whose next token is to be predicted: it is in `targets`
    pointers  for each row, where that token can be copied from
    source    for each row, the range of the line it answers from; the start where nothing is to be found, (0, 0) for the end
    number    for each token, where its line's number stands, -1 outside lines
    """

    ids: list[int]
    rows: list[int]
    targets: list[int]
    pointers: list[tuple[int, ...]]
    source: list[tuple[int, int]]
    number: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays of B scenes, T tokens, R rows. Padded rows have target -100."""

    ids: Ints
    rows: Ints
    targets: Ints
    pointers: Flags
    source: Flags
    number: Ints


def head(line: Line, style: Style = STYLES[0]) -> str:
    """What stands before a line's text in memory, as `ndml.fusion.prompt` prints it."""
    parts = ([f"{line.said:%Y-%m-%d}"] if style.dated else []) + ([line.speaker or style.user] if line.speaker or style.user else [])
    return f"[{line.number}] ({', '.join(parts)}) " if parts else f"[{line.number}] "


def texts(scenes: Sequence[Scene]) -> Iterator[str]:
    """Everything in the scenes, for the tokenizer."""
    for scene in scenes:
        yield from (head(line) + line.text for line in scene.lines)
        for turn in scene.turns:
            yield from (" " + turn.user, " " + turn.answer)


class Encoder:
    """Scenes into examples with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._start, self._memory, self._user, self._assistant, self._end = (
            special(tokenizer, t) for t in (START, MEMORY, USER, ASSISTANT, END)
        )
        self._newline = tokenizer.encode("\n", add_special_tokens=False).ids

    def encode(self, scenes: Sequence[Scene], styles: Sequence[Style]) -> list[Example]:
        """Scenes in their order, each in its style."""
        pieces = []
        for scene, style in zip(scenes, styles, strict=True):
            pieces += [head(line, style) + line.text for line in scene.lines]
            pieces += [" " + text for turn in scene.turns for text in (turn.user, turn.answer)]
        encoded = iter(self._tokenizer.encode_batch(pieces, add_special_tokens=False))
        return [self._example(scene, style, encoded) for scene, style in zip(scenes, styles, strict=True)]

    def _example(self, scene: Scene, style: Style, encoded: Iterator[Encoding]) -> Example:
        example = Example([self._start], [], [], [], [], [])
        ids = example.ids
        if scene.lines:
            ids += [self._memory, *self._newline]
        lines, asked = [], []
        for _ in scene.lines:
            line = next(encoded)
            lines.append((len(ids), line))
            ids += [*line.ids, *self._newline]
        for start, line in lines:
            example.number += [-1] * (start - len(example.number)) + [start] * len(line.ids)
        for turn in scene.turns:
            question, answer = next(encoded), next(encoded)
            ids.append(self._user)
            asked.append(range(len(ids), len(ids) + len(question.ids)))
            ids += [*question.ids, self._end, self._assistant]
            value = source = asked[turn.told]  # of the last turn, the question itself, where nothing else told it
            if turn.line >= 0:
                start, line = lines[turn.line]
                source = range(start, start + len(line.ids))
                value = _value(scene.lines[turn.line], turn, style, line, start)
            self._answer(example, turn, (asked[-1], source, value), answer)
        return example

    def _answer(self, example: Example, turn: Turn, places: tuple[range, range, range], answer: Encoding) -> None:
        """The answer's tokens, and for each where it can be copied from: a value from its place, other slots from question or source."""
        ids = example.ids
        question, source, value = places
        cites = (source.start, source.stop) if turn.line >= 0 or turn.told >= 0 else (0, 1)
        for token, (left, right) in zip(answer.ids, answer.offsets, strict=True):
            slot = next((s for s, a, b in turn.spans if left < b + 1 and right > a + 1), "")
            found: tuple[int, ...] = ()
            if slot:
                among = value if slot == "v" else sorted({*question, *source})
                found = tuple(p for p in among if ids[p] == token)
            elif turn.line >= 0 and ids[source.start] == token:
                found = (source.start,)
            self._row(example, token, found, cites)
        self._row(example, self._end, (), (0, 0))

    def _row(self, example: Example, token: int, found: tuple[int, ...], source: tuple[int, int]) -> None:
        example.rows.append(len(example.ids) - 1)
        example.targets.append(token)
        example.pointers.append(found)
        example.source.append(source)
        example.ids.append(token)


def _value(line: Line, turn: Turn, style: Style, encoding: Encoding, start: int) -> range:
    """Positions of the turn's value in its line."""
    shift = len(head(line, style))
    for fact, a, b in line.facts:
        if fact.value == turn.value and fact.relation.name == turn.relation:
            inside = [i for i, (left, right) in enumerate(encoding.offsets) if left < b + shift and right > a + shift]
            return range(start + inside[0], start + inside[-1] + 1)
    raise ValueError(f"line {line.text!r} does not say {turn.value!r}, which the answer {turn.answer!r} takes from it")


def collate(examples: Sequence[Example]) -> Batch:
    """Examples side by side, padded on the right."""
    count, width, height = len(examples), max(len(e.ids) for e in examples), max(len(e.rows) for e in examples)
    ids, rows = np.zeros((count, width), np.int64), np.zeros((count, height), np.int64)
    targets = np.full((count, height), -100, np.int64)
    pointers, source = np.zeros((count, height, width), np.bool_), np.zeros((count, height, width), np.bool_)
    number = np.full((count, width), -1, np.int64)
    for i, example in enumerate(examples):
        number[i, : len(example.number)] = example.number
        ids[i, : len(example.ids)] = example.ids
        rows[i, : len(example.rows)] = example.rows
        targets[i, : len(example.rows)] = example.targets
        for j, (found, (begin, end)) in enumerate(zip(example.pointers, example.source, strict=True)):
            pointers[i, j, list(found)] = True
            source[i, j, begin:end] = True
    return Batch(ids, rows, targets, pointers, source, number)


def pack(examples: Sequence[Example], random: Random, tokens: int) -> list[Batch]:
    """Batches of about `tokens` tokens, of scenes of like length, so that little is padding, in random order."""
    packed: list[list[Example]] = [[]]
    for example in sorted(examples, key=lambda e: len(e.ids)):
        if packed[-1] and len(example.ids) * (len(packed[-1]) + 1) > tokens:
            packed.append([])
        packed[-1].append(example)
    random.shuffle(packed)
    return [collate(examples) for examples in packed]
