"""A simulation's logs are its outcome: silent while it runs, and as they were for whoever comes after it in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.sim.world import quiet


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    configured, before = structlog.is_configured(), structlog.get_config()
    quiet()
    yield
    structlog.reset_defaults()
    if configured:
        structlog.configure(**before)
