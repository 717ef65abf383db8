"""One suite for every test of doors that others' clients use: a real chat path, with a model whose answers can be told in advance."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ndml.testing import Suite, SuiteOptions
from ndml.testing.layout import Role
from tests.doors.model import NAME, ModelServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "doors" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("doors"))


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A small suite with the tenants default and acme. Use users of your own, and do not stop any process."""
    with ModelServer() as model:
        settings: dict[Role, dict[str, str]] = {
            "gateway": {"AUTH__TENANTS": json.dumps(["default", "acme"]), "REST__MODEL_ALIASES": json.dumps({"gpt-4o-mini": ""})},
            "llm": {"CHAT__MODEL": NAME, "CHAT__UPSTREAM_URL": model.url, "CHAT__RETRIES": "0"},
        }
        options = SuiteOptions(data_dir=tmp_path_factory.mktemp("doors"), memory_nodes=1, consensus_nodes=1, settings=settings)
        with Suite(options) as running:
            yield running
