"""Settings: defaults < file < environment, unknown keys refused in one clear line, every knob with its reason, secrets hidden."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from ndml.runtime.settings import LogSettings, ServiceSettings, load_settings, parse_command_line, render_config

SERVICES = ["gateway", "memory_node", "consensus", "llm"]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def make(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return make


def refused(capsys: pytest.CaptureFixture[str], cls: type[ServiceSettings], path: Path | None) -> list[str]:
    """Lines that a refusal prints; its exit code is 2."""
    with pytest.raises(SystemExit) as caught:
        load_settings(cls, path)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_environment_wins_over_file_and_file_over_default(sample: ModuleType, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("server: {port: 1234, drain_s: 2.5}\nlogging: {level: debug}\n")
    monkeypatch.setenv("NDML_SAMPLE__SERVER__PORT", "4321")
    loaded = load_settings(sample.SampleSettings, path)
    assert (loaded.server.port, loaded.server.drain_s, loaded.logging.level) == (4321, 2.5, "debug")
    assert loaded.server.grace_s == ServiceSettings().server.grace_s
    assert loaded.logging.file_backups == LogSettings().file_backups


def test_an_unknown_key_in_the_file_is_one_line(sample: ModuleType, write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    [line] = refused(capsys, sample.SampleSettings, write("server: {prot: 1}\n"))
    assert line.startswith("config: server.prot: ")
    [line] = refused(capsys, sample.SampleSettings, write("servr: {port: 1}\n"))
    assert line.startswith("config: servr: ")


@pytest.mark.parametrize("name", ["NDML_SAMPLE__SERVR__PORT", "NDML_SAMPLE__SERVER__PROT"])
def test_an_unknown_variable_is_one_line(
    sample: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    [line] = refused(capsys, sample.SampleSettings, None)
    assert re.search("servr|prot", line, re.IGNORECASE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server: {port: 70000}\n", "server.port"),
        ("server: {port: many}\n", "server.port"),
        ("server: [", "settings.yaml"),
        ("logging: {level: loud}\n", "logging.level"),
    ],
)
def test_a_wrong_value_names_its_key(sample: ModuleType, write: Any, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    [line] = refused(capsys, sample.SampleSettings, write(text))
    assert line.startswith("config: ") and says in line


def test_a_missing_file_is_named(sample: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    [line] = refused(capsys, sample.SampleSettings, tmp_path / "absent.yaml")
    assert line.endswith("absent.yaml is not a file")


def test_print_config_shows_reasons_hides_secrets_and_can_be_read_back(
    sample: ModuleType, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("marker: {token: swordfish, directory: /tmp}\nserver: {port: 99}\n")
    with pytest.raises(SystemExit) as caught:
        parse_command_line("ndml-sample", sample.SampleSettings, ["--config", str(path), "--print-config"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "swordfish" not in printed
    assert "# Address to listen on." in printed
    tree = yaml.safe_load(printed)
    assert (tree["server"]["port"], tree["marker"]["token"], tree["marker"]["directory"]) == (99, "**********", "/tmp")
    assert load_settings(sample.SampleSettings, write(printed)).server.port == 99


def settings_of(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{service}.settings")
    [cls] = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, ServiceSettings) and c.__module__ == module.__name__]
    return cls


def knobs(model: BaseModel, path: str = "") -> list[tuple[str, str, object]]:
    found: list[tuple[str, str, object]] = []
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        found.append((f"{path}{name}", info.description or "", value))
        if isinstance(value, BaseModel):
            found += knobs(value, f"{path}{name}.")
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_every_knob_of_every_service_has_its_reason_and_a_default(service: str) -> None:
    cls = settings_of(service)
    assert cls.model_config["env_prefix"] == f"NDML_{service.upper()}__"
    found = knobs(cls())
    assert len(found) > 20
    assert [path for path, reason, _ in found if len(reason) < 5 or not reason.endswith((".", "…"))] == []
    assert yaml.safe_load(render_config(cls()))


@pytest.mark.parametrize("service", SERVICES)
def test_what_looks_like_a_secret_is_one(service: str) -> None:
    named = [(path, value) for path, _, value in knobs(settings_of(service)()) if re.search(r"(secret|api_key|password|token)$", path)]
    assert all(isinstance(value, SecretStr) for _, value in named)
