"""Evidence keeps in step with the columns: rows that came, went and moved are as those of evidence built from what is left."""

from __future__ import annotations

import numpy as np

from ndml.language.terms import terms
from services.memory_node.columns import Columns
from services.memory_node.signals.evidence import Evidence, Said, evidence_bytes
from tests.unit.memory_node.signals.rows import columns_of, dropping, row

DIMENSION = 12
SPEAKERS = ["Ann", "assistant", "Bo", "Tool", ""]
TEXTS = ["What did Ann bake?", "a cake of plums", "¿dónde?", "no mark here", "完了？", "plum jam"]


def said(number: int) -> Said:
    rng = np.random.default_rng(number)
    return Said(SPEAKERS[number % 5], f"{TEXTS[number % 6]} {number}", rng.bytes(2 * (number % 4)))


def built(numbers: list[int]) -> tuple[Columns, Evidence]:
    columns = columns_of([row(n + 1, "ab"[n % 2], n, speaker=said(n).speaker) for n in numbers])
    evidence = Evidence(DIMENSION)
    evidence.append([said(n) for n in numbers], columns)
    return columns, evidence


def answers(columns: Columns, evidence: Evidence) -> list[object]:
    """All that a ranking reads of the living rows, by what they are called and not by their numbers."""
    rows = np.flatnonzero(columns.alive)
    sequences = columns.ints("sequence")
    query = np.random.default_rng(99).integers(-127, 128, (3, DIMENSION), dtype=np.int8)
    around = evidence.sessions.around(rows, 2, columns)
    _, found = evidence.postings.search(terms("plum cake"), 100)
    return [
        sequences[rows].tolist(),
        np.round(evidence.postings.scores(terms("plum cake 7"), rows), 5).tolist(),
        sequences[found].tolist(),
        np.round(evidence.words.similarities(query, rows), 5).tolist(),
        np.where(around >= 0, sequences[around], -1).tolist(),
        evidence.asks(rows).tolist(),
        evidence.assistant(rows).tolist(),
    ]


def test_form_of_a_turn() -> None:
    _, evidence = built(list(range(30)))
    rows = np.arange(30)
    assert evidence.asks(rows).tolist() == [n % 6 in (0, 2, 4) for n in range(30)]
    assert evidence.assistant(rows).tolist() == [n % 5 in (1, 3) for n in range(30)]


def test_rows_that_came_one_by_one_are_as_those_that_came_together() -> None:
    columns, evidence = Columns(), Evidence(DIMENSION)
    for n in range(40):
        columns.append([row(n + 1, "ab"[n % 2], n, speaker=said(n).speaker)])
        evidence.append([said(n)], columns)
    assert answers(columns, evidence) == answers(*built(list(range(40))))


def test_removal_and_renumbering_leave_what_evidence_of_the_others_has() -> None:
    columns, evidence = built(list(range(40)))
    left = list(range(40))
    for gone in ([0, 1, 39], [10, 11, 12, 13], [n for n in range(40) if n % 3 == 1]):
        rows = columns.rows_of([n + 1 for n in gone])
        columns.alive[rows] = False
        evidence.remove(rows, columns)
        left = [n for n in left if n not in gone]
        assert answers(columns, evidence) == answers(*built(left)), "removed, and still in their places"
        new_rows = dropping(columns.alive.tolist())
        columns.renumber(new_rows)
        evidence.renumber(new_rows)
        assert answers(columns, evidence) == answers(*built(left)), "places given up"
    more = [50, 51, 52]
    columns.append([row(n + 1, "ab"[n % 2], n, speaker=said(n).speaker) for n in more])
    evidence.append([said(n) for n in more], columns)
    assert answers(columns, evidence) == answers(*built(left + more))


def test_nothing_is_left_of_an_owner_without_rows() -> None:
    columns, evidence = built([1, 2, 3])
    rows = np.arange(3)
    columns.alive[rows] = False
    evidence.remove(rows, columns)
    columns.renumber(np.full(3, -1))
    evidence.renumber(np.full(3, -1))
    assert len(evidence.words) == len(evidence.postings) == 0
    columns.append([row(9, "a", 9)])
    evidence.append([said(4)], columns)
    assert evidence.asks(np.array([0])).tolist() == [True]


def test_bytes_are_counted() -> None:
    turn = " ".join(f"word{n}" for n in range(16))
    evidence, columns = Evidence(384), columns_of([row(n, "s", n) for n in range(1, 2001)])
    before = evidence.nbytes
    evidence.append([Said("Ann", turn, bytes(16 * 48))] * 2000, columns)
    assert evidence.nbytes - before > 2000 * 16 * 48
    assert evidence.nbytes < 2000 * 2 * evidence_bytes(384), "what a usual turn is taken to need is not far from what it needs"
