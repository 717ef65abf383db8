"""Every code block in the documentation is what it says it is: data parses, scripts parse, and what they call exists with its options.

Those that can be run against a suite are, in tests/integration (test_guide.py, test_first_chat.py, test_shell_blocks.py,
test_json_blocks.py, test_trace_page.py).
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from ndml.cli.app import app
from ndml.runtime.settings import load_settings
from scripts.generate_config_docs import settings_class
from tests.contract.doc_blocks import PAGES, ROOT, SHELL, Block, blocks, commands, program

BLOCKS = [block for page in PAGES for block in blocks(page)]
LIVE = [block for block in BLOCKS if block.language in SHELL]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
NDML: Any = typer.main.get_command(app)


def of(*languages: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language in languages]


def test_there_are_blocks_of_each_kind() -> None:
    assert {"json", "yaml", "python", "bash", "sh"} <= {block.language for block in BLOCKS}
    assert len(LIVE) > 50


@pytest.mark.parametrize("block", of("json"))
def test_json_parses(block: Block) -> None:
    # An ellipsis after a comma stands for more of the same.
    json.loads(re.sub(r",\s*…", "", block.text))


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_parses(block: Block) -> None:
    assert all(document is not None for document in yaml.safe_load_all(block.text))


def _settings(block: Block, at: Path) -> None:
    """Some service takes it as its whole configuration."""
    file = at / "config.yaml"
    file.write_text(block.text)
    refused = []
    for service in ("gateway", "memory_node", "consensus", "llm"):
        try:
            load_settings(settings_class(service), file)
            return
        except SystemExit as error:
            refused.append(error)
    raise AssertionError(f"no service takes {block}")


def _object(block: Block, at: Path) -> None:
    kubernetes_validate.validate(yaml.safe_load(block.text), "1.37", strict=True)


def _kustomization(block: Block, at: Path) -> None:
    """Built beside overlays/dev, where the page says that it stands."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    tree = shutil.copytree(ROOT / "deploy/k8s", at / "k8s")
    own = tree / "overlays/mine"
    own.mkdir()
    (own / "kustomization.yaml").write_text(block.text)
    done = subprocess.run(["kubectl", "kustomize", str(own)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "image: registry.example.com/ndml-gateway:0.1.0" in done.stdout


def _prometheus(block: Block, at: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not here: apt-get install prometheus")
    file = at / "prometheus.yaml"
    file.write_text(block.text.replace("[deploy/", f"[{ROOT}/deploy/"))
    done = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _adapter(block: Block, at: Path) -> None:
    """prometheus-adapter's rules: its series are those that the chart's autoscalers ask for."""
    [rule] = yaml.safe_load(block.text)["rules"]["custom"]
    [named] = re.findall(r'__name__=~"([^"]+)"', rule["seriesQuery"])
    values = yaml.safe_load((ROOT / "deploy/helm/ndml/values.yaml").read_text())
    asked = {metric["name"] for component in ("gateway", "llm") for metric in values[component]["autoscaling"]["podMetrics"]}
    assert asked and all(re.fullmatch(named, name) for name in asked)
    assert {"namespace", "pod"} == set(rule["resources"]["overrides"])


YAML_IS = {
    "docs/operations/kubernetes-discovery.md": _settings,
    "docs/operations/security.md": _settings,
    "docs/operations/replication.md": _object,
    "docs/operations/kubernetes.md": _adapter,
    "docs/operations/observability.md": _prometheus,
    "deploy/k8s/README.md": _kustomization,
}


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_is_taken_by_whom_it_is_for(block: Block, tmp_path: Path) -> None:
    YAML_IS[block.page.relative_to(ROOT).as_posix()](block, tmp_path)


@pytest.mark.parametrize("block", [block for block in of("", *SHELL) if re.search(r"\bNDML_[A-Z_]+?__", block.values[0].text)])
def test_settings_in_the_environment_of_a_block_exist(block: Block) -> None:
    known = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", (ROOT / "docs/reference/configuration.md").read_text(), re.MULTILINE))
    named = re.findall(r"\bNDML_(?:GATEWAY|MEMORY_NODE|CONSENSUS|LLM)__([A-Z0-9_]+)=", block.text)
    assert [name for name in named if name.lower().replace("__", ".") not in known] == []


@pytest.mark.parametrize("block", of("python"))
def test_python_parses_and_its_names_can_be_imported_from_us(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ndml":
            # Looked up in the source: importing some of these loads torch.
            spec = importlib.util.find_spec(str(node.module))
            assert spec is not None and spec.origin is not None, node.module
            source = Path(spec.origin).read_text(encoding="utf-8")
            assert [each.name for each in node.names if not re.search(rf"\b{each.name}\b", source)] == []


@pytest.mark.parametrize("block", of(*SHELL))
def test_a_script_parses(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", of(*SHELL))
def test_what_a_script_calls_exists(block: Block) -> None:
    assert [fault for words in commands(block.text) for fault in faults(words)] == []


def test_a_command_that_is_not_there_is_found() -> None:
    for script, told in (
        ("make dinner", "make dinner"),
        ("ndml serch 'x'", "ndml serch"),
        ("ndml search 'x' --usr ann", "--usr"),
        ("python -m tests.perf.no_such_thing", "tests.perf.no_such_thing"),
        ("python -m tests.perf.capacity --makrdown x", "--makrdown"),
        ("OUT=x python scripts/no_such_thing.py", "scripts/no_such_thing.py"),
        ("helm install ndml deploy/helm/ndlm", "deploy/helm/ndlm"),
        ("kubectl apply -k deploy/k8s/overlays/staging | cat", "deploy/k8s/overlays/staging"),
    ):
        found = [fault for words in commands(script) for fault in faults(words)]
        assert len(found) == 1 and told in found[0], (script, found)


def faults(words: Sequence[str]) -> list[str]:
    """What is wrong with one command, as far as this repository knows it."""
    words = [*words]
    while words and re.match(r"\w+=", words[0]):
        words.pop(0)
    if not words:
        return []
    called, rest = program(words[0]), words[1:]
    known = {"make": _make, "ndml": _ndml, "python": _python, "python3": _python}.get(called)
    found = known(rest) if known else []
    return found + [f"{word}: no such file" for word in words if _is_ours(word) and not (ROOT / word).exists()]


def _is_ours(word: str) -> bool:
    """A path into the repository, not one with a gap to be filled in."""
    return bool(re.fullmatch(r"(?:deploy/(?:helm|k8s|compose)|scripts/|tests/|docs/|examples/|protos/|services/)[\w./-]*", word))


def _make(rest: Sequence[str]) -> list[str]:
    return [f"make {word}: no such target" for word in rest if "=" not in word and not word.startswith("-") and word not in TARGETS]


def _python(rest: Sequence[str]) -> list[str]:
    if not rest or rest[0] != "-m":
        return []
    name = rest[1]
    if not name.startswith(("ndml", "services", "scripts", "tests")):
        return []
    spec = importlib.util.find_spec(name)
    spec = importlib.util.find_spec(f"{name}.__main__") if spec is not None and spec.submodule_search_locations else spec
    if spec is None or spec.origin is None:
        return [f"{name}: no such module"]
    if name.startswith("services."):
        return [
            f"{name} {word}: no such option" for word in rest[2:] if word.startswith("--") and word not in ("--config", "--print-config")
        ]
    source = Path(spec.origin).read_text(encoding="utf-8")
    if "argparse" not in source and "typer" not in source:
        return []
    options = [word.partition("=")[0] for word in rest[2:] if word.startswith("--")]
    return [f"{name} {option}: no such option" for option in options if f'"{option}"' not in source]


def _ndml(rest: Sequence[str]) -> list[str]:
    command, at = NDML, 0
    words = list(rest)
    while at < len(words) and hasattr(command, "commands"):
        word = words[at]
        if word.startswith("-"):
            at += 2  # options of all commands take a value, but for --tls and --version, which no block has in front
            continue
        if word not in command.commands:
            # A group that is a command, too: `ndml export FILE` beside `ndml export nir`.
            return [] if command is not NDML else [f"ndml {word}: no such command"]
        command, at = command.commands[word], at + 1
    taken = {option for each in (NDML, command) for parameter in each.params for option in (*parameter.opts, *parameter.secondary_opts)}
    said = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [f"ndml {command.name} {option}: no such option" for option in said if option not in taken | {"--help"}]


@pytest.mark.parametrize("page", [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES])
def test_commands_in_sentences_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    said = re.findall(
        r"`(?:\.venv/bin/)?(make [a-z-]+|ndml [a-z]+|python -m (?:tests|services|scripts|ndml)(?:\.\w+)*)(?![.\w])[^`]*`", text
    )
    assert [fault for each in said for fault in faults(each.split())] == []


def test_every_page_means_the_same_namespace() -> None:
    """A command of a runbook finds the pods that the commands of the install page made."""
    ours = yaml.safe_load((ROOT / "deploy/k8s/base/kustomization.yaml").read_text())["namespace"]
    named = [
        (str(block), words[at + 1])
        for block in LIVE
        for words in commands(block.text)
        if program(words[0]) in ("kubectl", "helm")
        for at, word in enumerate(words[:-1])
        if word in ("-n", "--namespace") or words[at - 1 : at + 1] == ["create", "namespace"]
    ]
    assert len(named) > 20
    assert [each for each in named if each[1] != ours] == []


def test_values_in_the_deploy_guide_are_the_charts() -> None:
    values = yaml.safe_load((ROOT / "deploy/helm/ndml/values.yaml").read_text())
    named = re.findall(r"`([a-z]\w+(?:\.\w+)*)(?::[^`]*)?`", (ROOT / "docs/guide/deploy.md").read_text())
    paths = [path for path in named if path.partition(".")[0] in values]
    assert len(paths) > 15
    for path in paths:
        at = values
        for key in path.split("."):
            assert key in at, f"{path}: the chart has no such value"
            at = at[key]
