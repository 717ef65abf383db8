"""How fast counters grow, and quantiles of histograms. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ndml.cli.monitoring.samples import CUMULATIVE, Key, Scrape, bucket, count_of, sum_of

# A scrape each half second fills a window of 10 s with 21: 64 leave room and bound what a short interval may keep.
MOST_SCRAPES = 64


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much each counter grew within `seconds`; no seconds: nothing can be said."""

    seconds: float = 0.0
    by: Mapping[Key, float] = field(default_factory=dict)

    def each(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and growth of each sample of that name."""
        return ((dict(labels), value) for (found, labels), value in self.by.items() if found == name)

    def rate(self, name: str, **labels: str) -> float | None:
        """A second, over all samples with these labels; None where nothing can be said, or there is no such counter."""
        found = [value for has, value in self.each(name) if labels.items() <= has.items()]
        return sum(found) / self.seconds if found and self.seconds > 0 else None


class History:
    """The scrapes of one process within the last `window_s` seconds, and the last one before them."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._scrapes: deque[Scrape] = deque(maxlen=MOST_SCRAPES)

    def add(self, scrape: Scrape) -> None:
        self._scrapes.append(scrape)
        while len(self._scrapes) > 2 and self._scrapes[1].at_s <= scrape.at_s - self._window_s:
            self._scrapes.popleft()

    def growth(self) -> Growth:
        return growth(self._scrapes)


def growth(scrapes: Sequence[Scrape] | deque[Scrape]) -> Growth:
    """Over a process's scrapes, oldest first.

    A counter that fell was reset with its process, and has grown by what it shows since. Where another process answers than before (its
    start time differs: a restart, or an address that stands for several) the stretch between the two is left out: what it counted
    before is not known.
    """
    seconds, by = 0.0, dict[Key, float]()
    for old, new in pairwise(scrapes):
        other = None not in (old.started_s, new.started_s) and old.started_s != new.started_s
        if other or new.at_s <= old.at_s:
            continue
        seconds += new.at_s - old.at_s
        for key, grown in _between(old, new):
            by[key] = by.get(key, 0.0) + grown
    return Growth(seconds, by)


def _between(old: Scrape, new: Scrape) -> Iterator[tuple[Key, float]]:
    now = {key: value for key, value in new.values.items() if key[0] in CUMULATIVE}
    # One that fell says that all began anew: buckets that had been passed already would else not add up.
    reset = any(value < old.values.get(key, 0.0) for key, value in now.items())
    for key, value in now.items():
        yield key, value if reset else value - old.values.get(key, 0.0)


@dataclass(slots=True)
class Spread:
    """A histogram's growth, added up over processes: how many in each bucket, by its upper bound."""

    seconds: float = 0.0
    count: float = 0.0
    total: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def top(self) -> float:
        """The largest finite bound: nothing beyond it can be told."""
        return max((bound for bound in self.buckets if math.isfinite(bound)), default=0.0)


def spread(grown: Sequence[Growth], name: str, **labels: str) -> Spread:
    """The growth of a histogram in several processes as one; only samples with these labels."""
    result = Spread()
    for each in grown:
        for part, sink in ((bucket(name), "bucket"), (count_of(name), "count"), (sum_of(name), "sum")):
            for has, value in each.each(part):
                if labels.items() <= has.items():
                    _take(result, sink, has, value)
    return result


def _take(result: Spread, sink: str, labels: Mapping[str, str], value: float) -> None:
    if sink == "count":
        result.count += value
    elif sink == "sum":
        result.total += value
    elif (bound := _bound(labels.get("le", ""))) is not None:
        result.buckets[bound] = result.buckets.get(bound, 0.0) + value


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value that `share` (0 to 1) of the observations do not exceed, as PromQL's histogram_quantile has it: straight lines between
    cumulative buckets (from 0 below the first), the largest finite bound for what lies beyond it. None without observations.
    """
    bounds = sorted(buckets)
    whole = max(buckets.values(), default=0.0)
    if whole <= 0 or not math.isinf(bounds[-1]) or len(bounds) < 2:
        return None
    rank, below, lower = share * whole, 0.0, 0.0
    for bound in bounds:
        inside = max(below, buckets[bound])
        if inside >= rank and inside > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * max(0.0, rank - below) / (inside - below)
        below, lower = inside, bound if math.isfinite(bound) else lower
    return lower
