"""From episodes to what they have in common: clusters of traces that say the same, each summed up by one semantic trace.

A cluster is merged only where it helps generalisation (Sun et al. 2023): where the mean of the others predicts each member better than the
mean of everything does, R2 = 1 - sum |x_i - c_-i|^2 / sum |x_i - g|^2 above a threshold, and where no two members contradict. Members are
kept, named in the semantic trace, and can be set free again. Everything is a function of the set of traces: two nodes that hold the same
traces make the same object with the same id, in whatever order the rows came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ndml.btsp.contradiction import among
from ndml.btsp.salience import content_words
from ndml.errors import EmbeddingNotFinite, FieldInvalid

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Edge = tuple[float, int, int]
Contradiction = Callable[[str, str], str | None]
_NONE = -2.0  # below every cosine


@dataclass(frozen=True, slots=True)
class ConsolidationOptions:
    """When traces are merged, and how much one plan may take."""

    related: float = 0.85
    """Cosine from which two traces are candidates: `related` of the gate's profile for all-MiniLM-L6-v2. Merging from there on costs no
    recall that could be measured; from .80 on it costs 3 points of R@10, from .75 on seven (docs/science/ablation.md)."""
    least_r2: float = 0.3
    """Leave-one-out R2 above which a cluster predicts its members (Go-CLS)."""
    most_members: int = 16
    """Traces of one cluster: single links chain without end, and a summary of more sums up nothing."""
    neighbours: int = 64
    """Links of a trace that are looked at, nearest first: bounds memory at n * neighbours. Several times `most_members`, so that what is
    left after some clusters were merged still falls into the clusters that one run would have made."""
    most_traces: int = 20_000
    """Traces of one plan; the search for neighbours is quadratic: 10,000 take a second or two on one core."""
    text_bytes: int = 2_000
    """Length of a semantic trace's text, UTF-8: about what fits an embedding model's window."""
    block: int = 512
    """Rows compared at once: 512 x 20,000 float32 are 40 MB."""

    def __post_init__(self) -> None:
        if not -1.0 <= self.related <= 1.0 or not self.least_r2 <= 1.0:
            raise FieldInvalid("related is a cosine, least_r2 at most 1", field="consolidation.related")
        if self.most_members < 2 or min(self.neighbours, self.most_traces, self.text_bytes, self.block) < 1:
            raise FieldInvalid("most_members at least 2, other bounds at least 1", field="consolidation.most_members")


@dataclass(frozen=True, slots=True)
class Episodes:
    """The traces of one owner that may be consolidated: n rows."""

    trace_ids: Sequence[bytes]
    """16 bytes each, distinct."""
    texts: Sequence[str]
    vectors: F32
    """[n, d], unit."""
    priority: F64
    """[n], see `priority`; decides the order of clusters, not what they are."""
    links: Sequence[tuple[bytes, bytes]] = ()
    """Merge links that the gate wrote (RELATED at or above `related`): candidates even where the vectors were re-embedded since."""

    def __post_init__(self) -> None:
        rows = len(self.trace_ids)
        if self.vectors.ndim != 2 or not len(self.texts) == len(self.vectors) == len(self.priority) == rows:
            raise FieldInvalid("give one text, one vector and one priority for each trace id", field="episodes")
        if len(set(self.trace_ids)) != rows:
            raise FieldInvalid("a trace id stands twice: give each trace once", field="episodes.trace_ids")
        if not (np.isfinite(self.vectors).all() and np.isfinite(self.priority).all()):
            raise EmbeddingNotFinite("a vector or a priority holds NaN or infinity", field="episodes.vectors")


@dataclass(frozen=True, slots=True)
class SemanticTrace:
    """What a cluster becomes. `members` are sorted; `trace_id` is theirs, not the moment's."""

    trace_id: bytes
    text: str
    vector: F32
    members: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """One candidate: sorted member ids, leave-one-out R2, and what to do with it. `semantic` is None where it is refused."""

    members: tuple[bytes, ...]
    r2: float
    priority: float
    semantic: SemanticTrace | None
    why: str


def priority(need: F64, retrievability: F64, salience: F64) -> F64:
    """What to consolidate first [n]: need x (1 - R) x salience: often wanted, about to be lost, and worth keeping. NaN R counts as 0."""
    known = np.nan_to_num(np.asarray(retrievability, np.float64), nan=0.0)
    return np.asarray(np.maximum(need, 0.0) * (1.0 - np.clip(known, 0.0, 1.0)) * salience, np.float64)


def plan(episodes: Episodes, options: ConsolidationOptions | None = None, contradicting: Contradiction | None = None) -> Iterator[Cluster]:
    """Candidate clusters, most urgent first, refused ones included with the reason. Lazy: a caller that stops has paid for what it took.

    `contradicting(old, new)` says what two texts disagree about; None: `ndml.btsp.contradiction`.

    The neighbour search is done before the first cluster comes. Raises FieldInvalid for more traces than `most_traces`.
    """
    chosen = options or ConsolidationOptions()
    if len(episodes.trace_ids) > chosen.most_traces:
        raise FieldInvalid(f"{len(episodes.trace_ids)} traces, at most {chosen.most_traces} a plan: give a part of them", field="episodes")
    ordered = _canonical(episodes)
    groups = _components(_edges(ordered, chosen), len(ordered.trace_ids), chosen.most_members)
    mean = ordered.vectors.mean(axis=0, dtype=np.float64) if groups else np.zeros(0)
    ranked = sorted(groups, key=lambda rows: (-float(ordered.priority[rows].mean()), ordered.trace_ids[rows[0]]))
    return (_judged(ordered, rows, mean, chosen, contradicting) for rows in ranked)


def semantic_id(members: Sequence[bytes]) -> bytes:
    """16 bytes out of the set of member ids: the same on every node, another for any other set."""
    return hashlib.sha256(b"".join(sorted(members))).digest()[:16]


def leave_one_out_r2(vectors: F64, mean: F64) -> float:
    """How well the others of a cluster [m, d], m >= 2, predict each member, against predicting `mean` [d] for all; 1 is perfectly.

    minus infinity where all members lie on the mean: there is nothing to predict.
    """
    count = len(vectors)
    others = (vectors.sum(axis=0) - vectors) / (count - 1)
    spread = float(((vectors - mean) ** 2).sum())
    return 1.0 - float(((vectors - others) ** 2).sum()) / spread if spread > 0 else -np.inf


def _canonical(episodes: Episodes) -> Episodes:
    """Rows in order of their ids: from here on, floats come out the same whatever the order they came in."""
    order = sorted(range(len(episodes.trace_ids)), key=episodes.trace_ids.__getitem__)
    return replace(
        episodes,
        trace_ids=[episodes.trace_ids[row] for row in order],
        texts=[episodes.texts[row] for row in order],
        vectors=np.ascontiguousarray(episodes.vectors[order], np.float32),
        priority=np.asarray(episodes.priority, np.float64)[order],
    )


def _edges(episodes: Episodes, options: ConsolidationOptions) -> list[Edge]:
    """(-cosine, i, j) with i < j: near neighbours and links, strongest first."""
    rows = {trace_id: row for row, trace_id in enumerate(episodes.trace_ids)}
    # A link to a trace that is not among these leads nowhere.
    linked = {(min(rows[a], rows[b]), max(rows[a], rows[b])) for a, b in episodes.links if a in rows and b in rows and a != b}
    found = {(i, j): round(float(episodes.vectors[i] @ episodes.vectors[j]), 5) for i, j in linked}
    for start in range(0, len(rows), options.block):
        found.update(_block_edges(episodes.vectors, start, options))
    return sorted((-cosine, i, j) for (i, j), cosine in found.items())


def _block_edges(vectors: F32, start: int, options: ConsolidationOptions) -> dict[tuple[int, int], float]:
    """Edges from rows of one block to later rows, the triangle above the diagonal: each pair once, at most `neighbours` from a row."""
    block = vectors[start : start + options.block]
    # Rounded: BLAS may add in another order on another machine, and what lies at the threshold should still fall on one side.
    cosines = np.round(block @ vectors[start:].T, 5)  # [b, n - start]
    cosines[:, : len(block)][np.tri(len(block), dtype=bool)] = _NONE
    crowded = np.flatnonzero((cosines >= options.related).sum(axis=1) > options.neighbours)
    if crowded.size:
        rows = cosines[crowded]
        nearest = np.argpartition(-rows, options.neighbours - 1, axis=1)[:, : options.neighbours]
        cosines[crowded] = _NONE
        cosines[crowded[:, None], nearest] = np.take_along_axis(rows, nearest, axis=1)
    return {(start + int(i), start + int(j)): float(cosines[i, j]) for i, j in np.argwhere(cosines >= options.related)}


def _components(edges: list[Edge], count: int, most: int) -> list[list[int]]:
    """Connected components of two rows and more, rows ascending; an edge that would join more than `most` rows is left out."""
    parent, size = list(range(count)), [1] * count

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for _, i, j in edges:
        a, b = sorted((root(i), root(j)))
        if a != b and size[a] + size[b] <= most:
            parent[b] = a
            size[a] += size[b]
    groups: dict[int, list[int]] = {}
    for row in sorted({row for _, i, j in edges for row in (i, j)}):
        groups.setdefault(root(row), []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def _judged(episodes: Episodes, rows: list[int], mean: F64, options: ConsolidationOptions, contradicting: Contradiction | None) -> Cluster:
    vectors = episodes.vectors[rows].astype(np.float64)
    members = tuple(episodes.trace_ids[row] for row in rows)
    r2, urgency = leave_one_out_r2(vectors, mean), float(episodes.priority[rows].mean())
    if not r2 > options.least_r2:
        return Cluster(
            members, r2, urgency, None, f"refused: R2 {r2:.2f} <= {options.least_r2:.2f}, the cluster does not predict its members"
        )
    texts = [episodes.texts[row] for row in rows]
    contradiction = contradicting or among(texts)
    for old, new in combinations(texts, 2):
        # Which of two is newer is not known here: a contradiction in either direction counts.
        if found := contradiction(old, new) or contradiction(new, old):
            return Cluster(members, r2, urgency, None, f"refused: members contradict ({found})")
    merged = _semantic(members, texts, vectors, options)
    return Cluster(members, r2, urgency, merged, f"merged {len(rows)} traces: R2 {r2:.2f} > {options.least_r2:.2f}")


def _semantic(members: tuple[bytes, ...], texts: list[str], vectors: F64, options: ConsolidationOptions) -> SemanticTrace:
    centroid = vectors.mean(axis=0)
    unit = (centroid / np.linalg.norm(centroid)).astype(np.float32)
    # Rounded, so that members which differ by less than floats do keep the order of their ids.
    nearest_first = np.argsort(-np.round(vectors @ centroid, 9), kind="stable")
    return SemanticTrace(semantic_id(members), _extract([texts[int(row)] for row in nearest_first], options.text_bytes), unit, members)


def _extract(texts: list[str], most_bytes: int) -> str:
    """The first text, then each that adds a content word not yet said, one a line, as long as there is room. Nothing is rephrased."""
    said: set[str] = set()
    lines: list[str] = []
    room = most_bytes
    for text in texts:
        new = set(content_words(text)) - said
        size = len(text.encode()) + 1
        if (new or not lines) and (size <= room + 1 or not lines):
            lines.append(text)
            said |= new
            room -= size
    return "\n".join(lines).encode()[:most_bytes].decode(errors="ignore")
