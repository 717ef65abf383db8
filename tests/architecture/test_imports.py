"""The floors, by import-linter's graph and by what a fresh interpreter really loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TENSORS = ["torch", "faiss", "transformers", "sentence_transformers"]
# What .importlinter names; empty modules of these names are a house that keeps every rule.
MODULES = [
    *("ndml.v1", "ndml.internal", "ndml.errors", "ndml.disk", "ndml.wire", "ndml.contents"),
    *("ndml.placement", "ndml.btsp", "ndml.language", "ndml.crdt", "ndml.fusion", "ndml.tiny", "ndml.training"),
    *("ndml.runtime", "ndml.client", "ndml.cli", "ndml.mcp", "ndml.testing", "ndml.integrated"),
    *("services.gateway", "services.memory_node", "services.consensus", "services.llm"),
]


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    command = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command; lint_imports_command()"
    arguments = [sys.executable, "-c", command, "--config", str(ROOT / ".importlinter"), "--no-cache"]
    return subprocess.run(arguments, cwd=directory, capture_output=True, text=True, timeout=120, check=False)


def build_house(directory: Path, module: str, text: str) -> Path:
    """Empty packages of the right names, with `text` in `module`."""
    for name in ["ndml", "services", *MODULES]:
        package = directory.joinpath(*name.split("."))
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(text if name == module else "")
    return directory


def test_the_floors_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "text", "contract"),
    [
        ("ndml.runtime", "import ndml.client", "F0 stubs"),
        ("ndml.v1", "import ndml.errors", "F0 stubs"),
        ("ndml.placement", "import ndml.runtime", "F0 stubs"),
        ("ndml.testing", "import services.gateway", "F0 stubs"),
        ("services.gateway", "import services.llm", "Services never"),
        ("services.llm", "import ndml.client", "Services do not"),
        ("ndml.client", "import ndml.runtime", "The client"),
        ("ndml.client", "import numpy", "The client"),
        ("ndml.errors", "import grpc", "The pure floor"),
        ("ndml.placement", "import opentelemetry", "The pure floor"),
        ("ndml.btsp", "import google.protobuf", "The pure floor"),
        ("ndml.crdt", "import grpc", "The pure floor"),
        ("ndml.wire", "import pydantic", "The wire form"),
        ("services.gateway", "def late():\n    import torch", "Tensors stay"),
        ("services.consensus", "import faiss", "Tensors stay"),
        ("ndml.runtime", "import transformers", "Tensors stay"),
    ],
)
def test_an_import_upward_is_caught(tmp_path: Path, module: str, text: str, contract: str) -> None:
    done = lint(build_house(tmp_path, module, text))
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [line for line in done.stdout.splitlines() if line.endswith(" BROKEN")]
    assert any(line.startswith(contract) for line in broken), done.stdout


def test_an_empty_house_keeps_the_floors(tmp_path: Path) -> None:
    done = lint(build_house(tmp_path, "", ""))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("services.gateway.main", TENSORS),
        ("services.consensus.main", TENSORS),
        ("ndml.cli", TENSORS),
        ("ndml.runtime.service", TENSORS),
        ("ndml.client", [*TENSORS, "opentelemetry", "pydantic", "numpy", "structlog", "prometheus_client", "yaml"]),
        ("ndml.errors", [*TENSORS, "grpc", "google", "opentelemetry", "kubernetes", "pydantic"]),
        ("ndml.btsp.state", [*TENSORS, "grpc", "google", "opentelemetry", "kubernetes", "pydantic"]),
        ("ndml.btsp.consolidation", [*TENSORS, "grpc", "google", "scipy", "sklearn", "nir", "snntorch"]),
        ("ndml.crdt.record", [*TENSORS, "grpc", "google", "opentelemetry", "kubernetes", "pydantic", "triton", "sqlite3"]),
        ("ndml.placement", [*TENSORS, "grpc", "google", "opentelemetry", "kubernetes", "pydantic"]),
    ],
)
def test_what_a_fresh_interpreter_loads(module: str, forbidden: list[str]) -> None:
    script = f"import sys, {module}; print(*sorted({{n.partition('.')[0] for n in sys.modules}} & set({forbidden!r})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
