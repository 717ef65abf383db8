"""Every knob of the consensus node, with its reason."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from ndml.runtime.placement import check_addresses
from ndml.runtime.settings import FollowConsensus, Section, ServerSettings, ServiceSettings, settings_config


class ConsensusServer(ServerSettings):
    """The gRPC server of a consensus node."""

    grace_s: float = Field(1.0, ge=0, description="Then end what runs: calls take milliseconds, and watches never end but move elsewhere.")


class ClusterSection(Section):
    """Who belongs to the cluster. The same on every consensus node."""

    members: list[str] = Field(
        [],
        max_length=1024,
        description="Ids of the memory nodes that own data. One added later joins: it copies its share before it is read from.",
    )
    admit: bool = Field(
        False,
        description="Let nodes that are not listed join by their heartbeats. Before it is turned off again, list those that have joined.",
    )
    max_members: int = Field(1024, ge=1, le=1024, description="No more are admitted than this: placement and epochs are made for so many.")
    replication_factor: int = Field(1, ge=1, le=16, description="Copies of each owner's traces, on as many members, zones spread first.")
    peers: list[str] = Field(
        [], max_length=64, description="host:port of the consensus nodes; this one may stand in the list, so that all share one list."
    )
    max_standbys: int = Field(
        256, ge=0, description="Living nodes that are not members remembered at once: strangers must not fill memory."
    )

    @field_validator("members")
    @classmethod
    def _members(cls, members: list[str]) -> list[str]:
        for node_id in members:
            if not 1 <= len(node_id.encode()) <= 128:
                raise ValueError(f"{node_id!r} is not a node id: 1 to 128 bytes")
        if len(set(members)) != len(members):
            raise ValueError("a member stands twice")
        return members

    @field_validator("peers")
    @classmethod
    def _peers(cls, peers: list[str]) -> list[str]:
        return check_addresses(peers)


class LivenessSection(Section):
    """When silence means something. Liveness advises gateways where to ask first; it never moves an owner."""

    suspect_after_s: float = Field(3.0, gt=0, description="Three heartbeats of 1 s missed: others are asked first.")
    down_after_s: float = Field(10.0, gt=0, description="No heartbeat for so long: down. Shorter takes a garbage collection for a death.")
    tick_s: float = Field(0.25, gt=0, le=5, description="How often ages are looked at: the delay that this adds to the figures above.")
    stall_s: float = Field(1.0, gt=0, description="A look that comes so late means this process slept; that time counts against no node.")

    @model_validator(mode="after")
    def _in_order(self) -> LivenessSection:
        if self.down_after_s < self.suspect_after_s:
            raise ValueError("down_after_s must not be less than suspect_after_s")
        return self


class ExchangeSection(Section):
    """Rosters among consensus nodes."""

    interval_s: float = Field(
        1.0, gt=0, description="Between exchanges with a peer when nothing changes (+-20 %); a change goes out at once."
    )
    timeout_s: float = Field(1.0, gt=0, description="A peer that takes longer is tried again at the next interval.")


class WatchSection(Section):
    """Placement watches of gateways and memory nodes."""

    keep_alive_s: float = Field(8.0, gt=0, le=10, description="Repeat the placement this often; the contract says at least each 10 s.")
    max_watchers: int = Field(1024, ge=1, description="Watches at once; below server.max_in_flight, so that heartbeats always get through.")


class StoreSection(Section):
    """The durable roster and the delta log."""

    data_dir: Path = Field(Path("data/consensus"), description="Directory of roster.json and deltas.db; one node, one directory.")


class DeltasSection(Section):
    """The log of updates, and the streams on which they come and go."""

    max_entries: int = Field(
        100_000, ge=100, description="Updates held; 200 B of memory each. At the bound the oldest go, and who lacks them reconciles."
    )
    max_bytes: int = Field(256 << 20, ge=1 << 20, description="Bytes of updates held: an hour of a busy cluster with a node down.")
    max_age_s: float = Field(86_400.0, gt=0, description="No update lies here longer, whoever lacks it.")
    grace_s: float = Field(
        60.0,
        ge=0,
        description="An update that nobody needs now is kept so long: its owner may be getting a copy. One with something that was erased "
        "goes so long after the erasure, whoever lacks it.",
    )
    max_authors: int = Field(
        4096, ge=1, description="Stores whose positions are remembered: one for each node and each time it was replaced."
    )
    max_attached: int = Field(1024, ge=1, description="Memory nodes on a stream at once: as many as there can be members.")
    max_update_bytes: int = Field(24 << 20, ge=1 << 20, description="Largest update; below server.max_message_bytes with its vectors.")
    message_bytes: int = Field(
        4 << 20, ge=1 << 16, description="Updates sent in one message: large enough to be cheap, small enough to share."
    )
    queue_bytes: int = Field(64 << 20, ge=1 << 20, description="Updates that wait for the disk; more is refused, and comes again.")
    recent_bytes: int = Field(
        16 << 20, ge=0, description="Newest updates kept in memory: as a rule they are passed on before they are read."
    )
    offers_in_flight: int = Field(1024, ge=1, description="Offers that a memory node has yet to answer; one that is slow holds up itself.")
    offer_after_s: float = Field(0.05, ge=0, description="An offer waits so long: most copies have the update from the gateway by then.")
    answer_timeout_s: float = Field(10.0, gt=0, description="An offer that was not answered, or not taken when it came, is made again.")
    author_updates_per_s: float = Field(
        10_000.0,
        ge=0,
        description="Updates taken of one memory node, two seconds' worth at once: about what the disk makes durable. Past it its stream "
        "waits, no other. 0: no bound; else 100 at least.",
    )
    peer_in_flight: int = Field(1024, ge=1, description="Updates that a peer has yet to acknowledge.")
    relay_after_s: float = Field(
        2.0, ge=0, description="What a peer brought goes on to peers that do not have it by then: all of a zone have it from its author's."
    )
    gossip_interval_s: float = Field(
        0.25, gt=0, description="How often peers tell what they and the memory nodes have; well below relay_after_s."
    )
    compact_interval_s: float = Field(1.0, gt=0, description="How often updates that every copy has are removed.")
    compact_scan: int = Field(5_000, ge=1, description="Updates looked at one by one in a pass: some 20 ms of the event loop.")

    @field_validator("author_updates_per_s")
    @classmethod
    def _slow_enough(cls, per_s: float) -> float:
        # One message, 256 updates, must not wait until its sender takes this node for gone.
        if 0 < per_s < 100:
            raise ValueError("author_updates_per_s is 0, for no bound, or at least 100")
        return per_s


class MeshSection(Section):
    """Which consensus nodes exchange updates: all of a zone, and one of each zone with those of the others."""

    retry_s: float = Field(2.0, gt=0, description="Between attempts at a peer (+-50 %): a zone's new gateway is found within this time.")
    hello_timeout_s: float = Field(5.0, gt=0, description="A peer or node that says no hello within this time is given up.")
    settle_s: float = Field(1.0, ge=0, description="A node that starts speaks for no zone so long: it has to see its neighbours first.")
    lease_name: str = Field(
        "",
        max_length=200,
        description="Kubernetes: elect the zone's gateway by a Lease of this name, the zone appended. Empty: smallest name.",
    )
    lease_namespace: str = Field("default", min_length=1, description="Namespace of the Lease.")
    lease_duration_s: float = Field(
        15.0, ge=1, description="A gateway that died is replaced after so long; as Kubernetes' own controllers."
    )
    lease_renew_s: float = Field(
        5.0, gt=0, description="How often the gateway renews and the others look: three tries within the duration."
    )
    lease_kubeconfig: Path | None = Field(None, description="Outside the cluster: path of a kubeconfig. Unset: the pod's service account.")

    @model_validator(mode="after")
    def _renewed_in_time(self) -> MeshSection:
        if self.lease_renew_s * 2 > self.lease_duration_s:
            raise ValueError("lease_renew_s must be at most half of lease_duration_s")
        return self


class SigningSection(Section):
    """Signatures of updates; the same roster as in the memory nodes."""

    roster: Path | None = Field(None, description="File with the authors' public keys and trust. Unset: every member is believed.")
    operator: str = Field("", description="Hexadecimal public key that must have signed the roster. Empty: the file is taken as it is.")
    owners: int = Field(
        8192, ge=1, description="Owners whose newest signatures are remembered, 8 KB each, to find authors that contradict themselves."
    )


class ConsensusSettings(ServiceSettings):
    """NDML consensus node: knows the memory nodes and tells who owns what."""

    model_config = settings_config("NDML_CONSENSUS__")
    server: ConsensusServer = Field(default_factory=ConsensusServer, description="gRPC server.")
    kubernetes: FollowConsensus = Field(default_factory=FollowConsensus, description="Kubernetes.")
    cluster: ClusterSection = Field(default_factory=ClusterSection, description="Who belongs to the cluster.")
    liveness: LivenessSection = Field(default_factory=LivenessSection, description="When silence means something.")
    exchange: ExchangeSection = Field(default_factory=ExchangeSection, description="Rosters among consensus nodes.")
    watch: WatchSection = Field(default_factory=WatchSection, description="Placement watches.")
    store: StoreSection = Field(default_factory=StoreSection, description="The durable roster and the delta log.")
    deltas: DeltasSection = Field(default_factory=DeltasSection, description="Updates between memory nodes.")
    mesh: MeshSection = Field(default_factory=MeshSection, description="Which consensus nodes exchange updates.")
    signing: SigningSection = Field(default_factory=SigningSection, description="Signatures of updates.")
