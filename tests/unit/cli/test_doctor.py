"""What the doctor makes of a suite that some have left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ndml import __version__
from ndml.cli.doctor import Check, examine
from ndml.cli.session import Session
from ndml.client import ClusterStatus, NdmlClient, Placement, PlacementMember, ServiceStatus


def checks_of(server: Any, monkeypatch: pytest.MonkeyPatch, phase: str) -> dict[str, Check]:
    """The doctor's findings where memory node n1 does not answer and is in this phase."""
    alive = ServiceStatus("ndml-memory-node", "n0", "h:1", True, "", __version__, timedelta(), {})
    away = ServiceStatus("ndml-memory-node", "n1", "h:2", False, "nobody listens", "", timedelta(), {})
    members = (PlacementMember("n0", "h:1", "", "alive"), PlacementMember("n1", "h:2", "", "down", phase))
    monkeypatch.setattr(NdmlClient, "cluster_status", lambda *_, **__: ClusterStatus((alive, away), 7, True))
    monkeypatch.setattr(NdmlClient, "placement", lambda *_, **__: Placement(7, members, 1, ("n0",)))
    return {check.name: check for check in examine(Session(server.address), read_only=True)}


def test_who_has_left_for_good_is_missed_by_nobody(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left = checks_of(server, monkeypatch, "left")
    assert left["services"].ok and left["services"].detail == "1 answer" and left["owners"].ok
    missed = checks_of(server, monkeypatch, "active")
    assert missed["services"].ok is False and "n1: nobody listens" in missed["services"].detail and missed["owners"].ok is False
