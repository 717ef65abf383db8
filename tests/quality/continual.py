"""Continual learning on scikit-learn's digits, offline: split (classes arrive in pairs) and permuted (each task shuffles the pixels anew).

python -m tests.quality.continual [--seeds N] [--json FILE] [--markdown FILE]        # `make eval-continual`

Honest selection: for every seed and method the settings are chosen on a validation fifth of the training set; then the method is trained
anew on all of it and meets the test set once. A = mean accuracy over tasks at the end, F = mean loss from a task's best, BWT = mean change
since a task was learned (science.md 9).
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ndml.btsp.recruitment import RecruitmentOptions
from tests.quality import continual_methods as methods
from tests.quality.continual_methods import F32, I64, Learner

Settings = Mapping[str, Any]
Random = np.random.Generator
INPUTS = 64
MARKS = ("<!-- results -->", "<!-- /results -->")


@dataclass(frozen=True, slots=True)
class Task:
    """Images [n, 64] in 0..1 and labels [n], to learn from and to be asked about."""

    images: F32
    labels: I64
    asked: F32
    answers: I64


@dataclass(frozen=True, slots=True)
class Method:
    """How a learner is made, and the settings to choose from. `frugal`: fewest writes within one standard error of the best accuracy."""

    name: str
    make: Callable[[Random, Settings], Learner]
    grid: tuple[Settings, ...] = ({},)
    frugal: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One method on one seed. `accuracy` [T, T]: row = tasks learned so far, column = task asked; nan where it was not asked."""

    accuracy: NDArray[np.float64]
    stored: int
    items: int
    nbytes: int
    settings: dict[str, float]

    @property
    def final(self) -> float:
        return float(self.accuracy[-1].mean())

    @property
    def forgetting(self) -> float:
        return float((np.nanmax(self.accuracy[:, :-1], axis=0) - self.accuracy[-1, :-1]).mean())

    @property
    def backward_transfer(self) -> float:
        return float((self.accuracy[-1] - np.diag(self.accuracy))[:-1].mean())


def _btsp(random: Random, settings: Settings) -> Learner:
    gate = settings.get("familiar")
    whole = {name: int(value) for name, value in settings.items() if name != "familiar"}
    return methods.Btsp(random, INPUTS, RecruitmentOptions(familiar=gate, **whole))


GATE = "BTSP, gated"
METHODS: tuple[Method, ...] = (
    Method("naive SGD", lambda r, s: methods.Perceptron(r, INPUTS, **s), ({"rate": 0.1}, {"rate": 0.03})),
    Method(
        "EWC", lambda r, s: methods.Ewc(r, INPUTS, **s), tuple({"strength": k, "rate": v} for k, v in ((1, 0.1), (10, 0.03), (100, 0.03)))
    ),
    Method("NCM", lambda r, s: methods.NearestMean(INPUTS)),
    Method("replay, 200 items", lambda r, s: methods.Replay(r, INPUTS, **s), ({"rate": 0.1}, {"rate": 0.03})),
    Method("SLDA", lambda r, s: methods.Slda(INPUTS, **s), ({"shrinkage": 1e-2}, {"shrinkage": 1e-3}, {"shrinkage": 1e-1})),
    Method("RanPAC, 2,000", lambda r, s: methods.RanPac(r, INPUTS, **s), ({"ridge": 1.0}, {"ridge": 0.1}, {"ridge": 10.0})),
    Method("exact 3-NN store", lambda r, s: methods.NearestNeighbours(INPUTS)),
    Method(GATE, _btsp, ({"familiar": 0.55}, {"familiar": 0.5}, {"familiar": 0.6}), frugal=True),
    Method("BTSP, every item written", _btsp),
    Method("BTSP, every item, random recruits", _btsp, ({"candidates": 8},)),
    Method("BTSP as published, SET", lambda r, s: methods.PublishedBtsp(r, INPUTS, flip=False)),
    Method("BTSP as published, FLIP", lambda r, s: methods.PublishedBtsp(r, INPUTS, flip=True)),
)


def digits() -> tuple[F32, I64]:
    """1,797 images [n, 64] in 0..1 and their digits; they come with scikit-learn."""
    images, labels = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels.astype(np.int64)


def halves(random: Random, rows: I64, share: float) -> tuple[I64, I64]:
    """Rows in a random order, cut at `share`."""
    order = random.permutation(rows)
    cut = int(share * len(order))
    return order[:cut], order[cut:]


def split_tasks(learned: I64, asked: I64, seed: int) -> list[Task]:
    """Five tasks of two classes; asked among all ten (class-incremental)."""
    images, labels = digits()
    pairs = [(learned[labels[learned] // 2 == k], asked[labels[asked] // 2 == k]) for k in range(5)]
    return [Task(images[a], labels[a], images[b], labels[b]) for a, b in pairs]


def permuted_tasks(count: int) -> Callable[[I64, I64, int], list[Task]]:
    """`count` tasks of all classes, each under its own order of pixels, the first unshuffled (domain-incremental)."""

    def tasks(learned: I64, asked: I64, seed: int) -> list[Task]:
        images, labels = digits()
        random = np.random.default_rng([seed, 1])
        orders = [np.arange(INPUTS), *(random.permutation(INPUTS) for _ in range(count - 1))]
        return [Task(images[learned][:, o], labels[learned], images[asked][:, o], labels[asked]) for o in orders]

    return tasks


LONG_SEEDS = {"permuted, 10 tasks": 3}
PROTOCOLS = {"split": split_tasks, "permuted, 5 tasks": permuted_tasks(5), "permuted, 10 tasks": permuted_tasks(10)}


def run(learner: Learner, tasks: list[Task], settings: Settings, every: bool = True) -> Outcome:
    """Learn the tasks in order; ask about all so far after each, or, unless `every`, about all at the end."""
    accuracy = np.full((len(tasks), len(tasks)), np.nan)
    for learned, task in enumerate(tasks):
        learner.fit(task.images, task.labels)
        if every or learned == len(tasks) - 1:
            past = tasks[: learned + 1]
            right = learner.predict(np.concatenate([t.asked for t in past])) == np.concatenate([t.answers for t in past])
            edges = np.cumsum([len(t.answers) for t in past])[:-1]
            accuracy[learned, : learned + 1] = [part.mean() for part in np.split(right, edges)]
    return Outcome(accuracy, learner.stored, sum(len(t.labels) for t in tasks), learner.nbytes, dict(settings))


def choose(method: Method, tasks: list[Task], seed: int) -> Settings:
    """The settings best on validation; a frugal method: those that write least within one standard error of the best."""
    if len(method.grid) == 1:
        return method.grid[0]
    tried = [run(method.make(np.random.default_rng([seed, 2]), s), tasks, s, every=False) for s in method.grid]
    best, asked = max(outcome.final for outcome in tried), sum(len(task.answers) for task in tasks)
    enough = best - np.sqrt(best * (1 - best) / asked) * method.frugal
    good = [(o.stored if method.frugal else -o.final, i) for i, o in enumerate(tried) if o.final >= enough]
    return method.grid[min(good)[1]]


def evaluate(method: Method, protocol: str, seed: int, tune: bool = True) -> Outcome:
    """One seed: own split, own order, own weights. Without `tune` the settings are the first of the grid."""
    make, random = PROTOCOLS[protocol], np.random.default_rng([seed, 0])
    training, test = halves(random, np.arange(len(digits()[1])), 0.75)
    fitted, validation = halves(random, training, 0.8)
    settings = choose(method, make(fitted, validation, seed), seed) if tune else method.grid[0]
    return run(method.make(np.random.default_rng([seed, 3]), settings), make(training, test, seed), settings)


@dataclass(frozen=True, slots=True)
class Line:
    """A method on a protocol over seeds: means and standard deviations; bytes kept; settings chosen, by seed.

    `curve` [T]: mean accuracy over the tasks seen so far, after each task.
    """

    protocol: str
    method: str
    seeds: int
    accuracy: float
    accuracy_sd: float
    forgetting: float
    forgetting_sd: float
    backward_transfer: float
    stored: float
    items: int
    nbytes: int
    chosen: list[dict[str, float]]
    curve: list[float]
    seconds: float


def summarise(protocol: str, method: Method, outcomes: list[Outcome], seconds: float) -> Line:
    final, forgetting = np.array([o.final for o in outcomes]), np.array([o.forgetting for o in outcomes])
    spread = 1 if len(outcomes) > 1 else 0
    return Line(
        protocol=protocol,
        method=method.name,
        seeds=len(outcomes),
        accuracy=float(final.mean()),
        accuracy_sd=float(final.std(ddof=spread)),
        forgetting=float(forgetting.mean()),
        forgetting_sd=float(forgetting.std(ddof=spread)),
        backward_transfer=float(np.mean([o.backward_transfer for o in outcomes])),
        stored=float(np.mean([o.stored for o in outcomes])),
        items=outcomes[0].items,
        nbytes=outcomes[0].nbytes,
        chosen=[o.settings for o in outcomes],
        curve=[float(v) for v in np.mean([np.nanmean(o.accuracy, axis=1) for o in outcomes], axis=0)],
        seconds=seconds,
    )


def _timed(name: str, protocol: str, seed: int) -> tuple[Outcome, float]:
    """One seed in a worker process; CPU seconds beside it. Methods go by name: their makers are closures and cannot travel."""
    with importlib.import_module("threadpoolctl").threadpool_limits(1):
        start = time.process_time()
        outcome = evaluate(next(method for method in METHODS if method.name == name), protocol, seed)
        return outcome, time.process_time() - start


def bench(seeds: int, protocols: list[str], workers: int) -> Iterator[Line]:
    """Every method on every protocol; the long protocol on at most `LONG_SEEDS` seeds."""
    with ProcessPoolExecutor(workers) as pool:
        work = []
        for protocol in protocols:
            chosen = range(min(seeds, LONG_SEEDS.get(protocol, seeds)))
            work += [(protocol, method, [pool.submit(_timed, method.name, protocol, seed) for seed in chosen]) for method in METHODS]
        for protocol, method, futures in work:
            done = [future.result() for future in futures]
            yield summarise(protocol, method, [outcome for outcome, _ in done], sum(seconds for _, seconds in done))


COLUMNS = ("protocol", "seeds", "method", "A", "F", "BWT", "items kept", "state", "settings chosen")


def cells(line: Line) -> list[str]:
    """A line as text."""
    chosen = sorted({" ".join(f"{k} {v:g}" for k, v in s.items()) for s in line.chosen} - {""})
    return [
        line.protocol,
        str(line.seeds),
        line.method,
        f"{line.accuracy:.3f} ± {line.accuracy_sd:.3f}",
        f"{line.forgetting:.3f} ± {line.forgetting_sd:.3f}",
        f"{line.backward_transfer:+.3f}",
        f"{line.stored:,.0f} of {line.items:,}",
        f"{line.nbytes / 2**20:.2f} MiB",
        ", ".join(chosen) or "-",
    ]


def markdown(lines: list[Line]) -> str:
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(cells(line) for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def replace_results(page: Path, table: str) -> None:
    """Put the table between the page's marks."""
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), action="append", help="these only")
    parser.add_argument("--workers", type=int, default=2, help="processes; each takes one core")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="a page with the marks of a result table")
    options = parser.parse_args()
    lines = []
    for line in bench(options.seeds, options.protocol or list(PROTOCOLS), options.workers):
        lines.append(line)
        print(*cells(line), f"({line.seconds:.0f} s CPU)", sep="  ", flush=True)
    table = Table(*COLUMNS, title=f"Continual learning, digits, {sum(line.seconds for line in lines):.0f} s CPU")
    for line in lines:
        table.add_row(*cells(line))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        replace_results(options.markdown, markdown(lines))


if __name__ == "__main__":
    main()
