"""The few shapes of PromQL that dashboards and rules are made of."""

from __future__ import annotations

PUBLIC = 'method=~"/ndml[.]v1[.](Memory|Chat)Service/.+"'
"""Calls that users make: what operators ask, and what services ask each other, is no promise to anybody."""

PROMPT = 'method=~"/ndml[.]v1[.]MemoryService/(AddMemory|SearchMemories|GetMemory|UpdateMemory|DeleteMemory|ReinforceMemories)"'
"""Calls of users that are answered at once: batches, streams and chats take as long as they take."""

OUR_FAULT = (
    'reason=~"OWNER_UNAVAILABLE|MODEL_UNAVAILABLE|STORE_UNAVAILABLE|DRAINING|DEADLINE_EXCEEDED|INTERNAL|OVERLOADED|LEARNING_BACKLOG"'
)
"""Failures that the suite has to answer for; a caller's mistake is not among them."""


def calls(selector: str, window: str, by: str) -> str:
    """Calls a second, with those that were turned away before they were read."""
    counted = f"sum by ({by}) (rate(ndml_rpc_duration_seconds_count{{{selector}}}[{window}]))"
    turned_away = f"sum by ({by}) (rate(ndml_rpc_turned_away_total{{{selector}}}[{window}]))"
    return f"({counted} + ({turned_away} or 0 * {counted}))"


def failures(selector: str, faults: str, window: str, by: str) -> str:
    """Calls a second that failed for one of `faults`, 0 where there are calls and none failed."""
    failed = f"sum by ({by}) (rate(ndml_rpc_errors_total{{{selector},{faults}}}[{window}]))"
    return f"({failed} or 0 * {calls(selector, window, by)})"


def quantile(q: float, histogram: str, selector: str, window: str, by: str = "") -> str:
    """The q-quantile of a histogram over the window, in the histogram's unit."""
    grouping = f"le, {by}" if by else "le"
    braces = f"{{{selector}}}" if selector else ""
    return f"histogram_quantile({q}, sum by ({grouping}) (rate({histogram}_bucket{braces}[{window}])))"


def grew(counter: str, window: str) -> str:
    """Above 0 where a counter has grown in the window, or has come into being above 0: `increase` alone misses a first one."""
    return f"(increase({counter}[{window}]) > 0 or ({counter} > 0 unless {counter} offset {window}))"
