"""What becomes of a memory after it was written, as models: the gate's decision, strength, links, history, feedback, consolidation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ndml.errors import NdmlError


class WriteDecision(StrEnum):
    """What a new memory is to what its owner remembers already; unspecified: it was not gated."""

    UNSPECIFIED = "unspecified"
    NOVEL = "novel"
    DUPLICATE = "duplicate"
    UPDATE = "update"
    RELATED = "related"


class LifecycleState(StrEnum):
    """Stations of a memory. Archived: `get` reads it, `search` does not find it."""

    UNSPECIFIED = "unspecified"
    NEW = "new"
    ACTIVE = "active"
    AGING = "aging"
    CONSOLIDATING = "consolidating"
    CONSOLIDATED = "consolidated"
    ARCHIVED = "archived"
    EVICTED = "evicted"


class LinkType(StrEnum):
    """How one memory belongs to another."""

    UNSPECIFIED = "unspecified"
    RELATED = "related"
    DUPLICATES = "duplicates"
    SUPERSEDES = "supersedes"
    DERIVED_FROM = "derived_from"
    CAUSED_BY = "caused_by"
    CAUSES = "causes"
    ABOUT = "about"


class SearchMode(StrEnum):
    """How a search ranks; wherever one is asked for, its plain name does too."""

    FULL = "full"
    """Every signal: similarity, words, late interaction, and what stands around a memory in its session."""
    FAST = "fast"
    """Similarity and words alone: quicker, and misses more."""
    DENSE = "dense"
    """Similarity alone; the score is the cosine, with salience and strength where they have a weight."""


class CreditClock(StrEnum):
    """How the time between two memories is counted; wherever one is asked for, its plain name does too."""

    TURNS = "turns"
    SECONDS = "seconds"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The write gate's decision, in words (`reason`) and with what it rests on."""

    decision: WriteDecision
    reason: str = ""
    familiarity: float | None = None
    """Of the associative index, 0 to 1; None: exact search decided alone."""
    novelty_threshold: float = 0.0
    """Familiarity below which a memory is novel without a search."""
    similarity: float | None = None
    """Cosine to the nearest memory; None: no search was needed, or there was nothing to compare with."""
    nearest_trace_id: str = ""
    """That memory."""
    calcium: float = 0.0
    """Of the stream (user, session), after this memory."""
    plateau: bool = False
    """Encoded at full strength."""
    encoding_strength: float = 0.0
    """How strongly it was encoded, 0 to 1."""
    salience: float = 0.0
    """Salience used: the writer's, or the gate's estimate, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How strong a memory was when the server answered."""

    strength: float
    """0 to 1, what ranking uses."""
    by_timescale: tuple[float, ...] = ()
    """Activity left on each timescale: 5 s, 60 s, 15 min, 4 h, 2 d, 14 d, 90 d, for ever."""
    stability_days: float = 0.0
    """Days until the chance to recall it falls to 90 %."""
    difficulty: float = 0.0
    """1 to 10."""
    retrievability: float = 0.0
    """Chance that it is recalled now, 0 to 1."""
    tag: float = 0.0
    """Early phase left, as a share of the initial weight."""
    captured: float = 0.0
    """Share captured for good, -0.5 to 1."""
    credit: float = 0.0
    """Weight that feedback on it and on its neighbours in time gave it, 0 to 1."""
    uses: int = 0
    """Graded uses; of those, `successes` above zero and `failures` below."""
    successes: int = 0
    failures: int = 0
    last_graded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """Something that happened to a memory; `why` in words, with the numbers."""

    at: datetime | None
    kind: str
    why: str
    state: LifecycleState = LifecycleState.UNSPECIFIED
    grade: float = 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """A directed link to a memory of the same owner, which may have been deleted since; `weight` is 0 to 1, `evidence` the words that say
    so, if any."""

    type: LinkType
    trace_id: str
    weight: float = 0.0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class RankingWeights:
    """What counts how much when hits are ranked, each 0 to 10. None: the server's default; 0: that signal is left out.

    In the dense mode, and where the query is a vector, score = cosine + salience x its weight + strength x its weight. In the others each
    signal is measured in standard deviations among the query's candidates, and the score is their sum by weight.
    """

    salience: float | None = None
    """Salience (0 to 1) beside the cosine."""
    strength: float | None = None
    """Strength (0 to 1) beside the cosine."""
    dense: float | None = None
    """Similarity: the cosine with salience and strength."""
    lexical: float | None = None
    """Words that query and memory share (BM25)."""
    late: float | None = None
    """Late interaction: each content word of the query against the memory's nearest one."""
    late_context: float | None = None
    """Late interaction with the memory and its neighbours in the session."""
    links: float | None = None
    """How much of its neighbours' score a memory gets along the links of its session."""
    session: float | None = None
    """How much the best of its session lift a memory."""
    date: float | None = None
    """How much it lifts a memory that it was said on a day that the query names, or shortly after."""
    speaker: float | None = None
    """How much it lifts a memory that the query names who said it, and nobody else."""
    asks: float | None = None
    """How much a memory loses for asking something: a question is no answer."""
    another: float | None = None
    """How much it loses for telling of somebody else, where who asks asks about themselves."""
    slot: float | None = None
    """How much it lifts a memory that it tells the very property that is asked for."""
    newest: float | None = None
    """How far a memory moves up to an older one of the same speaker that it seems to replace, 0 to 1."""


@dataclass(frozen=True, slots=True)
class CreditSpread:
    """How far credit reaches beyond the graded memories: weight exp(-distance / tau) in each direction; None: the server's setting."""

    clock: CreditClock | str = ""
    """"turns" (default), "seconds" or "none"."""
    tau_before: float | None = None
    """Reach to memories before the graded one."""
    tau_after: float | None = None
    """Reach to those after it."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A grade, -1 (wrong, harmful) to 1 (right, used), on a trace id or on the answer id of a chat."""

    target: str
    grade: float = 1.0


@dataclass(frozen=True, slots=True)
class Graded:
    """What became of the feedback on one memory: its strength now, or why it did not take it."""

    trace_id: str
    strength: Strength | None = None
    error: NdmlError | None = None


@dataclass(frozen=True, slots=True)
class Reinforced:
    """One result for each graded memory; an answer gives as many as it cited.

    `credited`: neighbours in time that got credit. `replayed`: this request_id had been carried out before, nothing changed now.
    """

    results: tuple[Graded, ...] = ()
    credited: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class ConsolidationProgress:
    """How far a consolidation is. `merged`: semantic memories made so far; their ids are those made since the message before."""

    clusters_total: int = 0
    clusters_done: int = 0
    merged: int = 0
    rejected: int = 0
    """Clusters that do not predict their members, or contradict themselves."""
    unchanged: int = 0
    """Clusters that were merged before."""
    semantic_trace_ids: tuple[str, ...] = ()
    done: bool = False
    """The last message; `stopped_because` says why it ended before the last cluster, if it did."""
    stopped_because: str = ""
