"""Pictures of docs/science: the pages' pictures exist and are drawn by somebody; the same code gives the same bytes; files stay small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.quality.science.plots import FOLDER, PICTURES, draw

LINK = re.compile(r"\]\(img/([\w.-]+)\)")
WITH_THEIR_TABLES = {"ablation.svg", "personal.png"}
"""Drawn by `make eval-ablation` and `make eval-personal`."""


def shown() -> set[str]:
    return {name for page in FOLDER.parent.glob("*.md") for name in LINK.findall(page.read_text(encoding="utf-8"))}


def test_every_picture_shown_is_drawn_and_every_drawn_one_is_kept_small() -> None:
    drawn = {f"{name}.png" for name in PICTURES}
    assert shown() <= drawn | WITH_THEIR_TABLES
    assert {name for name in drawn if (FOLDER / name).stat().st_size < 80_000} == drawn


@pytest.mark.parametrize("name", ["credit", "continual"])
def test_the_same_code_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    first = draw(name, tmp_path).read_bytes()
    assert first.startswith(b"\x89PNG")
    assert draw(name, tmp_path).read_bytes() == first
