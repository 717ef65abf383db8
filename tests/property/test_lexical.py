"""Whatever is appended, removed and renumbered: the index scores as BM25 computed anew over the live rows."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.btsp.salience import word_set
from ndml.language.terms import terms
from services.memory_node.signals.lexical import LexicalOptions, Postings, TermCounts, counted

K1, B = 0.9, 0.75
WORDS = word_set("apple apples river Rivers rain's Oslo naïve 猫が好き мир the of what x 7 don’t 🙂 Ann’s")
# A few postings fill a tail or a segment: every size meets every other.
OPTIONS = st.builds(LexicalOptions, tail=st.sampled_from([1, 4, 9, 2048]), segment=st.sampled_from([1, 16, 1 << 20]))
TEXTS = st.lists(st.sampled_from(sorted(WORDS)), max_size=9).map(" ".join)
APPEND = st.tuples(st.just("append"), st.lists(TEXTS, max_size=6))
REMOVE = st.tuples(st.just("remove"), st.lists(st.integers(0, 99), max_size=4))
RENUMBER = st.tuples(st.just("renumber"), st.sampled_from(["dead", "some", "shuffled"]))
STEPS = st.lists(st.one_of(APPEND, APPEND, REMOVE, RENUMBER), max_size=25)


@dataclass
class Model:
    """Rows as they were said; None: removed."""

    rows: list[list[str] | None] = field(default_factory=list)

    @property
    def live(self) -> list[list[str]]:
        return [row for row in self.rows if row is not None]

    def idf(self, term: str) -> float:
        n, df = len(self.live), sum(term in row for row in self.live)
        return math.log(1 + (n - df + 0.5) / (df + 0.5))

    def scores(self, query: list[str]) -> list[float]:
        mean = sum(map(len, self.live)) / max(1, len(self.live))
        return [0.0 if row is None else self._score(Counter(row), query, mean) for row in self.rows]

    def _score(self, row: Counter[str], query: list[str], mean: float) -> float:
        length = row.total()
        return sum(
            self.idf(term) * row[term] * (K1 + 1) / (row[term] + K1 * (1 - B + B * length / mean)) for term in set(query) if row[term]
        )


def take(step: tuple[str, object], index: Postings, model: Model, random: np.random.Generator) -> None:
    kind, what = step
    if kind == "append":
        assert isinstance(what, list)
        index.append(what)
        model.rows += [terms(text) for text in what]
    elif kind == "remove":
        assert isinstance(what, list)
        rows = [row for row in what if row < len(model.rows)]
        index.remove(np.array(rows, np.int64))
        for row in rows:
            model.rows[row] = None
    else:
        keep = [row is not None and (what == "dead" or random.random() < 0.8) for row in model.rows]
        if what == "shuffled":
            # A removed row may also stay.
            keep = [kept or random.random() < 0.5 for kept in keep]
        places = random.permutation(sum(keep)) if what == "shuffled" else np.arange(sum(keep))
        new_rows = np.full(len(keep), -1, np.int64)
        new_rows[np.flatnonzero(keep)] = places
        index.renumber(new_rows)
        moved: list[list[str] | None] = [None] * sum(keep)
        for old, new in enumerate(new_rows.tolist()):
            if new >= 0:
                moved[new] = model.rows[old]
        model.rows = moved


def check(index: Postings, model: Model, query: list[str], k: int, allowed: list[bool] | None) -> None:
    right = model.scores(query)
    assert len(index) == len(right) and index.live == len(model.live)
    assert index.scores(query, np.arange(len(right))) == pytest.approx(right, abs=1e-4)
    assert index.idfs(query) == pytest.approx([model.idf(term) for term in query], abs=1e-4)
    scores, rows = index.search(query, k, None if allowed is None else np.array(allowed, np.bool_))
    fit = [row for row, score in enumerate(right) if score > 0 and (allowed is None or allowed[row])]
    best = sorted((right[row] for row in fit), reverse=True)[:k]
    assert scores == pytest.approx(best, abs=1e-4) and set(rows.tolist()) <= set(fit) and len(set(rows.tolist())) == len(rows)
    assert [right[row] for row in rows] == pytest.approx(best, abs=1e-4)
    ranks = list(zip((-scores).tolist(), rows.tolist(), strict=True))
    assert ranks == sorted(ranks)


@settings(max_examples=200, deadline=None)
@given(options=OPTIONS, steps=STEPS, text=TEXTS, k=st.integers(0, 12), seed=st.integers(0, 99), masked=st.booleans())
def test_the_index_is_bm25_over_the_live_rows(
    options: LexicalOptions, steps: list[tuple[str, object]], text: str, k: int, seed: int, masked: bool
) -> None:
    random = np.random.default_rng(seed)
    index, model, query = Postings(options), Model(), [*terms(text), "nowhere"]
    for step in steps:
        take(step, index, model, random)
        allowed = (random.random(len(model.rows)) < 0.7).tolist() if masked else None
        check(index, model, query, k, allowed)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, max_size=20), options=OPTIONS, cuts=st.lists(st.integers(0, 20), max_size=4))
def test_batches_do_not_matter(texts: list[str], options: LexicalOptions, cuts: list[int]) -> None:
    once, often = Postings(), Postings(options)
    once.append(texts)
    edges = [0, *sorted(cuts), len(texts)]
    for start, end in pairwise(edges):
        often.append_terms(counted(texts[start:end]))
    every = np.arange(len(texts))
    for word in WORDS:
        assert np.array_equal(once.scores(terms(word), every), often.scores(terms(word), every))


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, max_size=8))
def test_an_analysis_holds_every_term(texts: list[str]) -> None:
    found: TermCounts = counted(texts)
    assert found.lengths.tolist() == [len(terms(text)) for text in texts]
    assert found.distinct.tolist() == [len(set(terms(text))) for text in texts]
    assert len(found.hashes) == len(found.counts) == found.distinct.sum() and found.counts.sum() == found.lengths.sum()
