from buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_PURPOSE_UNSPECIFIED: _ClassVar[ModelPurpose]
    MODEL_PURPOSE_CHAT: _ClassVar[ModelPurpose]
    MODEL_PURPOSE_EMBEDDING: _ClassVar[ModelPurpose]
MODEL_PURPOSE_UNSPECIFIED: ModelPurpose
MODEL_PURPOSE_CHAT: ModelPurpose
MODEL_PURPOSE_EMBEDDING: ModelPurpose

class Model(_message.Message):
    __slots__ = ("id", "purpose", "dimension", "max_tokens")
    ID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    id: str
    purpose: ModelPurpose
    dimension: int
    max_tokens: int
    def __init__(self, id: _Optional[str] = ..., purpose: _Optional[_Union[ModelPurpose, str]] = ..., dimension: _Optional[int] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class EmbedTextsRequest(_message.Message):
    __slots__ = ("texts", "model")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    model: str
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ...) -> None: ...

class EmbedTextsResponse(_message.Message):
    __slots__ = ("embeddings", "dimension", "model")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedScalarFieldContainer[bytes]
    dimension: int
    model: str
    def __init__(self, embeddings: _Optional[_Iterable[bytes]] = ..., dimension: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...
