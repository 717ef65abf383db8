"""The documentation as a site: pages that are made are current, the strict build passes, nothing in it comes from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if importlib.util.find_spec("material") is None:
    pytest.skip("mkdocs-material is not installed: make setup, or pip install mkdocs-material", allow_module_level=True)

from scripts import docs_hooks  # noqa: E402  it needs mkdocs


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NDML_")} | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("docs/reference/api.md", ["scripts/generate_api_docs.py", "{}"]),
        ("docs/operations/capacity.md", ["-m", "tests.perf.capacity", "--markdown", "{}"]),
    ],
)
def test_a_page_that_is_made_is_current(tmp_path: Path, page: str, command: list[str]) -> None:
    fresh = tmp_path / "page.md"
    done = run(*(part.format(fresh) for part in command))
    assert done.returncode == 0, done.stderr
    assert fresh.read_text(encoding="utf-8") == (ROOT / page).read_text(encoding="utf-8"), f"run {' '.join(command).format(page)}"


class Fetched(HTMLParser):
    """What a browser would fetch to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = {"script": "src", "img": "src", "link": "href", "iframe": "src"}.get(tag)
        self.urls += [value for key, value in attrs if key == name and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place))
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_the_strict_build_has_every_page(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")] + list(docs_hooks.elsewhere().values())
    made = {re.sub(r"(?:README|index)\.md$", "index.html", page).removesuffix(".md").removesuffix(".html") + ".html" for page in pages}
    assert {page for page in made if not (site / page).is_file()} == set()
    assert "project/services/gateway/index.html" in made and "operations/runbooks/NdmlMemoryNodeDown.html" in made


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.urls and [url for url in parser.urls if re.match(r"(?:\w+:)?//", url)] == [], page.name
        assert 'class="mermaid"' not in page.read_text(encoding="utf-8"), "the theme would load mermaid from a CDN"


def test_the_quickstart_has_the_readmes_calls(site: Path) -> None:
    shown = re.sub(r"<[^>]+>", "", (site / "guide/quickstart.html").read_text(encoding="utf-8"))
    for words in (
        "make demo",
        "MemoryService/AddMemory",
        "v1/memories:search",
        "from ndml.client import NdmlClient",
        "from openai import OpenAI",
        "ndml mcp",
    ):
        assert words in shown, words


@pytest.mark.parametrize(
    ("source", "shown_at", "link", "becomes"),
    [
        ("docs/operations/security.md", "operations/security.md", "[t](../../THREAT_MODEL.md#x)", "[t](../project/THREAT_MODEL.md#x)"),
        ("docs/reference/consistency.md", "reference/consistency.md", "[`s`](../../ndml/seen.py)", "`s`"),
        ("README.md", "project/README.md", "[r](docs/reference/rest.md)", "[r](../reference/rest.md)"),
        ("README.md", "guide/quickstart.md", "[s](docs/science)", "[s](../science/README.md)"),
        ("README.md", "project/README.md", "[p](protos/ndml/v1)", "p"),
        ("docs/recall.md", "recall.md", "[a](adr/0010-rank-by-every-signal.md)", "[a](adr/0010-rank-by-every-signal.md)"),
        ("docs/recall.md", "recall.md", "[n](nowhere.md) [e](https://example.com)", "[n](nowhere.md) [e](https://example.com)"),
        ("docs/recall.md", "recall.md", "```\n[a](../README.md)\n```\n", "```\n[a](../README.md)\n```\n"),
    ],
)
def test_links_work_where_a_page_is_shown(source: str, shown_at: str, link: str, becomes: str) -> None:
    assert docs_hooks.relinked(link, source, shown_at) == becomes


def test_a_section_ends_where_the_next_of_its_level_begins() -> None:
    page = "# A\n\n## One two\n\ntext\n\n### In it\n\n```\n# no heading\n```\n\n## Three\n\nelse\n"
    assert docs_hooks.section(page, "one-two") == "text\n\n### In it\n\n```\n# no heading\n```"
    with pytest.raises(LookupError):
        docs_hooks.section(page, "four")


def test_a_link_to_nothing_ends_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# A\n\n[gone](gone.md)\n")
    (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0].replace("[scripts/", f"[{ROOT}/scripts/"))
    done = run("-m", "mkdocs", "build", "--strict", "--config-file", str(tmp_path / "mkdocs.yml"), "--site-dir", str(tmp_path / "site"))
    assert done.returncode != 0 and "gone.md" in done.stderr + done.stdout


def test_a_star_in_nav_is_every_page_that_nothing_else_names() -> None:
    pages = ["a/one.md", "a/two.md", "a/deep/three.md", "b.md"]
    nav = [{"A": ["a/two.md", "a/*"]}, {"Deep": "a/deep/**"}, "b.md", "a/**"]
    named = set(docs_hooks._named(nav))
    assert list(docs_hooks._expanded(nav, named, pages)) == [
        {"A": ["a/two.md", "a/one.md"]},
        {"Deep": ["a/deep/three.md"]},
        "b.md",
        "a/one.md",
        "a/deep/three.md",
    ]
