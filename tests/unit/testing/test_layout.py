"""The plan of a suite: names, ports and settings, before anything starts."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from ndml.errors import FieldInvalid
from ndml.testing import Suite, SuiteOptions, free_ports
from ndml.testing.layout import copies_of, plan


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_free_ports_says_when_there_are_not_enough() -> None:
    with pytest.raises(FieldInvalid) as caught:
        free_ports(100_000)
    assert caught.value.violations[0].field == "count"


def test_every_process_gets_its_own_ports_and_directory(tmp_path: Path) -> None:
    layout = plan(SuiteOptions(data_dir=tmp_path, gateways=2))
    ports = [port for spec in layout.processes for port in (spec.port, spec.metrics_port, spec.rest_port) if port]
    assert len(ports) == len(set(ports)) == 2 * len(layout.processes) + 2
    assert [spec.name for spec in layout.processes] == [
        *("consensus-1", "consensus-2", "consensus-3", "llm", "memory-node-1", "memory-node-2", "gateway-1", "gateway-2")
    ]
    directories = [value for spec in layout.processes for key, value in spec.environment.items() if key.endswith("DATA_DIR")]
    assert len(directories) == len(set(directories)) == 5
    assert all(Path(directory).is_relative_to(tmp_path) for directory in directories)


def test_usual_ports_are_the_documented_ones(tmp_path: Path) -> None:
    layout = plan(SuiteOptions(data_dir=tmp_path, usual_ports=True))
    assert [(spec.name, spec.port, spec.rest_port) for spec in layout.of_role("gateway")] == [("gateway-1", 7700, 7780)]
    assert [spec.port for spec in layout.of_role("memory-node")] == [7710, 7711]
    assert [spec.port for spec in layout.of_role("consensus")] == [7720, 7721, 7722]
    assert [spec.port for spec in layout.of_role("llm")] == [7730]


def test_consensus_nodes_know_members_and_peers(tmp_path: Path) -> None:
    layout = plan(SuiteOptions(data_dir=tmp_path))
    nodes = layout.of_role("consensus")
    for spec in nodes:
        lists = {key.rsplit("__", 1)[1]: json.loads(value) for key, value in spec.environment.items() if value.startswith("[")}
        assert lists["MEMBERS"] == ["memory-node-1", "memory-node-2"]
        assert lists["PEERS"] == [node.address for node in nodes]


def test_settings_of_a_role_win_over_the_plan(tmp_path: Path) -> None:
    layout = plan(SuiteOptions(data_dir=tmp_path, settings={"gateway": {"LOGGING__LEVEL": "debug"}}))
    assert layout.of_role("gateway")[0].environment["NDML_GATEWAY__LOGGING__LEVEL"] == "debug"
    assert layout.of_role("llm")[0].environment["NDML_LLM__LOGGING__LEVEL"] == "info"


@pytest.mark.parametrize("field", ["gateways", "memory_nodes", "consensus_nodes"])
@pytest.mark.parametrize("count", [0, 11])
def test_counts_out_of_range_name_the_field(field: str, count: int) -> None:
    with pytest.raises(FieldInvalid) as caught:
        plan(SuiteOptions(**{field: count}))  # type: ignore[arg-type]
    assert caught.value.violations[0].field == field


def test_an_unknown_process_is_refused_with_the_known_names(tmp_path: Path) -> None:
    suite = Suite(SuiteOptions(data_dir=tmp_path, llm=False))
    with pytest.raises(FieldInvalid, match="memory-node-2"):
        suite.kill("memory-node-9")


def test_copies_and_zones_are_dealt_out(tmp_path: Path) -> None:
    options = SuiteOptions(data_dir=tmp_path, memory_nodes=3, replication_factor=2, write_copies=1, zones=["a", "b"])
    layout = plan(options)
    zones = {spec.name: spec.environment.get(f"NDML_{spec.role.replace('-', '_').upper()}__SERVER__ZONE") for spec in layout.processes}
    assert [zones[f"memory-node-{n}"] for n in (1, 2, 3)] == ["a", "b", "a"] == [zones[f"consensus-{n}"] for n in (1, 2, 3)]
    assert zones["gateway-1"] is None
    assert {spec.environment["NDML_CONSENSUS__CLUSTER__REPLICATION_FACTOR"] for spec in layout.of_role("consensus")} == {"2"}
    assert layout.of_role("gateway")[0].environment["NDML_GATEWAY__QUORUM__WRITE"] == "1"
    assert [copies_of(SuiteOptions(memory_nodes=nodes)) for nodes in (1, 2, 3, 5)] == [1, 1, 3, 3]


def test_node_profiles_are_dealt_out_to_memory_nodes(tmp_path: Path) -> None:
    layout = plan(SuiteOptions(data_dir=tmp_path, memory_nodes=3, profiles=["general", "code"]))
    found = [spec.environment.get("NDML_MEMORY_NODE__HEARTBEAT__PROFILE") for spec in layout.of_role("memory-node")]
    assert found == ["general", "code", "general"]
    assert not any("PROFILE" in key for spec in plan(SuiteOptions(data_dir=tmp_path)).processes for key in spec.environment)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (SuiteOptions(memory_nodes=2, replication_factor=3), "replication_factor"),
        (SuiteOptions(memory_nodes=3, replication_factor=-1), "replication_factor"),
        (SuiteOptions(memory_nodes=2, write_copies=2), "write_copies"),
    ],
)
def test_more_copies_than_nodes_are_refused(options: SuiteOptions, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        plan(options)
    assert caught.value.violations[0].field == field
