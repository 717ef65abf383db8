"""Code blocks of our pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_READMES = ("deploy/helm/ndml/README.md", "deploy/k8s/README.md", "services/*/README.md", "examples/clients/**/README.md")
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*.md"),
        ROOT / "examples/curl.md",
        *(page for each in _READMES for page in ROOT.glob(each)),
    ]
)
SHELL = frozenset({"bash", "sh", "console"})
PROGRAMS = frozenset({"ndml", "make", "python", "python3", "helm", "kubectl", "docker", "pip", "curl", "eval", "kind"})
"""A block without a language is one of commands where its first word is one of these, behind a prompt or not."""

PROMPT = "$ "
"""Before each command of a session: the other lines are what is shown then."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_JOINT = frozenset({"|", "||", "&&", ";", "&"})


@dataclass(frozen=True, slots=True)
class Block:
    """One block of one page. `line`: where it begins. Of a session `text` has the commands and `shown` what they print."""

    page: Path
    line: int
    language: str
    text: str
    shown: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def program(word: str) -> str:
    """The program of a command's first word, however it is named: .venv/bin/ndml is ndml."""
    return word.rpartition("/")[2] if word.startswith((".venv/bin/", "./")) else word


def blocks(page: Path) -> Iterator[Block]:
    """All of a page, in order; those of commands without a language are "sh"."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        language, body = found[1], found[2]
        shown = ""
        if body.startswith(PROMPT):
            body, shown = session(body)
        if not language and body.split() and program(body.split()[0]) in PROGRAMS:
            language = "sh"
        yield Block(page, text.count("\n", 0, found.start()) + 1, language, body, shown)


def session(body: str) -> tuple[str, str]:
    """(commands, what is shown) of a terminal's session; a command goes on in the next line after a backslash."""
    typed, shown = [], []
    goes_on = False
    for line in body.splitlines(keepends=True):
        (typed if goes_on or line.startswith(PROMPT) else shown).append(line if goes_on else line.removeprefix(PROMPT))
        goes_on = (goes_on or line.startswith(PROMPT)) and line.rstrip("\n").endswith("\\")
    return "".join(typed), "".join(shown)


def commands(script: str) -> Iterator[list[str]]:
    """Words of each simple command of a script, comments gone. Raises ValueError where quotes do not close."""
    for line in re.sub(r"\\\n", " ", script).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word in _JOINT:
                if words:
                    yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words
