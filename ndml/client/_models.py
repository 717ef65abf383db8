"""What goes in and comes out of the client: small frozen dataclasses, no protobuf in sight. Times are aware datetimes in UTC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import overload

from ndml.client._contents import Content, Embedding
from ndml.client._dynamics import GateDecision, LifecycleState, Link, RankingWeights, SearchMode, Strength, TraceEvent
from ndml.errors import NdmlError


class Kind(StrEnum):
    """Kind of memory; wherever one is asked for, its plain name does too."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    PROCEDURAL = "procedural"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memory. (tenant, user) is the owner; agent and session narrow inside it."""

    user: str = ""
    agent: str = ""
    session: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a memory came from: `source` names it, `trust` (0 to 1, 0: not said) says how far the writer believes it."""

    source: str = ""
    trust: float = 0.0


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to be written."""

    text: str
    """What to remember: at most 65,536 bytes of UTF-8, empty only where there are contents."""
    speaker: str = ""
    """Who said it; a name or a role such as "user"."""
    said_at: datetime | None = None
    """When it was said, with a time zone. Default: when the server learns it."""
    kind: Kind | str = ""
    """Default: episodic."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Labels for filters: at most 32, keys of 64 bytes, values of 1,024 bytes."""
    salience: float = 0.0
    """Importance, 0 to 1."""
    provenance: Provenance | None = None
    """Where it came from."""
    embedding: object = None
    """Vector of the suite's dimension: an Embedding, a list of floats, a NumPy array or anything with the buffer protocol.
    Default: the llm service embeds the text."""
    user: str = ""
    """Whose it is. Default for this and the next two: the call's, then the client's."""
    agent: str = ""
    """Agent that writes it."""
    session: str = ""
    """Conversation it belongs to."""
    protected: bool = False
    """Forgetting leaves it alone."""
    expires_at: datetime | None = None
    """It is deleted from this time on, with a time zone. Default: never."""
    ttl_s: float | None = None
    """Seconds to live from when it is stored; with `expires_at` the earlier of the two."""
    valid_from: datetime | None = None
    """When what it says began to hold, with a time zone. Default: when it was said."""
    valid_until: datetime | None = None
    """When it ceased to hold. Default: not known to have."""
    links: Sequence[Link] = ()
    """What it has to do with other memories of the owner: related, supersedes, caused_by, causes or about; at most 16."""
    contents: tuple[Content, ...] = ()
    """Images, recordings, files."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A stored memory. `embedding`, `strength`, `history` (last first) and `siblings` are there only where the call asked for them."""

    trace_id: str
    scope: Scope
    text: str
    kind: Kind = Kind.EPISODIC
    speaker: str = ""
    said_at: datetime | None = None
    learned_at: datetime | None = None
    updated_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    salience: float = 0.0
    provenance: Provenance | None = None
    version: int = 0
    embedding: Embedding | None = None
    gate: GateDecision | None = None
    state: LifecycleState = LifecycleState.UNSPECIFIED
    strength: Strength | None = None
    protected: bool = False
    expires_at: datetime | None = None
    history: tuple[TraceEvent, ...] = ()
    links: tuple[Link, ...] = ()
    siblings: tuple[Sibling, ...] = ()
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    contents: tuple[Content, ...] = ()


@dataclass(frozen=True, slots=True)
class Sibling:
    """One of several contents of a memory that were written at different nodes at the same time.

    `sibling_id` names it in `resolve`; `node_id` wrote it ("" where that node is not known any more); `shown` marks the one that reads
    show, by the largest `support`: its agreement with the others, weighed by salience and trust.
    """

    sibling_id: str
    memory: Memory
    node_id: str
    shown: bool
    support: int


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a write. `replayed`: this request_id had been carried out before, nothing was written now.

    `learned_at` is given by `add` only, `error` (with an empty trace_id) by `add_many(..., return_errors=True)` only. `gate` is what
    the memory is to what was known; None on a replay. `deduplicated`: nothing was stored, trace_id names the memory that says the same.
    """

    trace_id: str
    replayed: bool = False
    learned_at: datetime | None = None
    error: NdmlError | None = None
    gate: GateDecision | None = None
    deduplicated: bool = False


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of a session between two surprises. `episode_id` is the id of its first turn: hits of one episode have the same."""

    episode_id: str
    first_said_at: datetime
    last_said_at: datetime
    turns: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A found memory. `score` orders the hits of one answer and compares within it only; `similarity` is the cosine of query and memory.

    signals: asked for by explain; they add up to the score.
    """

    memory: Memory
    score: float
    signals: Mapping[str, float] = field(default_factory=dict)
    similarity: float = 0.0
    before: tuple[Memory, ...] = ()
    """Asked for by neighbours: of its session, said before it, first said first."""
    after: tuple[Memory, ...] = ()
    """The same, said after it."""
    ancestors: tuple[Memory, ...] = ()
    """Asked for: what it was made out of, replaced or was caused by, and so on, each after its own sources, else first said first."""
    episode: Episode | None = None
    """Asked for: what it is part of; None for a memory without a session."""


@dataclass(frozen=True, slots=True)
class SearchStats:
    """How a search went. `partial`: an owner did not answer, hits may be missing. `node_profile`: of the copy that answered, "general" or
    "code", say. `confidence`: 0 to 1 that the first hits hold what was asked for; None where it is not known: a query by vector, a mode
    other than "full". Times in milliseconds, measured by the server."""

    shards_total: int = 0
    shards_answered: int = 0
    partial: bool = False
    traces_in_scope: int = 0
    index: str = ""
    embed_ms: float = 0.0
    queue_ms: float = 0.0
    index_ms: float = 0.0
    fetch_ms: float = 0.0
    total_ms: float = 0.0
    lexical_ms: float = 0.0
    late_ms: float = 0.0
    fuse_ms: float = 0.0
    node_profile: str = ""
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class SearchResult(Sequence[Hit]):
    """The hits, best first: iterate it, index it, take its length."""

    hits: tuple[Hit, ...] = ()
    stats: SearchStats = SearchStats()
    error: NdmlError | None = None
    """Set by `search_many(..., return_errors=True)` only."""

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


@dataclass(frozen=True, slots=True)
class Range:
    """Half-open numeric interval [at_least, less_than); None leaves that end open."""

    at_least: float | None = None
    less_than: float | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that all hold at once."""

    metadata: Mapping[str, str | bool | Range | Sequence[str]] = field(default_factory=dict)
    """By key: a string is equality, a list any of its values, True or False that the key is there or not, a Range a number inside it."""
    said_from: datetime | None = None
    """Said at this instant or after."""
    said_until: datetime | None = None
    """Said before this instant."""
    learned_from: datetime | None = None
    """Learned at this instant or after."""
    learned_until: datetime | None = None
    """Learned before this instant."""
    kinds: Sequence[Kind | str] = ()
    """One of these kinds."""
    speakers: Sequence[str] = ()
    """One of these speakers."""
    valid_at: datetime | None = None
    """What it says holds at this instant, by its valid_from (else said_at) and valid_until."""


@dataclass(frozen=True, slots=True)
class Query:
    """One search of `search_many`; the fields mean what they mean in `search`."""

    text: str = ""
    embedding: object = None
    k: int = 0
    filter: Filter | None = None
    min_score: float | None = None
    explain: bool = False
    include_embedding: bool = False
    user: str = ""
    agent: str = ""
    session: str = ""
    weights: RankingWeights | None = None
    include_strength: bool = False
    mode: SearchMode | str = ""
    neighbours: int = 0
    ancestors: int = 0
    episode: bool = False
    diversity: float = 0.0
    max_tokens: int = 0
    node_profile: str = ""
    content: Content | None = None
    space: str = ""
    include_data: bool = False


@dataclass(frozen=True, slots=True)
class ProfileProperty:
    """A property of which one value holds at a time: `kind` ("residence", "name" ...) of `whose` ("": a nameless speaker), of their `what`.

    `memory` is the last statement of the value, which holds `since` then; `replaced`: ids of statements of the values before, the last
    replaced first.
    """

    whose: str
    kind: str
    what: str
    memory: Memory
    since: datetime
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """What a user's memories tell of them. `partial`: only the last learned `traces_read` were read, older ones may tell more."""

    properties: tuple[ProfileProperty, ...]
    traces_read: int
    partial: bool


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Counts of one owner, or of the tenant."""

    traces: int
    owners: int
    content_bytes: int
    resident_traces: int
    traces_by_kind: Mapping[str, int]
    dimension: int
    embedding_model: str
    archived_traces: int = 0


@dataclass(frozen=True, slots=True)
class ImportFailure:
    """One memory that the import refused: its position in the input, from 0, and why."""

    index: int
    error: NdmlError


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Written now, there before, refused; `failures` holds the first 100 refusals."""

    imported: int
    skipped: int
    failed: int
    failures: tuple[ImportFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for. `parameters`: JSON Schema of its arguments, as JSON; empty: it takes none."""

    name: str
    description: str = ""
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's wish that a tool be run. `arguments`: JSON that the model wrote: check it."""

    id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `role` is "user", "assistant", "system" or "tool".

    `tool_calls`: what an assistant's message asked for; `tool_call_id`: the call that a tool's message answers.
    """

    content: str
    role: str = "user"
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of the suite. `purpose`: "chat" or "embedding"; `dimension` of its vectors, `max_tokens` that it reads (0: not known)."""

    id: str
    purpose: str
    dimension: int = 0
    max_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate; 0 stands for the server's default everywhere (temperature 0 is greedy)."""

    max_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 0.0
    stop: Sequence[str] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """A memory that the model read, under this number; `mentioned` where the answer names it, as [number]."""

    number: int
    trace_id: str
    score: float
    text: str
    mentioned: bool = False


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One process of the suite; `error` says what kept it from answering."""

    service: str
    instance: str
    address: str
    reachable: bool
    error: str
    version: str
    uptime: timedelta
    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The suite as the gateway sees it; healthy when every owner is alive."""

    services: tuple[ServiceStatus, ...]
    epoch: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class PlacementMember:
    """A memory node. `state`: "alive", "suspect", "down", "standby" or "unspecified"; `phase`: "joining", "active", "leaving" or "left"."""

    node_id: str
    address: str
    zone: str
    state: str
    phase: str = "active"


@dataclass(frozen=True, slots=True)
class Placement:
    """Who owns what; `owners` of the user that was asked for, first choice first."""

    epoch: int
    members: tuple[PlacementMember, ...]
    replication_factor: int
    owners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """How far a drain is; in `phase` "left" the node may be stopped for good."""

    phase: str
    owners_left: int
    owners_total: int


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore did. `changed` of the `records` said something new; the state of `verified` of the `owners` is that of the backup,
    the others had been written to since, or while the backup was made.
    """

    owners: int
    changed: int
    records: int
    verified: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One node's snapshot: a file on that node."""

    node_id: str
    path: str
    size_bytes: int
    traces: int
    sha256: str
    created_at: datetime | None
