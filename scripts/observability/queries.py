"""Queries over what the reader of a dashboard chose."""

from __future__ import annotations

from .panels import Query

WINDOW = "$__rate_interval"
CHOSEN = 'namespace=~"$namespace|",job=~"$job",instance=~"$instance"'
"""What the reader chose. An empty namespace belongs to a Prometheus outside a cluster."""
FAILING = ((None, "green"), (0.001, "orange"), (0.01, "red"))
LOAD = ((None, "green"), (0.7, "orange"), (0.85, "red"))
NONE = ((None, "green"), (1.0, "red"))
BUDGET = ((None, "red"), (0.1, "orange"), (0.5, "green"))
LIFE = ((None, "red"), (14 * 86400.0, "orange"), (30 * 86400.0, "green"))
"""Seconds left: red where NdmlCertificateEnds fires, orange past the time at which the chart has certificates renewed."""
HEARD = ((None, "red"), (1.0, "green"))


def rate(counter: str, by: str, more: str = "") -> str:
    """A counter\'s growth a second, by some labels."""
    return f"sum by ({by}) (rate({counter}{{{CHOSEN}{',' + more if more else ''}}}[{WINDOW}]))"


def over(gauge: str, by: str, how: str = "sum", more: str = "") -> str:
    """A gauge over what was chosen, by some labels; `how` is a PromQL aggregation."""
    return f"{how} by ({by}) ({gauge}{{{CHOSEN}{',' + more if more else ''}}})"


def quantile(q: float, histogram: str, by: str = "", more: str = "") -> str:
    """The q-quantile of a histogram over the panel\'s window."""
    grouping = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({grouping}) (rate({histogram}_bucket{{{CHOSEN}{',' + more if more else ''}}}[{WINDOW}])))"


def quantiles(histogram: str, more: str = "") -> tuple[Query, ...]:
    """Median, p95 and p99, the last with its traces as points."""
    return tuple(
        Query(quantile(q, histogram, more=more), name, exemplar=q == 0.99) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    )
