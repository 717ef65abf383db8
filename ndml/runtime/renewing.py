"""A channel whose credentials may change: gRPC fixes those of a channel when it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from ndml.runtime.tls import Material, TlsFiles


class RenewingChannel(grpc.aio.Channel):
    """Calls go over a channel of the newest certificate. Those under way end on the channel that they began on.

    A channel that was replaced is let go, not closed: gRPC keeps it while calls use it.
    """

    def __init__(self, tls: TlsFiles, make: Callable[[Material], grpc.aio.Channel]) -> None:
        """Raises FieldInvalid from files that were never read before."""
        self._tls = tls
        self._make = make
        self._material = tls.current
        self._channel = make(self._material)
        self._closed = False

    def now(self) -> grpc.aio.Channel:
        """The channel that the next call takes."""
        material = self._tls.current
        if material is not self._material and not self._closed:
            self._material, self._channel = material, self._make(material)
        return self._channel

    async def __aenter__(self) -> RenewingChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(None)

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.now().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.now().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.now().channel_ready()

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return _Method(self, "stream_stream", arguments, options)


class _Method:
    """One method of a stub, which is made once and called for as long as the process lives."""

    __slots__ = ("_arguments", "_channel", "_kind", "_made", "_made_for", "_options")

    def __init__(self, channel: RenewingChannel, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._channel, self._kind, self._arguments, self._options = channel, kind, arguments, options
        self._made_for: grpc.aio.Channel | None = None
        self._made: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        channel = self._channel.now()
        if channel is not self._made_for:
            self._made, self._made_for = getattr(channel, self._kind)(*self._arguments, **self._options), channel
        return self._made(*arguments, **options)
