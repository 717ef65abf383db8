"""A short campaign and a short partition on real processes; `make eval-reliability` runs the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import campaign, fabric, partition, scenarios


@pytest.mark.xdist_group("crash")
def test_acknowledged_writes_survive_kills(tmp_path: Path) -> None:
    report = campaign.run(kills=3, seed=1, clients=3, data_dir=tmp_path)
    assert report.acked > 100 and not report.violations, report


@pytest.mark.xdist_group("crash")
@pytest.mark.skipif(bool(why := fabric.unavailable()), reason=why)
def test_a_partition_loses_nothing_and_heals(tmp_path: Path) -> None:
    report = partition.run("both", 6.0, 3, tmp_path)
    assert report.acked_while_apart > 20 and not report.violations, report


@pytest.mark.xdist_group("crash")
@pytest.mark.parametrize("scenario", [scenarios.wiped_disk, scenarios.drained_node], ids=lambda scenario: scenario.__name__)
def test_a_fault_is_survived(scenario: object) -> None:
    row = scenario()  # type: ignore[operator]
    assert row.held, row


@pytest.mark.xdist_group("crash")
def test_flipped_bytes_are_found_and_mended() -> None:
    row = scenarios.flipped_bytes(files=2)
    assert row.held, row
