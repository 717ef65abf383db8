"""Papers do not lie about the tree: links lead somewhere, files, tests and make targets that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)]*)?\)")
PATH = re.compile(r"`((?:ndml|services|scripts|tests|docs|protos|examples)/[\w./-]+?)(?:::(\w+))?`")
MAKE = re.compile(r"\bmake ([a-z][a-z-]+)\b(?=[`\s;,.:)]|$)")
NOT_TARGETS = {"sure", "it", "a", "the", "there"}


def papers() -> list[Path]:
    found = [path for folder in ("docs", "services", "ndml", "examples", "tests") for path in (ROOT / folder).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *(path for path in found if "node_modules" not in path.parts)])


def broken_links(paper: Path, text: str) -> list[str]:
    return [
        target
        for target, _ in LINK.findall(text)
        if not target.startswith(("http://", "https://")) and not (paper.parent / target).exists()
    ]


def broken_paths(text: str) -> list[str]:
    broken = []
    for name, function in PATH.findall(text):
        path = ROOT / name
        if not path.exists() or (function and f"def {function}(" not in path.read_text()):
            broken.append(name)
    return broken


def targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


@pytest.mark.parametrize("paper", papers(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_paper_points_at_what_is_there(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    assert broken_links(paper, text) == []
    assert broken_paths(text) == []
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    assert set(MAKE.findall(code)) - NOT_TARGETS <= targets((ROOT / "Makefile").read_text())


def test_the_checks_find_what_is_broken() -> None:
    assert broken_links(ROOT / "README.md", "[a](docs/nothing.md) [b](https://example.org) [c](docs/adr#x)") == ["docs/nothing.md"]
    assert broken_paths("`ndml/none.py` `ndml/errors.py` `ndml/errors.py::leaves` `ndml/errors.py::twigs`") == [
        "ndml/none.py",
        "ndml/errors.py",
    ]
    assert MAKE.findall("make demo\nmake test TESTS=x; make bench-all") == ["demo", "test", "bench-all"]
    assert targets("demo: setup ## x\nPYTHON ?= x\n\t@echo no: y\n") == {"demo"}


def test_the_readme_has_what_a_newcomer_needs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for needed in (
        "make demo",
        "make test",
        "make run",
        "Python 3.11",
        "C compiler",
        "buf curl",
        "curl -s",
        "NdmlClient",
        "What comes next",
    ):
        assert needed in text, needed
