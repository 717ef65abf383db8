"""Bodies of the seed's routes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ndml.v1 import memory_pb2, types_pb2

MAX_INT32 = (1 << 31) - 1


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Scoped(Body):
    user_id: str = Field(min_length=1, description="Whose memory.")
    agent_id: str = Field("", description="Agent, optional.")
    session_id: str = Field("", description="Conversation, optional.")

    def scope(self) -> types_pb2.Scope:
        return types_pb2.Scope(user=self.user_id, agent=self.agent_id, session=self.session_id)


class ChatTurn(Body):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"] = Field("user", description="Who speaks.")
    content: str = Field(description="What.")


class ChatBody(Scoped):
    """Body of POST /chat: `message`, or `messages` for a whole conversation."""

    message: str | None = Field(None, description="What the user says now.")
    messages: list[ChatTurn] = Field(default_factory=list, description="The conversation; its last turn asks.")
    recall_k: int | None = Field(None, ge=0, le=MAX_INT32, description="Memories to recall; 0: none.")
    max_tokens: int = Field(0, ge=0, le=MAX_INT32, description="Tokens at most; 0: 256.")
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False, description="0: greedy.")

    @model_validator(mode="after")
    def _one_of_two(self) -> ChatBody:
        if (self.message is None) == (not self.messages):
            raise ValueError("give either message or messages")
        return self


class QueryBody(Scoped):
    """Body of POST /memory/query."""

    query: str = Field(description="What to look for, in words.")
    k: int = Field(10, ge=-MAX_INT32, le=MAX_INT32, description="Hits at most.")
    consistency_token: str = Field("", description="From a write: the search sees at least that write.")


class FeedbackItem(Body):
    """A grade on one memory, or on every memory that an answer cited."""

    trace_id: str | None = Field(None, description="The memory.")
    answer_id: str | None = Field(None, description="The answer, as POST /chat gave it.")
    grade: float = Field(ge=-1, le=1, allow_inf_nan=False, description="-1 (wrong, harmful) to 1 (right, used).")

    @model_validator(mode="after")
    def _one_of_two(self) -> FeedbackItem:
        if (self.trace_id is None) == (self.answer_id is None):
            raise ValueError("give either trace_id or answer_id")
        return self

    def message(self) -> memory_pb2.Feedback:
        return memory_pb2.Feedback(trace_id=self.trace_id, answer_id=self.answer_id, grade=self.grade)


class UpdateBody(Scoped):
    """Body of POST /memory/update: `content` adds one memory, `feedback` grades what is there."""

    content: str | None = Field(None, description="What to remember.")
    feedback: list[FeedbackItem] = Field(default_factory=list, description="Grades, in place of content.")
    speaker: str = Field("", description="Who said it.")
    said_at: str | None = Field(None, description="When, RFC 3339. Default: now.")
    metadata: dict[str, str] = Field(default_factory=dict, description="Labels for filters.")
    deduplicate: bool = Field(False, description="Leave it out where another memory says the same.")
    protected: bool = Field(False, description="Forgetting leaves it alone.")
    expires_at: str | None = Field(None, description="Deleted from then on, RFC 3339. Default: never.")
    request_id: str = Field("", description="Makes a retry safe.")

    @model_validator(mode="after")
    def _one_of_two(self) -> UpdateBody:
        if (self.content is None) == (not self.feedback):
            raise ValueError("give either content or feedback")
        beside = self.model_fields_set - {"feedback", "request_id", *Scoped.model_fields}
        if self.feedback and beside:
            raise ValueError(f"{', '.join(sorted(beside))}: with feedback nothing of this is stored; leave it out")
        return self


class ConsolidateBody(Body):
    """Body of POST /memory/consolidate."""

    user_id: str = Field(min_length=1, description="Whose memory.")
    max_traces: int = Field(0, ge=0, le=MAX_INT32, description="Memories to look at; 0: the node's setting.")
    time_budget_s: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False, description="Seconds it may take.")
    dry_run: bool = Field(False, description="Say what would be merged, change nothing.")

    def message(self) -> memory_pb2.ConsolidateMemoriesRequest:
        scope = types_pb2.Scope(user=self.user_id)
        request = memory_pb2.ConsolidateMemoriesRequest(scope=scope, max_traces=self.max_traces, dry_run=self.dry_run)
        if self.time_budget_s is not None:
            request.time_budget.FromNanoseconds(round(self.time_budget_s * 1e9))
        return request
