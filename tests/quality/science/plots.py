"""Pictures for docs/science, drawn from the modules themselves: python -m tests.quality.science.plots [--only NAME] [--folder DIR]

Deterministic: the same code and the same matplotlib give the same bytes. matplotlib is a development dependency.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndml.btsp import capture, credit, timescales
from tests.quality.science import at1, wu_maass
from tests.quality.science.at2 import CAPTURED

FOLDER = Path(__file__).parents[3] / "docs/science/img"
F64 = NDArray[np.float64]
# Okabe and Ito's palette: told apart by all eyes. Ours is always blue, what it is compared with orange, a bare theory grey.
BLUE, ORANGE, GREEN, PURPLE, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A8A8A", "#222222"
STYLE = {
    "figure.dpi": 140,
    "figure.facecolor": "white",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
COLOURS = 128
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
NAMES = ("5 s", "1 min", "15 min", "4 h", "2 d", "14 d", "90 d", "∞")
TICKS_S = {tau: name for tau, name in zip(timescales.TAUS_S, NAMES, strict=True) if tau < np.inf}


def _axes(pyplot: Any, columns: int, width: float = 8.4, height: float = 3.3) -> tuple[Any, Any]:
    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained")
    return figure, axes


def _age_axis(axes: Any) -> None:
    axes.set_xscale("log")
    axes.set_xticks(list(TICKS_S), list(TICKS_S.values()), rotation=30)
    axes.minorticks_off()
    axes.set_xlabel("age of the event")


def forgetting(pyplot: Any) -> Any:
    """One event on eight timescales, and what the read-out makes of them."""
    figure, (left, right) = _axes(pyplot, 2)
    ages = np.geomspace(1.0, 400 * DAY_S, 140)
    levels = timescales.event(timescales.silent(1), timescales.ORIGIN_S)
    each = np.array([timescales.activity(levels, timescales.ORIGIN_S + age)[0] for age in ages])  # [ages, 8]
    shades = pyplot.get_cmap("viridis")(np.linspace(0.0, 0.8, timescales.MODES))
    for k, tau in enumerate(timescales.TAUS_S):
        left.plot(ages, each[:, k], color=shades[k])
        name, at = TICKS_S.get(tau, "τ = ∞"), min(0.75 * tau, ages[-1])
        left.text(at, 0.5 if tau < np.inf else 0.93, f" {name}", color=shades[k], fontsize=8, ha="left" if tau < np.inf else "right")
    left.set(title="Eight accumulators, by time constant", ylabel="what is left of one event, $S_k$", ylim=(-0.03, 1.05))
    for exponent, colour in ((0.15, BLUE), (0.30, GREEN), (0.50, ORANGE)):
        read = each @ timescales.readout_weights(exponent)
        right.plot(ages, ages**-exponent, color=colour, linestyle=":", linewidth=2.2, alpha=0.7)
        right.plot(ages, read, color=colour, label=f"d = {exponent:.2f}")
    right.plot([], [], color=GREY, linestyle=":", linewidth=2.2, label="exact $t^{-d}$ (ACT-R)")
    right.axvspan(timescales.AGES_S[0], timescales.AGES_S[-1], color="#F3F6FA", zorder=0)
    right.set(title="Read-out: any power law from the same state", ylabel="base level $B_d$ (1 = at 1 s)", yscale="log", ylim=(1e-4, 1.6))
    right.text(timescales.AGES_S[0] * 1.3, 1.4e-4, "fitted range", color=GREY, fontsize=8)
    right.legend(loc="lower left", bbox_to_anchor=(0.0, 0.08))
    for axes in (left, right):
        _age_axis(axes)
    return figure


def credit_kernel(pyplot: Any) -> Any:
    """Our closed-form kernel against Milstein's simulated rule: shape, and dependence on the weight."""
    figure, (left, right) = _axes(pyplot, 2)
    delays = np.linspace(-5, 3, 161)
    weak = np.array([credit.milstein_change(float(d), 0.0) for d in delays])
    left.plot(delays, credit.kernel(delays), color=BLUE, label="ours, κ(D): 1.31 s before, 0.69 s after (Bittner 2017)")
    left.plot(delays, weak / weak.max(), color=ORANGE, label="Milstein 2021, weak input, scaled to its peak")
    left.set(title="How far credit reaches", ylabel="credit, share of its peak", ylim=(-0.03, 1.32))
    left.legend(loc="upper left")
    for weight, style in ((0.0, "-"), (0.5, "--"), (0.9, ":")):
        ours = credit.updated(np.full(len(delays), weight), credit.kernel(delays)) - weight
        theirs = [credit.milstein_change(float(d), weight) for d in delays]
        right.plot(delays, ours, color=BLUE, linestyle=style)
        right.plot(delays, theirs, color=ORANGE, linestyle=style)
        right.plot([], [], color=BLACK, linestyle=style, label=f"w = {weight:g}")
    right.axhline(0, color=BLACK, linewidth=0.7)
    right.set(title="Weak traces gain, strong ones lose", ylabel="change of weight, feedback +1", ylim=(-0.5, 0.62))
    right.legend(loc="upper left")
    right.annotate("ours", (0.75, 0.20), color=BLUE)
    right.annotate("Milstein", (0.75, -0.33), color=ORANGE)
    for axes in (left, right):
        axes.axvline(0, color=GREY, linewidth=0.7, zorder=0)
        axes.set_xlabel("trace active before (−) or after (+) feedback, s or turns")
    return figure


def _phases(early: float, at_s: float, strong_at_s: float | None, times: F64) -> tuple[F64, F64]:
    """Early and late phase of a trace changed by `early` at `at_s`, a strong event elsewhere at `strong_at_s`."""
    protein = capture.Protein()
    for when, size in sorted([(at_s, early)] + ([] if strong_at_s is None else [(strong_at_s, 1.0)])):
        protein.add(when, size)
    start, size_, zero = np.array([at_s]), np.array([early]), np.zeros(1)
    e = np.array([float(capture.early_phase(size_, start, float(t))[0]) if t >= at_s else 0.0 for t in times])
    z = np.array([float(capture.late_phase(zero, size_, start, float(t), protein)[0]) if t >= at_s else 0.0 for t in times])
    return e, z


def tagging(pyplot: Any) -> Any:
    """A weak trace alone and near a strong event; capture against the interval with the reference values."""
    figure, (left, right) = _axes(pyplot, 2)
    base, times = 2 * HOUR_S, np.linspace(0, 10 * HOUR_S, 161)
    for strong, colour, name in ((None, GREY, "weak event alone"), (base + 30 * MINUTE_S, BLUE, "strong event 30 min later")):
        early, late = _phases(0.45, base, strong, times + base)
        left.plot(times / HOUR_S, late, color=colour, label=f"late phase z: {name}")
    left.plot(times / HOUR_S, early, color=ORANGE, linestyle="--", label="early phase e of the weak trace (the tag)")
    left.axhline(capture.DEFAULTS.tag_threshold, color=ORANGE, linewidth=0.7, linestyle=":")
    left.text(10, capture.DEFAULTS.tag_threshold + 0.01, "tag threshold", color=ORANGE, fontsize=8, ha="right")
    left.set(title="A weak memory near a strong one stays", xlabel="time since the weak event, h", ylabel="phase", ylim=(-0.02, 0.62))
    left.legend(loc="upper right")
    minutes = np.linspace(-200, 120, 161)
    end = np.array([12 * HOUR_S])
    captured = [_phases(0.45, 4 * HOUR_S, 4 * HOUR_S + m * MINUTE_S, end + 2 * HOUR_S)[1][0] for m in minutes]
    right.plot(minutes, captured, color=BLUE, label="ours, closed form")
    right.plot(list(CAPTURED), list(CAPTURED.values()), "o", color=ORANGE, markersize=4.5, label="stepped simulation (design notes)")
    right.axvline(0, color=GREY, linewidth=0.7, zorder=0)
    right.set(title="What is captured", xlabel="strong event before (−) or after (+) the weak one, min", ylabel="late phase z, 10 h later")
    right.legend(loc="lower left", bbox_to_anchor=(0.0, 0.05))
    return figure


SAMPLED = 3_000
"""Neurons drawn of the published 39,000: they learn and fire independently of each other."""


def recall(pyplot: Any) -> Any:
    """Recall from masked cues at the published size, against the design notes' runs of the published model."""
    figure, (left, right) = _axes(pyplot, 2, height=3.5)
    shape = replace(at1.PUBLISHED, neurons=SAMPLED)
    runs = {items: at1.feedforward(items, shape) for items in at1.TABLE}
    shades = dict(zip(runs, pyplot.get_cmap("viridis")(np.linspace(0.0, 0.85, len(runs))), strict=True))
    masks = 100 * np.array(at1.MASKS)
    for items, run in runs.items():
        left.plot(masks, run.ratios, color=shades[items], label=f"{items:,} patterns")
        left.plot(masks, at1.TABLE[items].ratios, "o", color=shades[items], markersize=4.5, markerfacecolor="white")
    left.plot([], [], "o", color=GREY, markersize=4.5, markerfacecolor="white", label="design notes' run")
    left.set(title="Recall from one look, by what the cue lacks", xlabel="share of the cue that is masked, %")
    left.legend(loc="upper left", ncols=2)
    third, thousands = at1.MASKS.index(0.33), np.array(list(runs)) / 1000
    right.plot(thousands, [run.ratios[third] for run in runs.values()], color=BLUE, label="ours, BTSP (set form)")
    right.plot(thousands, [row.ratios[third] for row in at1.TABLE.values()], "o", color=ORANGE, markersize=4.5, label="design notes' run")
    formula = [wu_maass.published_theory(items, 0.33, shape) for items in runs]
    right.plot(thousands, formula, color=GREY, linestyle="--", label="authors' formula (flip form)")
    right.plot(thousands, [run.projection for run in runs.values()], color=BLACK, linestyle=":", label="random synapses, as many")
    right.set(title="A third masked, by how much was learned", xlabel="patterns learned, thousands", xticks=thousands)
    right.legend(loc="center left", bbox_to_anchor=(0.0, 0.52))
    for axes in (left, right):
        axes.set(ylim=(-0.02, 0.68), ylabel="distance of traces (0 same, 1 unrelated)")
    return figure


SHOWN = {
    "exact 3-NN store": (BLACK, ":"),
    "RanPAC, 2,000": (GREEN, "-"),
    "BTSP, gated": (BLUE, "-"),
    "BTSP, every item written": (BLUE, "--"),
    "replay, 200 items": (ORANGE, "-"),
    "SLDA": (PURPLE, "-"),
    "EWC": (ORANGE, ":"),
    "naive SGD": (GREY, "-"),
}


def continual(pyplot: Any) -> Any:
    """Accuracy over the tasks seen so far, from docs/science/continual.json (`make eval-continual` writes it)."""
    lines = json.loads((FOLDER.parent / "continual.json").read_text(encoding="utf-8"))
    protocols = {"split": "Split digits: two new classes a task", "permuted, 10 tasks": "Permuted digits: a new order of pixels a task"}
    figure, axes = _axes(pyplot, 2, height=4.0)
    for each, (protocol, title), corner in zip(axes, protocols.items(), ((0.47, 0.34, 0.5, 0.42), (0.13, 0.1, 0.38, 0.33)), strict=True):
        close = each.inset_axes(corner)
        curves = {line["method"]: line["curve"] for line in lines if line["protocol"] == protocol}
        for method, (colour, style) in SHOWN.items():
            seen = np.arange(1, len(curves[method]) + 1)
            for where in (each, close):
                where.plot(seen, curves[method], style, color=colour, marker="o", markersize=2.5, label=method)
        each.set(title=title, xlabel="tasks learned", ylabel="mean accuracy on them", ylim=(0, 1.03), xticks=seen)
        close.set(ylim=(0.95, 1.003), yticks=(0.96, 0.98, 1.0), xticks=seen)
        close.tick_params(labelsize=7)
        close.set_title("the best, closer", fontsize=8, color=GREY)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


PICTURES: dict[str, Callable[[Any], Any]] = {
    "forgetting": forgetting,
    "credit": credit_kernel,
    "capture": tagging,
    "recall": recall,
    "continual": continual,
}


def draw(name: str, folder: Path = FOLDER) -> Path:
    """Draw one picture; the PNG written."""
    importlib.import_module("matplotlib").use("Agg")
    path = folder / f"{name}.png"
    save(PICTURES[name], path)
    return path


def save(figure_of: Callable[[Any], Any], path: Path) -> None:
    """Write a PNG in few colours: a third of the bytes, and line drawings have no more."""
    pyplot, image = importlib.import_module("matplotlib.pyplot"), importlib.import_module("PIL.Image")
    with pyplot.rc_context(STYLE):
        figure = figure_of(pyplot)
        figure.savefig(path, metadata={"Software": None})
        pyplot.close(figure)
    with image.open(path) as full:
        few = full.convert("RGB").quantize(COLOURS, dither=image.Dither.NONE)
    few.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(PICTURES), action="append")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.only or list(PICTURES):
        path = draw(name, options.folder)
        print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
