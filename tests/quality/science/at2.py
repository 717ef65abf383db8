"""AT-2a..e: dynamics of a trace. The fast ones need no data; AT-2b reads LoCoMo (evaluation only) and is left out where that is absent."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ndml.btsp import stability, timescales
from ndml.btsp.capture import Protein, late_phase
from ndml.btsp.checks import F64
from ndml.btsp.state import StateBlock
from tests.quality import locomo
from tests.quality.science.rows import Row

START_S = timescales.ORIGIN_S + 1e7
HOUR_S = 3600.0


def chain() -> list[Row]:
    """AT-2a: the linear Benna-Fusi chain is its modes."""
    expm = import_module("scipy.linalg").expm  # tests only: the library needs numpy alone
    taus, weights = timescales.benna_fusi_modes(8)
    matrix = timescales.chain_matrix(8)
    times = 4.0 ** np.arange(9)
    worst = max(abs(expm(matrix * t)[0, 0] - float(weights @ np.exp(-t / taus))) for t in times)
    steps = np.geomspace(4, 1.6e4, 200)
    response = np.exp(-steps[:, None] / taus) @ weights
    slope = float(np.polyfit(np.log(steps), np.log(response), 1)[0])
    shown = " ".join(f"{tau:.3g}" for tau in np.sort(taus))
    published = np.array([2.5, 13, 58, 244, 1.0e3, 4.05e3, 1.67e4, 1.52e5])
    same = bool(np.allclose(np.sort(taus), published, rtol=0.03))
    return [
        Row("AT-2a", "largest difference from the matrix exponential, K = 8", "< 1e-12", f"{worst:.1e}", worst < 1e-12),
        Row("AT-2a", "log-log slope over 4..1.6e4", "-0.50 +- .02", f"{slope:.3f}", abs(slope + 0.5) <= 0.02),
        Row("AT-2a", "time constants", " ".join(f"{tau:.3g}" for tau in published), shown, same),
    ]


def readout() -> list[Row]:
    """Weights of the power-law read-out: largest relative error on 10 s .. 180 d."""
    rows = []
    for exponent, reference in ((0.15, 0.019), (0.30, 0.045), (0.50, 0.091)):
        fit = np.exp(-timescales.AGES_S[:, None] * timescales.RATES) @ timescales.readout_weights(exponent)
        worst = float(np.abs(fit * timescales.AGES_S**exponent - 1).max())
        rows.append(
            Row("AT-2a", f"power law d = {exponent}: largest relative error", f"{reference:.1%}", f"{worst:.2%}", worst < reference + 0.001)
        )
    return rows


def join() -> list[Row]:
    """AT-2c: four replicas, events, partial merges, stale and repeated snapshots: one state in every order, and the exact sum."""
    random = np.random.default_rng(0)
    identical, worst = True, 0.0
    for _ in range(200):
        replicas = timescales.silent(4)[:, None, :]  # [replica, 1, 8]
        history, snapshots, now = [], [], START_S
        for _ in range(60):
            r, now = int(random.integers(4)), now + float(random.exponential(10 ** random.uniform(0, 6)))
            gain = float(random.uniform(0.1, 3))
            replicas[r] = timescales.event(replicas[r], now, gain)
            history.append((now, gain))
            if random.random() < 0.3:
                snapshots.append((r, replicas[r].copy()))
        snapshots += [(r, replicas[r].copy()) for r in range(4)]
        seen = {_merged([snapshots[i] for i in random.permutation(len(snapshots) * 2) % len(snapshots)]).tobytes() for _ in range(4)}
        identical &= len(seen) == 1
        read = timescales.activity(np.frombuffer(seen.pop()).reshape(1, -1), now + 100.0)[0]
        at, gains = np.array(history).T
        exact = (gains[:, None] * np.exp(-(now + 100.0 - at)[:, None] * timescales.RATES)).sum(axis=0)
        worst = max(worst, float((np.abs(read - exact) / np.maximum(exact, 1e-12)).max()))
    return [
        Row(
            "AT-2c",
            "merge orders with stale and repeated snapshots that differ in a bit, of 800",
            "0",
            "0" if identical else "> 0",
            identical,
        ),
        Row("AT-2c", "largest relative error against the exact sum of events", "< 1e-6", f"{worst:.1e}", worst < 1e-6),
    ]


def _merged(snapshots: list[tuple[int, F64]]) -> F64:
    held = timescales.silent(4)[:, None, :]
    for replica, levels in snapshots:
        held[replica] = timescales.merged(held[replica], levels)
    return timescales.joint(held)


CAPTURED = {-120: 0.588, -90: 0.691, -60: 0.714, -30: 0.658, 0: 0.534, 30: 0.330, 60: 0.120, 80: 0.022, 90: 0.001, 100: 0.0}


def tagging() -> list[Row]:
    """AT-2d: strong alone, weak alone, and the table of capture against the time between them."""
    strong, weak = _late([(0.0, 1.0)], 1.0, 0.0, 8 * HOUR_S), _late([(0.0, 0.45)], 0.45, 0.0, 8 * HOUR_S)
    rows = [
        Row("AT-2d", "strong alone: z after 8 h", "0.698", f"{strong:.3f}", abs(strong - 0.698) <= 0.01),
        Row("AT-2d", "weak alone (e0 = .45): z after 8 h", "0", f"{weak:.3f}", abs(weak) <= 0.01),
    ]
    for minutes, reference in CAPTURED.items():
        weak_at = 2 * HOUR_S
        ours = _late([(weak_at, 0.45), (weak_at + 60.0 * minutes, 1.0)], 0.45, weak_at, 12 * HOUR_S)
        rows.append(
            Row("AT-2d", f"captured, strong {minutes:+d} min from weak", f"{reference:.3f}", f"{ours:.3f}", abs(ours - reference) <= 0.01)
        )
    return rows


def _late(events: list[tuple[float, float]], early: float, at_s: float, now_s: float) -> float:
    protein = Protein()
    for when, size in sorted(events):
        protein.add(when, size)
    return float(late_phase(np.zeros(1), np.array([early]), np.array([at_s]), now_s, protein)[0])


def stability_against_reference() -> list[Row]:
    """AT-2e: 2,000 random histories through py-fsrs; empty where it is not installed (the unit test has recorded values)."""
    if find_spec("fsrs") is None:
        return []
    fsrs = import_module("fsrs")
    random, worst = np.random.default_rng(2), 0.0
    scheduler = fsrs.Scheduler(enable_fuzzing=False)
    for _ in range(2000):
        card, now, s, d = fsrs.Card(), datetime(2025, 1, 1, tzinfo=UTC), np.zeros(1), np.zeros(1)
        for i in range(int(random.integers(1, 10))):
            rating, gap = int(random.integers(1, 5)), timedelta(days=float(random.exponential(10 ** random.uniform(-2, 2))))
            now += gap
            card, _ = scheduler.review_card(card, fsrs.Rating(rating), now)
            s, d = stability.review(s, d, [rating], float(gap.days)) if i else stability.initial([rating])
            worst = max(worst, abs(s[0] / card.stability - 1), abs(d[0] / card.difficulty - 1))
    return [Row("AT-2e", "FSRS-6 against py-fsrs: largest relative difference of S and D", "1e-9", f"{worst:.1e}", worst <= 1e-9)]


def size() -> list[Row]:
    """State per trace, room to grow included."""
    block = StateBlock()
    block.append(np.full(10_000, 0.5), 0.3, START_S)
    each = block.nbytes / len(block)
    return [Row("2.3", "bytes of state per trace", "<= 160", f"{each:.1f}", each <= 160)]


def need() -> list[Row]:
    """AT-2b: which known content words recur in the next session, by state, on LoCoMo dev (its own five conversations, not all ten)."""
    if not locomo.DATA.exists():
        return []
    scores: dict[str, list[float]] = defaultdict(list)
    for conversation in locomo.load():
        for known, counts, recurs, now in _sessions(conversation):
            for name, predicted in _predictors(known, counts, now).items():
                scores[name].append(_auc(predicted, recurs))
    found = {name: float(np.mean(values)) for name, values in scores.items()}
    gap = max(abs(found[f"modes d={d}"] - found[f"exact d={d}"]) for d in (0.15, 0.3, 0.5))
    shown = "; ".join(f"{name} {value:.4f}" for name, value in sorted(found.items(), key=lambda each: -each[1]))
    ordered = found["modes d=0.15"] > found["exp 7 d"] > found["last use"]
    return [
        Row("AT-2b", "AUC of modes against exact ACT-R, largest difference over d = .15 .30 .50", "< .001", f"{gap:.5f}", gap < 1e-3),
        Row("AT-2b", "order: power law d = .15 > one exponential > last use", ".767 > .699 > .676", shown, ordered),
    ]


_STOP_TEXT = """
the and but for with from was are were you she they your her his its our their this that these those have has had does
did not  yes just really very too also about what when how who why where which there here out get got going can could
would will all some  any more most much many one like know think good great thanks thank hey wow it's that's i've you're
don't can't didn't
"""
STOP = frozenset(_STOP_TEXT.split())


def _words(text: str) -> set[str]:
    return {word.rstrip("s") for word in set(re.findall(r"[a-z']{3,}", text.lower())) - STOP}


def _sessions(conversation: locomo.Conversation) -> Iterator[tuple[list[list[float]], NDArray[np.int64], NDArray[np.bool_], float]]:
    """(times of each known word, how often, whether it recurs in this session, its start) for every session from the fifth on."""
    history: dict[str, list[float]] = defaultdict(list)
    for number, (_, turns) in enumerate(groupby(conversation.turns, key=lambda turn: turn.session)):
        each = [(turn.said_at.timestamp() + 30.0 * place, _words(turn.text)) for place, turn in enumerate(turns)]
        spoken = set().union(*(words for _, words in each))
        if number >= 4:
            known = list(history.values())
            recurs = np.array([word in spoken for word in history])
            yield known, np.array([len(times) for times in known]), recurs, each[0][0]
        for at, words in each:
            for word in words:
                history[word].append(at)


def _predictors(known: list[list[float]], counts: NDArray[np.int64], now: float) -> dict[str, F64]:
    at = np.concatenate([np.array(times) for times in known])
    owner = np.repeat(np.arange(len(known)), counts)
    ages = np.maximum(now - at, 1.0)
    levels = np.stack([timescales.events(timescales.silent(1)[0], np.array(times)) for times in known])
    predicted = {"count": counts.astype(np.float64), "last use": np.array([max(times) for times in known])}
    predicted["exp 7 d"] = np.bincount(owner, np.exp(-ages / (7 * 86400.0)), len(known))
    for d in (0.15, 0.3, 0.5):
        predicted[f"modes d={d}"] = timescales.base_level(levels, now, d)
        predicted[f"exact d={d}"] = np.bincount(owner, ages**-d, len(known))
    return predicted


def _auc(predicted: F64, wanted: NDArray[np.bool_]) -> float:
    """Probability that a wanted item stands above an unwanted one; ties count half."""
    _, inverse, count = np.unique(predicted, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[inverse]
    positives, negatives = int(wanted.sum()), int((~wanted).sum())
    return float((ranks[wanted].sum() - positives * (positives + 1) / 2) / (positives * negatives))


CHECKS: tuple[Callable[[], list[Row]], ...] = (chain, readout, need, join, tagging, stability_against_reference, size)
FAST: tuple[Callable[[], list[Row]], ...] = (chain, readout, join, tagging, size)
