"""One channel and the stubs on it, opened at first use; clients that share a connection share its channel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from ndml.client._calls import Call
from ndml.client._channel import credentials, open_async_channel, open_channel, target
from ndml.client._options import ClientOptions
from ndml.errors import FailedPrecondition
from ndml.v1.admin_pb2_grpc import AdminServiceStub
from ndml.v1.chat_pb2_grpc import ChatServiceStub
from ndml.v1.memory_pb2_grpc import MemoryServiceStub
from ndml.v1.model_pb2_grpc import ModelServiceStub

_STUBS: dict[str, Callable[[Any], Any]] = {
    "memory": MemoryServiceStub,
    "chat": ChatServiceStub,
    "model": ModelServiceStub,
    "admin": AdminServiceStub,
}
C = TypeVar("C", grpc.Channel, grpc.aio.Channel)


class Connection(ABC, Generic[C]):
    """Opened by the first call, and not again once it was closed."""

    def __init__(self, address: str, options: ClientOptions) -> None:
        target(address)  # What is wrong with address or files shows now, not at the first call.
        if options.tls is not None:
            credentials(options.tls)
        self._address, self._options = address, options
        self._stubs: dict[str, Any] = {}
        self._channel: C | None = None
        self._closed = False

    def method(self, call: Call) -> Any:
        """The stub's callable for this call."""
        if self._closed:
            raise FailedPrecondition("this client is closed: make a new one")
        if self._channel is None:
            self._channel = self._open()
            self._stubs = {name: stub(self._channel) for name, stub in _STUBS.items()}
        return getattr(self._stubs[call.service], call.method)

    def detach(self) -> C | None:
        """The channel, to be closed by the caller; no call starts any more."""
        self._closed = True
        channel, self._channel = self._channel, None
        return channel

    @abstractmethod
    def _open(self) -> C: ...


class SyncConnection(Connection[grpc.Channel]):
    def _open(self) -> grpc.Channel:
        return open_channel(self._address, self._options)


class AsyncConnection(Connection[grpc.aio.Channel]):
    def _open(self) -> grpc.aio.Channel:
        return open_async_channel(self._address, self._options)
