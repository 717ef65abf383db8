"""Every knob of the memory node, with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from ndml.btsp.calibration import GateProfile, from_json, shipped
from ndml.btsp.consolidation import ConsolidationOptions
from ndml.btsp.forgetting import ForgettingOptions, WaterMarks
from ndml.btsp.homeostasis import HomeostasisOptions
from ndml.btsp.lifecycle import LifecycleOptions
from ndml.btsp.options import SeedOptions, seed_options
from ndml.errors import FieldInvalid, ModelNotConfigured
from ndml.runtime.log import get_logger
from ndml.runtime.placement import PlacementSettings
from ndml.runtime.settings import FollowConsensus, Section, ServiceSettings, settings_config
from ndml.v1.types_pb2 import SEARCH_MODE_DENSE, SEARCH_MODE_FAST, SEARCH_MODE_FULL
from services.memory_node.care import CareOptions
from services.memory_node.heartbeat import HeartbeatSettings
from services.memory_node.index import IndexOptions
from services.memory_node.merges import JobOptions
from services.memory_node.profiles import PROFILES
from services.memory_node.ranking import RankingOptions, Weights
from services.memory_node.replication.settings import ReplicationSection
from services.memory_node.signals.fusion import SignalWeights

log = get_logger(__name__)


class NodeSection(Section):
    """Who the node is and what it holds."""

    node_id: str = Field("memory-0", min_length=1, max_length=128, description="Stable name; the data directory belongs to it.")
    dimension: int = Field(384, ge=4, le=16384, description="Components of a vector: the embedding model's; 384 is all-MiniLM-L6-v2's.")
    embedding_model: str = Field(
        "all-MiniLM-L6-v2", description="Model whose space the vectors live in; another one's vectors are refused."
    )
    rejoin: bool = Field(
        False,
        description="Started while it was leaving, or after it had left, it joins again. For StatefulSets, which start nobody they do not "
        "want; elsewhere a drain goes on over a restart.",
    )


class StoreSection(Section):
    """The durable truth."""

    data_dir: Path = Field(Path("data/memory-node"), description="Directory of the store and its snapshots; one node, one directory.")
    restore_from: Path | None = Field(None, description="Snapshot file to start from when the directory has no store yet.")
    max_traces: int = Field(
        10_000_000, ge=1, description="Traces on this node; one more is refused with CAPACITY_REACHED. 10M x 384 take about 20 GB."
    )
    max_store_bytes: int = Field(
        0, ge=0, description="Largest store file, so that a shared disk is not filled; 0: as large as the disk allows."
    )
    commit_operations: int = Field(256, ge=1, description="Traces in one group commit at most: past 256 an fsync is a small share already.")
    commit_bytes: int = Field(
        8 << 20, ge=1 << 16, description="Bytes of one group commit at most: bounds how long a commit holds the others up."
    )
    queue_operations: int = Field(
        8192, ge=1, description="Traces waiting for a commit at most; past it OVERLOADED. About half a second of writes."
    )
    page_bytes: Literal[4096, 8192, 16384] = Field(
        4096, description="Page of a new store. Small pages write less log: with many owners each trace touches index pages of its own."
    )
    cache_bytes: int = Field(32 << 20, ge=1 << 20, description="SQLite's page cache of each connection (writer, engine, loader).")
    checkpoint_bytes: int = Field(
        32 << 20, ge=1 << 20, description="Move the log into the store when it is this long: keeps reads and recovery short."
    )
    log_limit_bytes: int = Field(
        512 << 20, ge=1 << 20, description="Log length at which writes wait for the checkpoint: bounds the disk it takes."
    )
    checkpoint_interval_s: float = Field(
        0.5, gt=0, description="How often the log's length is looked at; an idle store's log is emptied then."
    )
    owner_cache: int = Field(100_000, ge=1, description="Owners whose counters the writer keeps in memory, about 300 bytes each.")
    digest_cache_bytes: int = Field(
        64 << 20,
        ge=0,
        description="Digests of records, kept for comparing with other copies until their owner changes: 32 bytes a record and 1 kB an "
        "owner, so two million traces of large owners; past it they are made anew from the index, 2.5 s a million.",
    )
    check: Literal["always", "unclean", "never"] = Field(
        "unclean",
        description="When to check the file at start; unclean: its structure after a crash or kill; always: every row and index too.",
    )
    on_damage: Literal["refuse", "set_aside"] = Field(
        "refuse",
        description="A damaged store: refuse to start; or, where owners have other copies, keep its file, start empty and be filled.",
    )
    seal_bytes: int = Field(
        4 << 30,
        ge=0,
        description="Stores up to here are sealed with a digest of the whole file when they stop: 1 s a gigabyte; 0: none is.",
    )
    snapshots_kept: int = Field(3, ge=1, description="Newest snapshots kept; older ones are removed when one is taken.")
    max_exports: int = Field(4, ge=1, description="Exports at once: each holds a read transaction, during which the log cannot be emptied.")
    export_limit_s: float = Field(
        900, gt=0, description="Longest export, for the same reason: a reader that stands still must not fill the disk."
    )
    export_chunk: int = Field(256, ge=1, le=1024, description="Traces in one message of an export.")
    export_chunk_bytes: int = Field(4 << 20, ge=1 << 20, description="Bytes at which a message of an export is closed early.")


class EngineSection(Section):
    """Searches, reads and the memory they may take."""

    queue_operations: int = Field(
        8192, ge=1, description="Operations waiting for the engine at most; past it OVERLOADED instead of growing latency."
    )
    batches_in_flight: int = Field(
        64, ge=1, description="Batches of one stream under way; past it the stream is not read, which slows its sender."
    )
    index_memory_limit: int = Field(
        2 << 30, ge=1 << 16, description="Bytes of vectors and columns in memory; least recently used owners go first."
    )
    payload_cache_bytes: int = Field(
        64 << 20, ge=1 << 16, description="Bytes of serialised traces kept, so that hot hits cost no read of the store."
    )
    search_chunk: int = Field(
        64, ge=1, le=1024, description="Queries in one matrix search: 64 is past the knee, and bounds the score matrix."
    )
    result_bytes: int = Field(8 << 20, ge=1 << 16, description="Traces in one search's or page's result at most, in bytes.")
    response_bytes: int = Field(
        24 << 20, ge=1 << 16, description="Bytes of one batch's response: below the gateway's largest message, 32 MiB."
    )
    heads_cache: int = Field(
        10_000, ge=1, description="Owners whose known positions are kept for reads with a consistency token, some 300 bytes each."
    )
    switch_interval_s: float = Field(
        0.001, gt=0, le=0.1, description="Longest a busy thread keeps the event loop waiting for the interpreter lock."
    )


class IndexSection(Section):
    """How one owner's vectors are held; `services/memory_node/index/options.py` has the measurements behind the numbers."""

    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Where large indexes live; auto: on the GPU where the machine has an NVIDIA driver."
    )
    fast_scan_from: int = Field(4096, ge=16, description="Traces from which an owner's index is quantised, in the background; exact below.")
    recall_target: float = Field(0.99, gt=0, le=1, description="Share of the true top ten that the quantised index aims at.")
    tombstone_share: float = Field(0.25, gt=0, le=1, description="Share of deleted rows at which an index is compacted.")

    def options(self, dimension: int) -> IndexOptions:
        return IndexOptions(dimension, **self.model_dump(exclude={"device"}))


class GateSection(Section):
    """The write gate: what a new memory is to what its owner remembers. It never decides whether the user's words are kept."""

    enabled: bool = Field(True, description="Judge every added memory. Off, or without a profile of the model: decisions stay unspecified.")
    profile: Path | None = Field(
        None, description="Thresholds of the embedding model (`python -m tests.quality.calibrate_gate`); unset: the one that is shipped."
    )
    familiarity_from: int = Field(
        4096, ge=1, description="Traces from which an owner gets an associative index; below it exact search costs less."
    )

    familiarity_neurons: int = Field(
        8192, ge=512, le=1 << 20, description="Largest associative index, 1 KiB a neuron; one holds 1.25 traces. Past it search is faster."
    )

    causes: bool = Field(
        True, description="Link a memory to earlier turns of its session that its words name as a cause or an effect; by rules of English."
    )

    def load(self, model: str, dimension: int) -> GateProfile | None:
        """The profile in force; None: no gate. Raises FieldInvalid where it is of another model."""
        if not self.enabled:
            return None
        try:
            profile = shipped(model) if self.profile is None else from_json(self.profile.read_text())
        except ModelNotConfigured as error:
            log.warning("gate_off", model=model, reason=error.message)
            return None
        if (profile.model, profile.dimension) != (model, dimension):
            found = f"{profile.model!r} with {profile.dimension} components"
            raise FieldInvalid(f"the gate's profile is of {found}, the node's model is {model!r} with {dimension}", field="gate.profile")
        return profile


class DynamicsSection(Section):
    """Trace dynamics. Unset keys keep our defaults, which were chosen on data; the names are the seed's (ndml/btsp/options.py)."""

    calcium_decay_ms: float | None = Field(None, gt=0, description="Decay of a stream's calcium. Unset: 10,000.")
    calcium_threshold: float | None = Field(None, gt=0, description="Calcium that makes a plateau: full-strength encoding. Unset: 0.7.")
    eligibility_decay_ms: float | None = Field(
        None, gt=0, description="Credit by the clock instead of by turns: reach to traces before the feedback. Unset: 1.31 turns."
    )
    protein_decay_ms: float | None = Field(None, gt=0, description="Decay of the protein that captures tagged traces. Unset: one hour.")
    competition_strength: float | None = Field(
        None, ge=0, le=1, description="How much of its lead a stronger hit takes from one that says the same. Unset: 0; the seed had 0.1."
    )
    learning_rate: float | None = Field(None, gt=0, le=0.7, description="Step of full positive feedback. Unset: 0.5.")
    decay_rate: float | None = Field(None, ge=0.05, le=0.8, description="Exponent of the power law of forgetting. Unset: 0.15.")

    def options(self) -> SeedOptions:
        return seed_options({key: value for key, value in self.model_dump().items() if value is not None})


class LifecycleSection(Section):
    """Forgetting and the life of a trace. Forgetting bounds memory at the least loss; it does not make recall better."""

    interval_s: float = Field(60.0, gt=0, description="How often each owner in memory is looked after: expiry, capture, room.")
    batch: int = Field(1000, ge=1, le=100_000, description="Traces that one look moves at most, so that searches hardly wait for it.")
    owner_capacity: int = Field(
        0, ge=0, description="Traces of one owner in the index; past it the least missed are archived. 0: no bound."
    )
    node_capacity: int = Field(0, ge=0, description="The same for all owners in memory together. 0: no bound but max_traces.")
    low_water: float = Field(0.9, gt=0, le=1, description="Share of a capacity that forgetting goes down to, so that it is rare.")
    grace_s: float = Field(3600.0, ge=0, description="A trace is new, and safe from forgetting, for this long.")
    archive_after_s: float = Field(0.0, ge=0, description="Archive what is out of use at this age although there is room. 0: never.")

    def options(self) -> CareOptions:
        owner, node = (WaterMarks(n, low=self.low_water) if n else None for n in (self.owner_capacity, self.node_capacity))
        life = LifecycleOptions(grace_s=self.grace_s, archive_after_s=self.archive_after_s)
        return CareOptions(life, ForgettingOptions(), owner, node, self.interval_s, self.batch)


class ConsolidationSection(Section):
    """Clusters of episodic traces into semantic ones, where the cluster predicts its members."""

    related: float = Field(0.85, ge=-1, le=1, description="Cosine from which two traces are candidates: from .8 merging costs recall.")
    least_r2: float = Field(0.3, le=1, description="Leave-one-out R2 above which a cluster predicts its members (Go-CLS).")
    max_traces: int = Field(
        20_000, ge=2, le=100_000, description="Traces of one run: the neighbour search is quadratic, 10,000 take seconds."
    )
    time_budget_s: float = Field(60.0, gt=0, description="Time of one run; it stops between two clusters, and the next run goes on.")
    interval_s: float = Field(0.0, ge=0, description="Consolidate without being asked, this often. 0: only when asked.")
    least_new: int = Field(100, ge=1, description="Traces an owner in memory must have gained since the last round to be in the next.")
    most_runs: int = Field(1, ge=1, description="Runs at once on this node: each reads an owner whole.")

    def options(self) -> JobOptions:
        plan = ConsolidationOptions(related=self.related, least_r2=self.least_r2, most_traces=self.max_traces)
        return JobOptions(plan, self.max_traces, self.time_budget_s, self.most_runs)


_MODES = {"full": SEARCH_MODE_FULL, "fast": SEARCH_MODE_FAST, "dense": SEARCH_MODE_DENSE}


class RankingSection(Section):
    """What counts beside similarity; docs/science/ablation.md has the measurements behind the numbers."""

    salience_weight: float = Field(
        0.2, ge=0, le=10, description="Weight of salience (0 to 1) beside the cosine: finds more of what was meant."
    )
    strength_weight: float = Field(0.0, ge=0, le=10, description="Weight of strength (0 to 1) beside the cosine: no gain measured.")
    candidates: int = Field(
        64, ge=1, le=1000, description="Nearest traces ranked at least: past 64 the first ten no longer change at 0.2, past 256 at 0.5."
    )
    mode: Literal["full", "fast", "dense"] = Field(
        "full", description="How searches by text rank unless they say: by every signal; by similarity and words; by similarity alone."
    )
    dense: float = Field(2.0, ge=0, le=10, description="Weight of similarity among the signals.")
    lexical: float = Field(1.0, ge=0, le=10, description="Weight of shared words (BM25).")
    late: float = Field(1.5, ge=0, le=10, description="Weight of late interaction, word by word.")
    late_context: float = Field(3.0, ge=0, le=10, description="Weight of late interaction with a memory's neighbours too.")
    links: float = Field(1.0, ge=0, le=10, description="What a memory gets of its neighbours' score.")
    session: float = Field(0.3, ge=0, le=10, description="What the best of its session lift a memory.")
    date: float = Field(3.0, ge=0, le=10, description="What it lifts a memory that it was said when the query asks about.")
    speaker: float = Field(1.0, ge=0, le=10, description="What it lifts a memory that the query names who said it.")
    asks: float = Field(0.5, ge=0, le=10, description="What a memory loses for asking something.")
    another: float = Field(
        3.0, ge=0, le=10, description="What it loses for telling of somebody else where the asker asks about themselves."
    )
    slot: float = Field(2.0, ge=0, le=10, description="What it lifts a memory that it tells the very property that is asked for.")
    newest: float = Field(1.0, ge=0, le=1, description="How far a memory moves up to an older one that it replaces. 1: all the way.")
    scaling_rate: float = Field(0.0, ge=0, le=1, description="Homeostasis: how fast an owner's mean salience is pulled to 0.5. 0: not.")

    def options(self, competition_strength: float) -> RankingOptions:
        homeostasis = HomeostasisOptions(scaling_rate=self.scaling_rate, competition_strength=competition_strength)
        signals = SignalWeights(*(getattr(self, name) for name in SignalWeights._fields))
        weights = Weights(self.salience_weight, self.strength_weight)
        return RankingOptions(weights, signals, _MODES[self.mode], self.candidates, homeostasis)


class NodeSettings(ServiceSettings):
    """NDML memory node: keeps owners' traces durable and finds them by vector."""

    model_config = settings_config("NDML_MEMORY_NODE__")
    kubernetes: FollowConsensus = Field(default_factory=FollowConsensus, description="Kubernetes.")
    node: NodeSection = Field(default_factory=NodeSection, description="Who the node is and what it holds.")
    store: StoreSection = Field(default_factory=StoreSection, description="The durable truth.")
    index: IndexSection = Field(default_factory=IndexSection, description="How vectors are held.")
    gate: GateSection = Field(default_factory=GateSection, description="The write gate.")
    dynamics: DynamicsSection = Field(default_factory=DynamicsSection, description="Trace dynamics.")
    lifecycle: LifecycleSection = Field(default_factory=LifecycleSection, description="Forgetting and the life of a trace.")
    consolidation: ConsolidationSection = Field(default_factory=ConsolidationSection, description="Episodic to semantic.")
    ranking: RankingSection = Field(default_factory=RankingSection, description="What counts beside similarity.")
    placement: PlacementSettings = Field(
        default_factory=PlacementSettings, description="Who owns what; without it this node owns everything."
    )
    replication: ReplicationSection = Field(default_factory=ReplicationSection, description="Copies of owners on other nodes.")
    heartbeat: HeartbeatSettings = Field(default_factory=HeartbeatSettings, description="Registration with the consensus nodes.")
    engine: EngineSection = Field(default_factory=EngineSection, description="Searches, reads and the memory they may take.")

    @model_validator(mode="after")
    def _of_profile(self) -> Self:
        """Weights that nobody set are the node profile's."""
        preset = PROFILES[self.heartbeat.profile].weights
        self.ranking = self.ranking.model_copy(update={k: v for k, v in preset.items() if k not in self.ranking.model_fields_set})
        return self
