from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ndml.cli.app import run

_PATH = Path(__file__).parent.parent / "client" / "memory_server.py"
_SPEC = importlib.util.spec_from_file_location("memory_server", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def server() -> Iterator[Any]:
    started = _MODULE.MemoryServer()
    yield started
    started.stop()


@pytest.fixture
def ndml(server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs one command line as user ann against the server, in this process."""
    monkeypatch.setenv("NDML_ADDRESS", server.address)
    monkeypatch.setenv("NDML_USER", "ann")
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments: str) -> Done:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return command
