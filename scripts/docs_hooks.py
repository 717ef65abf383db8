"""What mkdocs does for our pages beside rendering them, so that the same files read well on a git host and in the site.

- Pages that lie elsewhere (README.md, deploy/helm/ndml/README.md, ...) are in the site too, under project/.
- A link out of docs/ goes to such a page; one to a source file keeps its words and loses its link, for the site has no sources and
  nobody can know where the repository is hosted. A link to nothing is left as it is: the strict build refuses it.
- A line that is nothing but a link to a section of the README becomes that section.
- An entry of nav that ends in * is every page that begins so and that no other entry names, in that folder; with ** in those below it, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = ("*.md", "deploy/helm/ndml/README.md", "deploy/k8s/README.md", "services/*/README.md", "examples/*.md", "examples/**/README.md")
"""Pages outside of docs/ that the site has."""

PREFIX = "project/"
_FENCE = re.compile(r"^(?P<mark>```+|~~~+).*?^(?P=mark)\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_INCLUDE = re.compile(r"^\[[^\]]*\]\((?:\.\./)+README\.md#(?P<anchor>[\w-]+)\)$", re.MULTILINE)
_HEADING = re.compile(r"^(?P<level>#+) +(?P<words>.+?) *$", re.MULTILINE)


def elsewhere(root: Path = ROOT) -> dict[str, str]:
    """Path in the repository of each page outside of docs/, and its path in the site."""
    found = sorted(path.relative_to(root) for pattern in ELSEWHERE for path in root.glob(pattern))
    return {path.as_posix(): PREFIX + path.as_posix() for path in found if "node_modules" not in path.parts}


def slug(heading: str) -> str:
    """Anchor of a heading, as git hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def section(page: str, anchor: str) -> str:
    """Text below the heading with this anchor, up to the next one of its level. Raises LookupError."""
    shown = _FENCE.sub(lambda fence: re.sub("[^\n]", " ", fence[0]), page)  # a comment in a script is no heading
    headings = list(_HEADING.finditer(shown))
    for at, heading in enumerate(headings):
        if slug(heading["words"]) == anchor:
            ends = (later.start() for later in headings[at + 1 :] if len(later["level"]) <= len(heading["level"]))
            return page[heading.end() : next(ends, len(page))].strip()
    raise LookupError(f"README.md has no section #{anchor}")


def outside_code(page: str, change: Callable[[str], str]) -> str:
    """The page with what stands outside of code blocks changed."""
    parts, at = [], 0
    for fence in _FENCE.finditer(page):
        parts += [change(page[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(page[at:])])


def relinked(page: str, source: str, shown_at: str, root: Path = ROOT) -> str:
    """`page`, written at `source` of the repository, with links that work where the site shows it, at `shown_at`."""
    pages = elsewhere(root)

    def link(found: re.Match[str]) -> str:
        target = found["target"]
        if ":" in target or target.startswith("/"):
            return found[0]
        path = os.path.normpath((Path(source).parent / target).as_posix()).replace(os.sep, "/")
        if (root / path).is_dir():
            path = f"{path}/README.md" if (root / path / "README.md").is_file() else path
        if path in pages:
            place = pages[path]
        elif path.startswith("docs/") and (root / path).is_file() and not path.endswith(".py"):
            place = path.removeprefix("docs/")
        else:
            return found["words"] if (root / path).exists() and not found["image"] else found[0]
        here = os.path.relpath(place, Path(shown_at).parent.as_posix()).replace(os.sep, "/")
        return f"{found['image']}[{found['words']}]({here}{found['anchor'] or ''})"

    return outside_code(page, lambda text: _LINK.sub(link, text))


def _expanded(entry: Any, named: set[str], pages: list[str]) -> Iterator[Any]:
    if isinstance(entry, dict):
        [(title, value)] = entry.items()
        inside = list(_expanded(value, named, pages)) if isinstance(value, list) or str(value).endswith("*") else value
        yield {title: inside}
    elif isinstance(entry, list):
        for each in entry:
            yield from _expanded(each, named, pages)
    elif entry.endswith("*"):
        begins, deep = entry.rstrip("*"), entry.endswith("**")
        yield from (p for p in pages if p.startswith(begins) and p not in named and (deep or "/" not in p[len(begins) :]))
    else:
        yield entry


def _named(entry: Any) -> Iterator[str]:
    if isinstance(entry, dict):
        entry = list(entry.values())
    if isinstance(entry, list):
        for each in entry:
            yield from _named(each)
    else:
        yield entry


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    docs = Path(config.docs_dir)
    pages = sorted([path.relative_to(docs).as_posix() for path in docs.rglob("*.md")] + list(elsewhere().values()))
    if config.nav:
        config.nav = list(_expanded(config.nav, set(_named(config.nav)), pages))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, place in elsewhere().items():
        files.append(File.generated(config, place, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    shown_at = page.file.src_uri
    source = shown_at.removeprefix(PREFIX) if shown_at.startswith(PREFIX) else f"docs/{shown_at}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts, at = [], 0
    for include in _INCLUDE.finditer(markdown):
        parts += [
            relinked(markdown[at : include.start()], source, shown_at),
            relinked(section(readme, include["anchor"]), "README.md", shown_at),
        ]
        at = include.end()
    return "".join([*parts, relinked(markdown[at:], source, shown_at)])
