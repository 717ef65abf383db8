import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ndml.v1 import chat_pb2 as _chat_pb2
from ndml.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmbedRequest(_message.Message):
    __slots__ = ("texts", "token_vectors", "word_vectors")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_VECTORS_FIELD_NUMBER: _ClassVar[int]
    WORD_VECTORS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    token_vectors: bool
    word_vectors: bool
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., token_vectors: _Optional[bool] = ..., word_vectors: _Optional[bool] = ...) -> None: ...

class TextEmbedding(_message.Message):
    __slots__ = ("vector", "token_vectors", "token_ids", "truncated", "word_vectors")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TOKEN_VECTORS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    WORD_VECTORS_FIELD_NUMBER: _ClassVar[int]
    vector: bytes
    token_vectors: bytes
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    truncated: bool
    word_vectors: bytes
    def __init__(self, vector: _Optional[bytes] = ..., token_vectors: _Optional[bytes] = ..., token_ids: _Optional[_Iterable[int]] = ..., truncated: _Optional[bool] = ..., word_vectors: _Optional[bytes] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings", "dimension", "model")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[TextEmbedding]
    dimension: int
    model: str
    def __init__(self, embeddings: _Optional[_Iterable[_Union[TextEmbedding, _Mapping]]] = ..., dimension: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class EmbedJointRequest(_message.Message):
    __slots__ = ("space", "texts", "contents")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    space: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    contents: _containers.RepeatedCompositeFieldContainer[_types_pb2.Content]
    def __init__(self, space: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., contents: _Optional[_Iterable[_Union[_types_pb2.Content, _Mapping]]] = ...) -> None: ...

class EmbedJointResponse(_message.Message):
    __slots__ = ("vectors",)
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vectors: _Optional[_Iterable[bytes]] = ...) -> None: ...

class JointSpace(_message.Message):
    __slots__ = ("name", "dimension", "media")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    name: str
    dimension: int
    media: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., dimension: _Optional[int] = ..., media: _Optional[_Iterable[str]] = ...) -> None: ...

class MemoryEntry(_message.Message):
    __slots__ = ("number", "text", "speaker", "said_at", "embedding", "strength", "superseded")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_FIELD_NUMBER: _ClassVar[int]
    SAID_AT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    number: int
    text: str
    speaker: str
    said_at: _timestamp_pb2.Timestamp
    embedding: bytes
    strength: float
    superseded: bool
    def __init__(self, number: _Optional[int] = ..., text: _Optional[str] = ..., speaker: _Optional[str] = ..., said_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., embedding: _Optional[bytes] = ..., strength: _Optional[float] = ..., superseded: _Optional[bool] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("messages", "sampling", "memory", "fusion", "tools", "tool_choice", "model")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_chat_pb2.ChatMessage]
    sampling: _chat_pb2.SamplingOptions
    memory: _containers.RepeatedCompositeFieldContainer[MemoryEntry]
    fusion: _chat_pb2.FusionWay
    tools: _containers.RepeatedCompositeFieldContainer[_chat_pb2.Tool]
    tool_choice: str
    model: str
    def __init__(self, messages: _Optional[_Iterable[_Union[_chat_pb2.ChatMessage, _Mapping]]] = ..., sampling: _Optional[_Union[_chat_pb2.SamplingOptions, _Mapping]] = ..., memory: _Optional[_Iterable[_Union[MemoryEntry, _Mapping]]] = ..., fusion: _Optional[_Union[_chat_pb2.FusionWay, str]] = ..., tools: _Optional[_Iterable[_Union[_chat_pb2.Tool, _Mapping]]] = ..., tool_choice: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("delta", "finish_reason", "usage", "model", "tool_calls", "fusion", "memory_read")
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_READ_FIELD_NUMBER: _ClassVar[int]
    delta: str
    finish_reason: _chat_pb2.FinishReason
    usage: _chat_pb2.Usage
    model: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[_chat_pb2.ToolCall]
    fusion: _chat_pb2.FusionWay
    memory_read: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, delta: _Optional[str] = ..., finish_reason: _Optional[_Union[_chat_pb2.FinishReason, str]] = ..., usage: _Optional[_Union[_chat_pb2.Usage, _Mapping]] = ..., model: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[_chat_pb2.ToolCall, _Mapping]]] = ..., fusion: _Optional[_Union[_chat_pb2.FusionWay, str]] = ..., memory_read: _Optional[_Iterable[int]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("texts", "context")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    context: str
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., context: _Optional[str] = ...) -> None: ...

class TextScore(_message.Message):
    __slots__ = ("surprise_nats", "tokens")
    SURPRISE_NATS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    surprise_nats: float
    tokens: int
    def __init__(self, surprise_nats: _Optional[float] = ..., tokens: _Optional[int] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores", "model")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[TextScore]
    model: str
    def __init__(self, scores: _Optional[_Iterable[_Union[TextScore, _Mapping]]] = ..., model: _Optional[str] = ...) -> None: ...

class FusionStatus(_message.Message):
    __slots__ = ("fusion", "available", "reason")
    FUSION_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    fusion: _chat_pb2.FusionWay
    available: bool
    reason: str
    def __init__(self, fusion: _Optional[_Union[_chat_pb2.FusionWay, str]] = ..., available: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("embedding_model", "dimension", "max_tokens", "chat_model", "version", "started_at", "fusion", "scores", "context_tokens", "spaces")
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHAT_MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SPACES_FIELD_NUMBER: _ClassVar[int]
    embedding_model: str
    dimension: int
    max_tokens: int
    chat_model: str
    version: str
    started_at: _timestamp_pb2.Timestamp
    fusion: _containers.RepeatedCompositeFieldContainer[FusionStatus]
    scores: bool
    context_tokens: int
    spaces: _containers.RepeatedCompositeFieldContainer[JointSpace]
    def __init__(self, embedding_model: _Optional[str] = ..., dimension: _Optional[int] = ..., max_tokens: _Optional[int] = ..., chat_model: _Optional[str] = ..., version: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., fusion: _Optional[_Iterable[_Union[FusionStatus, _Mapping]]] = ..., scores: _Optional[bool] = ..., context_tokens: _Optional[int] = ..., spaces: _Optional[_Iterable[_Union[JointSpace, _Mapping]]] = ...) -> None: ...
