"""Feedback in, weights out: ask, learn on one part of the questions, compare on the other.

What is learned from shares is exact for signals that stand alone. The links, the session and what counts in deviations of the score
depend on the others, too, so each step is asked again, at most ROUNDS times, and the best of those is taken; every figure of the outcome
is of rankings that the suite itself made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ndml.cli.records import Judged
from ndml.cli.tuning.asking import TUNED, Answer, Asker
from ndml.cli.tuning.learning import F64, LEAST, MOST, Ranking, learned
from ndml.cli.tuning.measures import LEAST_HELD_OUT, LEAST_TRAIN, Interval, Quality, by_question, held_out, interval, quality, question_of
from ndml.errors import FieldInvalid

ROUNDS = 3
LEAST_GAIN = 0.005
"""Of mean reciprocal rank. Where no weights find what helped, others still shuffle it by a place or two, and may do so for the better."""
_MOST_WEIGHT = 10.0
"""Largest that the settings take."""


@dataclass(frozen=True, slots=True)
class Side:
    """One part of the questions: how many different ones, their mean qualities by the weights in force and by the learned ones."""

    questions: int
    default: Quality
    learned: Quality


@dataclass(frozen=True, slots=True)
class Outcome:
    """weights in force, of the signals that the questions show; learned: those that changed; better: whether those are to be used; why: in
    words; gain: of mean reciprocal rank on the held-out side; missed: lines of which no helpful memory was among the hits, under the
    weights in force."""

    weights: Mapping[str, float]
    learned: Mapping[str, float]
    better: bool
    why: str
    train: Side
    held_out: Side
    gain: Interval
    missed: int
    seed: int


def divided(asked: Sequence[Judged]) -> tuple[list[int], list[int]]:
    """Places of the lines that teach, and of those that are held out. Raises FieldInvalid where either has too few different questions."""
    sides = [held_out(question_of(each.query)) for each in asked]
    train, held = ([i for i, side in enumerate(sides) if side is wanted] for wanted in (False, True))
    counts = [len({question_of(asked[i].query) for i in side}) for side in (train, held)]
    if counts[0] < LEAST_TRAIN or counts[1] < LEAST_HELD_OUT:
        raise FieldInvalid(
            f"too few different questions: {counts[0]} to learn from, {counts[1]} held out; {LEAST_TRAIN} and {LEAST_HELD_OUT} are "
            "needed, since with fewer luck cannot be told from a gain. A third is held out, by the hash of its words: 80 are enough, "
            "as a rule",
            field="file",
        )
    return train, held


def tuned(asker: Asker, asked: Sequence[Judged], seed: int, note: Callable[[int], None]) -> Outcome:
    """Ask, learn, compare; `note` gets the number of questions asked so far. Raises what asking raises, FieldInvalid for too few."""
    train, held = divided(asked)
    count = 0

    def ask(places: Sequence[int], weights: Mapping[str, float] | None) -> list[Answer]:
        nonlocal count
        found = []
        for i in places:
            found.append(asker.answer(asked[i], weights))
            if weights is None:
                asker.check_ids(asked[i], found[-1])
            note(count := count + 1)
        return found

    usual = ask(range(len(asked)), None)
    weights = asker.in_force(asked, usual)
    taught, now = [asked[i] for i in train], [usual[i] for i in train]
    best, again = _best(taught, now, weights, lambda wanted: ask(train, wanted))
    changed = {name: weight for name, weight in best.items() if weight != weights[name]}
    first = [usual[i] for i in held]
    last = ask(held, best) if changed else first
    kept = [asked[i] for i in held]
    before, after = _measured(kept, first), _measured(kept, last)
    gain = interval(after[:, 0] - before[:, 0], seed)
    better, why = verdict(changed, gain, float((after[:, 1] - before[:, 1]).mean()))
    missed = sum(not each.helpful.intersection(answer.ids) for each, answer in zip(asked, usual, strict=True))
    return Outcome(
        weights, changed, better, why, _side(_measured(taught, now), _measured(taught, again)), _side(before, after), gain, missed, seed
    )


def verdict(changed: Mapping[str, float], gain: Interval, recall_gain: float) -> tuple[bool, str]:
    """Whether the learned weights are to be used, and why: never where they might be worse."""
    if not changed:
        return False, "nothing was learned that changes a weight"
    if gain.low > 0 and gain.mean < LEAST_GAIN:
        return False, f"on the held-out questions the learned weights gain less than {LEAST_GAIN:g}: too little to change settings for"
    if gain.low <= 0:
        return False, "on the held-out questions the learned weights are not surely better: the interval reaches zero"
    if recall_gain < 0:
        return False, "on the held-out questions the learned weights put the first helpful memory higher and lose others"
    return True, "on the held-out questions the learned weights are better"


def rankings(asked: Sequence[Judged], answers: Sequence[Answer], signals: Sequence[str]) -> list[Ranking]:
    """For learning; a question that was asked n times counts 1 / n each time."""
    names = [question_of(each.query) for each in asked]
    often = Counter(names)
    return [
        Ranking(
            score=np.array(answer.scores, np.float64),
            shares=np.array([[shares.get(signal, 0.0) for signal in signals] for shares in answer.shares], np.float64),
            helpful=np.array([trace_id in each.helpful for trace_id in answer.ids], np.bool_),
            counts=1 / often[name],
        )
        for each, answer, name in zip(asked, answers, names, strict=True)
    ]


def _best(
    asked: Sequence[Judged], answers: list[Answer], weights: Mapping[str, float], ask: Callable[[Mapping[str, float]], list[Answer]]
) -> tuple[Mapping[str, float], list[Answer]]:
    """The weights with the best mean reciprocal rank on the questions that teach, with their answers; those in force if none are."""
    signals = [name for name in TUNED if weights.get(name, 0.0) > 0]
    start = np.array([weights[name] for name in signals])
    best, found, most = weights, answers, _reciprocal(asked, answers)
    now = np.ones(len(signals))
    for _ in range(ROUNDS if signals else 0):
        wanted = learned(rankings(asked, answers, signals), now)
        rounded = _rounded(wanted, start)
        after = {**weights, **dict(zip(signals, rounded.tolist(), strict=True))}
        if np.array_equal(rounded, start * now):
            break
        answers, now = ask(after), rounded / start
        value = _reciprocal(asked, answers)
        if value <= most:
            break
        best, found, most = after, answers, value
    return best, found


def _rounded(multipliers: F64, start: F64) -> F64:
    """Weights as they are written: two decimals, or three digits of small ones, within the bounds of the settings."""
    wanted = np.clip(multipliers, LEAST, MOST) * start
    return np.array([min(float(f"{each:.3g}"), _MOST_WEIGHT) for each in wanted])


def _measured(asked: Sequence[Judged], answers: Sequence[Answer]) -> F64:
    """[n, 2] by different question."""
    values = [quality(answer.ids, each.helpful) for each, answer in zip(asked, answers, strict=True)]
    return by_question([question_of(each.query) for each in asked], values)


def _reciprocal(asked: Sequence[Judged], answers: Sequence[Answer]) -> float:
    return float(_measured(asked, answers)[:, 0].mean())


def _side(before: F64, after: F64) -> Side:
    return Side(len(before), Quality(*before.mean(axis=0).tolist()), Quality(*after.mean(axis=0).tolist()))
