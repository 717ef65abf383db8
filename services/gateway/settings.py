"""Knobs of the gateway."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from ndml.runtime.placement import PlacementSettings
from ndml.runtime.settings import SERVICE_NAME, FollowConsensus, Section, ServerSettings, ServiceSettings, TlsSettings, settings_config
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
    word_vectors: bool = Field(
        True,
        description="Ask the llm service for word vectors too, which late interaction compares.",
    )
    cache_entries: int = Field(
        20_000,
        ge=0,
        description="Texts whose vectors are kept, 6 kB of most, 51 kB of the longest: queries repeat.",
    )
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
    """Recall for a chat."""

    recall_k: int = Field(5, ge=0, le=50, description="Traces that the model reads when the request does not say.")
    candidates: int = Field(
        24,
        ge=1,
        le=200,
        description="Traces looked at for them, at least: among more it shows which of them a later one has replaced.",
    )
    memory_bytes: int = Field(
        8192, ge=0, description="Bytes of recalled text sent to the llm service, which fits it to its model's window by tokens."
    )
    recall_timeout_s: float = Field(
        5.0,
        gt=0,
        description="Longest wait for memory; past it the answer comes without. Above quorum.try_s, so that a second copy is asked.",
    )


class LearningSettings(Section):
    """What chats leave in memory. Written after the answer, by an outbox in this process."""

    enabled: bool = Field(True, description="Learn from a chat whose request does not say. False: only where it asks for it.")
    extractor: Literal["rules", "llm"] = Field(
        "rules",
        description="What finds the statements: rules, or the chat model, whose failures fall back to the rules. The model costs a "
        "generation a turn, after the answer.",
    )
    answers: bool = Field(False, description="Keep the model's answers too. Off: a model that reads its own guesses believes them.")
    answer_bytes: int = Field(16384, ge=0, description="Of an answer that is kept, the bytes at its beginning: room is reserved for them.")
    speaker: str = Field("user", max_length=64, description="Speaker of what the user said; a name or a role.")
    answer_speaker: str = Field("assistant", max_length=64, description="Speaker of the model's answers.")
    most_traces: int = Field(
        64,
        ge=1,
        le=256,
        description="Traces of one turn, one at least of each who spoke. What says more becomes as many, several statements in each: "
        "nothing is left out.",
    )
    surprise_weight: float = Field(
        0.2,
        ge=0,
        le=1,
        description="How far the chat model's surprise at a statement raises its salience; 0: the model is not asked. ndml-tiny and "
        "upstreams give no log-probabilities of given texts: with them, so by default, salience comes from rules alone.",
    )
    score_timeout_s: float = Field(10.0, gt=0, description="Longest wait for the model's surprise; without it salience comes from rules.")
    score_pause_s: float = Field(300.0, gt=0, description="A model that gives no scores is not asked again for so long.")
    extract_timeout_s: float = Field(30.0, gt=0, description="Longest wait for statements that the model finds; then the rules find them.")
    extract_tokens: int = Field(
        512, ge=16, le=4096, description="Tokens that the model may answer with; the answer is cut there and the rules decide."
    )
    max_entries: int = Field(
        4096,
        ge=1,
        description="Turns waiting, under way, or reserved by a chat: above server.max_in_flight, so that chats alone never fill it.",
    )
    max_bytes: int = Field(32 << 20, ge=1 << 16, description="Bytes of their texts: what a store that is away may cost in memory.")
    workers: int = Field(
        4, ge=1, le=64, description="Turns written at once: owners differ, and a node commits together what comes together."
    )
    write_timeout_s: float = Field(10.0, gt=0, description="Longest wait for one try at writing a turn.")
    backoff_s: float = Field(0.25, gt=0, description="Pause before the next try, doubled each time.")
    max_backoff_s: float = Field(10.0, gt=0, description="Longest pause: an owner that is back is noticed soon enough.")
    retry_for_s: float = Field(300.0, gt=0, description="A turn that could not be written for so long is given up, logged and counted.")
    wait_s: float = Field(
        10.0,
        gt=0,
        description="Longest that LEARNING_WAIT holds the last message back; past it the call fails. What the model is asked meanwhile "
        "may take half of what is left; then rules decide.",
    )
    drain_s: float = Field(8.0, gt=0, description="On stopping, time to write what waits: within what supervisors grant a process.")


class GatewayServer(ServerSettings):
    """The gRPC server of a gateway."""

    max_concurrent_streams: int = Field(
        128,
        ge=0,
        description="Calls under way on one connection; a caller's next ones wait at the caller, where they cost the gateway nothing: past "
        "its capacity it would read requests for which nobody has time. Who wants more at once opens another channel. 0: no bound.",
    )


class GatewayTls(TlsSettings):
    """TLS at the gateway's doors and in its calls to other services. Without a certificate all is plain text."""

    client_auth: Literal["require", "none"] = Field(
        "none", description="require: callers must show a certificate of these authorities, beside their token; none: the token is enough."
    )


class GatewayKubernetes(FollowConsensus):
    """What is learned from a Kubernetes cluster. By default nothing: addresses and zones are configured."""

    llm_service: str = Field(
        "",
        pattern=SERVICE_NAME,
        description="Name of the llm Service: its ready endpoints stand for llm.addresses. Those of this process's zone are asked first.",
    )


class GatewaySettings(ServiceSettings):
    """The door of the suite: MemoryService, ChatService and AdminService over gRPC and REST."""

    model_config = settings_config("NDML_GATEWAY__")
    server: GatewayServer = Field(default_factory=GatewayServer, description="gRPC server.")
    tls: GatewayTls = Field(default_factory=GatewayTls, description="TLS at the doors and between services.")
    kubernetes: GatewayKubernetes = Field(default_factory=GatewayKubernetes, description="Kubernetes.")
    rest: RestSettings = Field(default_factory=RestSettings, description="REST door.")
    auth: AuthSettings = Field(default_factory=AuthSettings, description="Authentication and tenants.")
    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings, description="Embedding.")
    llm: LlmSettings = Field(default_factory=LlmSettings, description="llm service.")
    placement: PlacementSettings = Field(default_factory=PlacementSettings, description="Placement.")
    links: LinkSettings = Field(default_factory=LinkSettings, description="Links to memory nodes.")
    quorum: QuorumSettings = Field(default_factory=QuorumSettings, description="Copies.")
    backup: BackupSettings = Field(default_factory=BackupSettings, description="Backup, restore, drain.")
    chat: ChatSettings = Field(default_factory=ChatSettings, description="Chat.")
    learning: LearningSettings = Field(default_factory=LearningSettings, description="Learning from chats.")
