"""The seed's option names, mapped onto ours: a configuration written for the seed keeps its meaning as far as the mechanism exists.

| seed key | seed default | ours |
|---|---|---|
| calcium_decay_ms | 200 | CalciumOptions.decay_s; with eligibility_decay_ms also CreditOptions.tau_after |
| calcium_threshold | - | CalciumOptions.threshold |
| eligibility_decay_ms | 5000 | CreditOptions.tau_before, and CreditOptions.clock = "seconds" |
| protein_decay_ms | 30000 | CaptureOptions.protein_tau_s |
| learning_rate | - | CreditOptions.k_pot; k_dep keeps its ratio to it (.4) |
| decay_rate | - | StateOptions.exponent: a power law's exponent instead of a rate per step, .05 to .8 |
| competition_strength | .1 | SeedOptions.competition_strength, for `ndml.btsp.homeostasis` |

What is not named keeps our default, which is not the seed's: ours were chosen on data (science notes 1.3 and 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ndml.btsp.checks import in_range
from ndml.btsp.credit import CreditOptions
from ndml.btsp.plateau import CalciumOptions
from ndml.btsp.state import Dynamics
from ndml.errors import FieldInvalid

SEED_KEYS = (
    *("calcium_decay_ms", "calcium_threshold", "eligibility_decay_ms", "protein_decay_ms"),
    *("learning_rate", "decay_rate", "competition_strength"),
)


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """What a seed configuration comes to."""

    calcium: CalciumOptions
    dynamics: Dynamics
    competition_strength: float
    """0 to 1; 0 where the configuration does not ask for competition."""


def seed_options(values: Mapping[str, float], calcium: CalciumOptions | None = None, dynamics: Dynamics | None = None) -> SeedOptions:
    """Options with the seed's `values` laid over `calcium` and `dynamics`. FieldInvalid: a key that the seed did not have, a bad value."""
    for key in values:
        if key not in SEED_KEYS:
            raise FieldInvalid(f"{key} is no option of the seed: use one of {', '.join(SEED_KEYS)}", field=key)
    cells, base = calcium or CalciumOptions(), dynamics or Dynamics()
    cells = replace(
        cells,
        decay_s=_seconds(values, "calcium_decay_ms", cells.decay_s),
        threshold=values.get("calcium_threshold", cells.threshold),
    )
    made = replace(
        base,
        credit=_credit(values, base.credit),
        capture=replace(base.capture, protein_tau_s=_seconds(values, "protein_decay_ms", base.capture.protein_tau_s)),
        state=replace(base.state, exponent=values.get("decay_rate", base.state.exponent)),
    )
    competition = in_range(values.get("competition_strength", 0.0), "competition_strength", 0.0, 1.0)
    return SeedOptions(cells, made, competition)


def _seconds(values: Mapping[str, float], key: str, ours: float) -> float:
    return values[key] / 1000.0 if key in values else ours


def _credit(values: Mapping[str, float], ours: CreditOptions) -> CreditOptions:
    if "learning_rate" in values:
        rate = values["learning_rate"]
        ours = replace(ours, k_pot=rate, k_dep=rate * CreditOptions().k_dep / CreditOptions().k_pot)
    if "eligibility_decay_ms" not in values:
        return ours
    before = _seconds(values, "eligibility_decay_ms", ours.tau_before)
    return replace(ours, clock="seconds", tau_before=before, tau_after=_seconds(values, "calcium_decay_ms", ours.tau_after))
