"""Knobs of the gateway."""

from __future__ import annotations

from pydantic import Field, SecretStr, model_validator

from ndml.runtime.placement import PlacementSettings
from ndml.runtime.settings import Section, ServiceSettings, settings_config
from services.gateway.rest import RestSettings


class TokenEntry(Section):
    """One bearer token."""

    token: SecretStr = Field(description="What the caller sends as `authorization: Bearer …`.")
    name: str = Field(description="Who it is, for logs.")
    tenants: list[str] = Field(min_length=1, description="Tenants it may work for.")
    operator: bool = Field(False, description="May use AdminService.")


class AuthSettings(Section):
    """Who may call."""

    tokens: list[TokenEntry] = Field(default_factory=list, description="Bearer tokens. Empty: everybody may call, as on a laptop.")
    tenants: list[str] = Field(default_factory=list, description="Without tokens: tenants that exist here. Empty: any.")

    @model_validator(mode="after")
    def _one_of_the_two(self) -> AuthSettings:
        if self.tokens and self.tenants:
            raise ValueError("set tokens or tenants, not both: with tokens each entry names its tenants")
        return self


class EmbeddingSettings(Section):
    """The vector space of the suite, and how texts get there."""

    model: str = Field("all-MiniLM-L6-v2", description="Its name; a client's vector that names another model is refused.")
    dimension: int = Field(384, ge=1, le=16384, description="Components of a vector; as on the memory nodes.")
    cache_entries: int = Field(20_000, ge=0, description="Texts whose vectors are kept, about 1.7 kB each: queries repeat.")
    max_batch: int = Field(64, ge=1, le=256, description="Texts in one Embed call: the model gains nothing beyond.")
    max_batches_in_flight: int = Field(2, ge=1, description="Embed calls under way: one computes while the next is on the wire.")
    max_queued: int = Field(4096, ge=1, description="Texts waiting; one more is refused with OVERLOADED.")
    timeout_s: float = Field(30.0, gt=0, description="Longest wait for one Embed call: a batch of long texts on a busy CPU takes seconds.")


class LlmSettings(Section):
    """The llm service."""

    addresses: list[str] = Field(default=["127.0.0.1:7730"], min_length=1, description="host:port of each replica; reads are hedged.")


class LinkSettings(Section):
    """Streams to the memory nodes."""

    max_batch: int = Field(256, ge=1, le=1024, description="Operations in one message: what queued while the last batch was under way.")
    max_batch_bytes: int = Field(8 << 20, ge=1 << 16, description="Bytes in one message, below the server's limit.")
    max_in_flight: int = Field(
        1,
        ge=1,
        description="Batches under way on a stream. With one, what queues meanwhile makes the next batch larger.",
    )
    max_queued: int = Field(8192, ge=1, description="Operations waiting for a node; one more is refused with OVERLOADED.")
    attempts: int = Field(3, ge=1, le=10, description="Tries of an operation that is safe to repeat when its node went away.")
    retry_backoff_s: float = Field(0.1, ge=0, description="Pause before the next try, doubled each time.")
    stale_wait_s: float = Field(
        5.0, ge=0, description="How long to wait for the newer placement after a node refused ours: a hand-over's last moment takes less."
    )


class QuorumSettings(Section):
    """Several copies of an owner's traces."""

    write: int = Field(
        0,
        ge=0,
        le=16,
        description="Copies with a write on disk before it is answered, fewer where there are fewer. 0: half, rounded up.",
    )
    try_s: float = Field(3.0, gt=0, description="A copy that has not answered for so long is left for the next; a commit takes some ms.")
    avoid_s: float = Field(3.0, ge=0, description="A copy that did not answer is asked last for so long; consensus knows by then.")
    merge_s: float = Field(10.0, gt=0, description="How long a write may be on its way to another copy; then the copy fetches it itself.")
    merges: int = Field(4096, ge=1, description="Writes on their way to one copy; more are dropped, and the copy fetches them itself.")
    merge_bytes: int = Field(64 << 20, ge=1 << 20, description="Their bytes: the most that a slow copy costs in memory.")
    repair_traces: int = Field(1024, ge=1, description="Records that a quorum read holds of each copy at once where copies differ.")
    repair_rounds: int = Field(16, ge=1, le=256, description="Times that a quorum read asks again because it mended something.")
    stop_s: float = Field(2.0, ge=0, description="On stopping, time for writes on their way to other copies.")


class BackupSettings(Section):
    """Backup, restore, drain."""

    bucket_groups: int = Field(16, ge=1, le=256, description="Parts in which owners are listed: one part's owners are in memory at a time.")
    part_bytes: int = Field(1 << 20, ge=1 << 16, le=16 << 20, description="Records in one message: well under what a client takes.")
    settle_s: float = Field(0.5, ge=0, description="Pause before copies that differ are compared again, or a busy one is asked again.")
    settle_pauses: int = Field(20, ge=0, description="Such pauses in one backup; of copies that differ still, each gives its records.")
    attempts: int = Field(10, ge=1, le=100, description="Tries at a copy that is busy or restarts while a backup is restored.")
    call_s: float = Field(60.0, gt=0, description="Longest wait for a node's next message; an owner's digests take it under a second.")
    drain_poll_s: float = Field(0.5, gt=0, description="Pause between two looks at a node that is drained.")
    drain_misses: int = Field(20, ge=1, description="Looks without an answer after which a drain is no longer followed.")


class ChatSettings(Section):
    """Recall and prompt of a chat."""

    recall_k: int = Field(5, ge=0, le=50, description="Traces recalled when the request does not say.")
    memory_bytes: int = Field(8192, ge=0, description="Bytes of recalled text in the prompt: a small window holds it.")


class GatewaySettings(ServiceSettings):
    """The door of the suite: MemoryService, ChatService and AdminService over gRPC and REST."""

    model_config = settings_config("NDML_GATEWAY__")
    rest: RestSettings = Field(default_factory=RestSettings, description="REST door.")
    auth: AuthSettings = Field(default_factory=AuthSettings, description="Authentication and tenants.")
    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings, description="Embedding.")
    llm: LlmSettings = Field(default_factory=LlmSettings, description="llm service.")
    placement: PlacementSettings = Field(default_factory=PlacementSettings, description="Placement.")
    links: LinkSettings = Field(default_factory=LinkSettings, description="Links to memory nodes.")
    quorum: QuorumSettings = Field(default_factory=QuorumSettings, description="Copies.")
    backup: BackupSettings = Field(default_factory=BackupSettings, description="Backup, restore, drain.")
    chat: ChatSettings = Field(default_factory=ChatSettings, description="Chat.")
