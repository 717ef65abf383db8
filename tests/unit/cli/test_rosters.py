"""`ndml roster`: a file that nodes can be started with, made by the commands that the threat model names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndml.cli.app import run
from ndml.crdt import keys, roster


def test_a_roster_is_made_signed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, operator = str(tmp_path / "roster.json"), tmp_path / "operator.pem"
    other = keys.public_bytes(keys.load_or_create(tmp_path / "other.pem")).hex()
    for words in (["init", file], ["add", file, "n1", str(tmp_path / "n1.pem")], ["add", file, "n2", other, "--trust", "40"]):
        assert run(["roster", *words]) == 0
    assert run(["roster", "sign", file, str(operator)]) == 0
    capsys.readouterr()
    public = keys.public_bytes(keys.load(operator))
    made = roster.load(Path(file), public)
    assert {name: author.trust for name, author in made.authors.items()} == {"n1": 100, "n2": 40}
    assert made.authors["n1"].public_key == keys.public_bytes(keys.load(tmp_path / "n1.pem"))
    assert run(["roster", "remove", file, "n2"]) == 0
    capsys.readouterr()
    assert run(["-o", "json", "roster", "show", file]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["version"], shown["signed"], list(shown["authors"])) == (4, False, ["n1"])


@pytest.mark.parametrize(
    "words", [["init", "there"], ["add", "there", "n1", "there", "--trust", "101"], ["remove", "there", "nobody"], ["show", "missing"]]
)
def test_what_cannot_be_is_refused_with_exit_code_2(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["roster", "init", str(tmp_path / "there")]) == 0
    assert run(["roster", *[str(tmp_path / word) if word in ("there", "missing") else word for word in words]]) == 2
    assert "FIELD_INVALID" in capsys.readouterr().err
