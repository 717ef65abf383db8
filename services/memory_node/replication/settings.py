"""Every knob of replication inside the memory node, with its reason."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from ndml.runtime.settings import Section


class StreamSection(Section):
    """Updates to and from a consensus node. The gateway has brought most to the copies already: this covers its failures."""

    poll_s: float = Field(
        0.05, gt=0, description="How often the journal is looked at: one comparison of integers while nothing is written."
    )
    batch_updates: int = Field(
        256, ge=1, le=1024, description="Updates in one message at most: past 256 a message costs what its updates cost."
    )
    batch_bytes: int = Field(4 << 20, ge=1 << 16, description="Bytes at which a message is closed early; a larger update goes alone.")
    update_bytes: int = Field(
        24 << 20,
        ge=1 << 16,
        description="Largest update: a consensus node takes no larger one, so it is left to the sweep, which has parts.",
    )
    in_flight_updates: int = Field(
        2048, ge=1, description="Updates sent and not yet durable at the consensus node: about a second of writes."
    )
    in_flight_bytes: int = Field(32 << 20, ge=1 << 20, description="The same in bytes, so that a slow consensus node costs no memory.")
    journal_rows: int = Field(
        200_000, ge=1, description="Updates kept while no consensus node takes them, some 100 bytes each; older ones are left to the sweep."
    )
    journal_kept: int = Field(
        4096, ge=0, description="Updates kept although a consensus node has them: another one may know less when this node turns to it."
    )
    tend_s: float = Field(1.0, gt=0, description="How often the journal is counted and pruned: a count of what waits in it.")
    prune_every: int = Field(1024, ge=1, description="Updates between two prunings of the journal: each is a write of its own.")
    hello_s: float = Field(3.0, gt=0, description="A consensus node answers at once; one that takes longer is passed over.")
    silence_s: float = Field(60.0, gt=0, description="Updates unanswered for so long: another consensus node is tried.")
    backoff_min_s: float = Field(0.1, gt=0, description="First pause between attempts, jittered; doubles with each failure.")
    backoff_max_s: float = Field(5.0, gt=0, description="Longest pause: a consensus node that comes back is found within this time.")
    drain_s: float = Field(2.0, ge=0, description="When stopping: time for what is in the journal to become durable elsewhere.")
    join_attempts: int = Field(8, ge=1, description="Tries of a join while the engine is busy; then the owner is left to the sweep.")


class SweepSection(Section):
    """Anti-entropy: comparing with the other copies and mending what differs."""

    least_interval_s: float = Field(
        30.0, gt=0, description="Shortest pause between two rounds; equal nodes pay one pass over their owners."
    )
    most_interval_s: float = Field(60.0, gt=0, description="Longest pause: what every other way missed is found within this time.")
    retry_s: float = Field(
        2.0, gt=0, description="A round that was asked for and missed a living partner is repeated after this, doubling to the pause."
    )
    least_gap_s: float = Field(0.5, gt=0, description="Between two rounds that were asked for: changes of placement come in flurries.")
    page_owners: int = Field(512, ge=1, le=4096, description="Owners read at once: some milliseconds of the reader.")
    round_owners: int = Field(
        10_000, ge=1, description="Owners mended in one round at most, so that a round ends; the next follows at once."
    )
    owners_at_once: int = Field(
        16, ge=1, le=64, description="Owners mended side by side: small ones wait for the disk and the wire, and then share a group commit."
    )
    repairs_kept: int = Field(10_000, ge=1, description="Owners noted as incomplete, which go first; past it a round finds them.")
    bytes_per_s: int = Field(
        32 << 20, ge=1 << 16, description="Rate of records sent and fetched, so that repairs leave disk and network to the users."
    )
    chunk_records: int = Field(256, ge=1, le=1024, description="Records in one message and one join: as many as a group commit takes.")
    chunk_bytes: int = Field(1 << 20, ge=1 << 16, description="Bytes at which a message is closed early.")
    symbols: int = Field(
        1 << 16,
        ge=32,
        le=1 << 20,
        description="Coded symbols of one owner at most, 26 bytes each: some 48,000 differences; past it all is copied.",
    )
    symbols_pause_s: float = Field(
        0.002, ge=0, description="Between two blocks of symbols: the receiver may have enough, and what is under way then is wasted."
    )
    most_records: int = Field(10_000_000, ge=1, description="Records that a partner may claim of one owner; more is not believed.")
    owner_limit_s: float = Field(900.0, gt=0, description="Longest mending of one owner: 100,000 traces take a minute at the rate above.")
    passes: int = Field(3, ge=1, le=16, description="Tries of an owner that changes while it is mended; the next round is another.")
    silence_s: float = Field(10.0, gt=0, description="A partner that says nothing for so long is taken for gone.")
    serve_at_once: int = Field(
        64, ge=1, description="Requests of partners served side by side; more are OVERLOADED: each holds an encoder or a list of ids."
    )


class PhaseSection(Section):
    """Joining and leaving the suite."""

    retry_s: float = Field(1.0, gt=0, description="Between two tries of a node that joins or leaves: each is a whole round.")
    poll_s: float = Field(0.005, gt=0, description="Between two looks at whether the placement has heard that the node left.")
    pause_s: float = Field(
        5.0,
        gt=0,
        description="Longest that a node which left refuses callers while the placement does not say so yet: they wait that long.",
    )


class SigningSection(Section):
    """Signatures of updates, for a suite whose nodes do not trust each other. Off in a suite of one operator."""

    roster: Path | None = Field(
        None, description="Roster of authors with their keys and trust. Unset: updates are neither signed nor checked."
    )
    key: Path | None = Field(
        None, description="This node's Ed25519 key (PEM); made when it is not there. Unset: author.pem in store.data_dir."
    )
    operator: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="Hexadecimal public key that must have signed the roster. Empty: the file is taken as it is.",
    )
    rumours_s: float = Field(
        2.0, gt=0, description="How often copies tell each other what they were told, so that whoever says two things is found out."
    )
    accept_restore: bool = Field(
        False,
        description="Take records without a signature too: while an operator restores a backup or begins to sign what a suite held before.",
    )
    most_waiting: int = Field(
        4096, ge=1, description="Updates waiting for others that they build on; past it the oldest are left to the sweep."
    )
    author_updates_per_s: float = Field(
        2000.0,
        ge=0,
        description="Updates taken of one author, two seconds' worth at once: checking and joining more fills a core. Gateways are refused "
        "with a delay, repairs wait. 0: no bound; else 100 at least.",
    )

    @field_validator("author_updates_per_s")
    @classmethod
    def _slow_enough(cls, per_s: float) -> float:
        # One message of a repair, 256 updates, must not wait until its sender gives up.
        if 0 < per_s < 100:
            raise ValueError("author_updates_per_s is 0, for no bound, or at least 100")
        return per_s


class ReplicationSection(Section):
    """Copies of owners on other nodes."""

    enabled: bool = Field(True, description="Replicate where the placement says that an owner has copies. Off: only answer the others.")
    consensus: list[str] = Field(
        [], max_length=64, description="host:port of each consensus node that takes updates. Empty: those of placement.consensus."
    )
    readers: int = Field(2, ge=1, le=16, description="Blocking reads at once: one for the rounds, one for those who ask.")
    stream: StreamSection = Field(default_factory=StreamSection, description="Updates to and from a consensus node.")
    sweep: SweepSection = Field(default_factory=SweepSection, description="Anti-entropy.")
    phase: PhaseSection = Field(default_factory=PhaseSection, description="Joining and leaving the suite.")
    signing: SigningSection = Field(default_factory=SigningSection, description="Signatures of updates.")

    @model_validator(mode="after")
    def _ordered(self) -> ReplicationSection:
        if self.sweep.most_interval_s < self.sweep.least_interval_s:
            raise ValueError("sweep.most_interval_s must not be below sweep.least_interval_s")
        return self
