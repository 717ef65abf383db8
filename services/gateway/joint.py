"""The llm service's joint encoders as the cores need them: which there are, kept for a while, and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ndml.internal.v1 import llm_pb2
from ndml.runtime.call import Call
from ndml.v1 import types_pb2
from services.gateway.ports import JointSpace, ModelDirectory

_SPACES_S = 10.0
"""Encoders change with a restart of the llm service."""
_MOST = 64
"""Texts of one request, as many as the llm service takes."""
_TIMEOUT_S = 30.0


class Llm(ModelDirectory, Protocol):
    """What is asked of the llm service."""

    async def embed_joint(self, request: llm_pb2.EmbedJointRequest, timeout_s: float) -> llm_pb2.EmbedJointResponse: ...


class JointRemote:
    """Fulfils `ports.JointEncoders`. `clock`: monotonic seconds."""

    def __init__(self, llm: Llm, clock: Callable[[], float]) -> None:
        self._llm = llm
        self._clock = clock
        self._spaces: tuple[JointSpace, ...] = ()
        self._until = -1.0

    async def spaces(self, call: Call) -> Sequence[JointSpace]:
        """See `ports.JointEncoders`."""
        if self._clock() >= self._until:
            info = await self._llm.info(call)
            self._spaces = tuple(JointSpace(each.name, each.dimension, tuple(each.media)) for each in info.spaces)
            self._until = self._clock() + _SPACES_S
        return self._spaces

    async def embed_texts(self, space: JointSpace, texts: Sequence[str], call: Call) -> list[bytes]:
        """See `ports.JointEncoders`."""
        made: list[bytes] = []
        for start in range(0, len(texts), _MOST):
            made += await self._ask(llm_pb2.EmbedJointRequest(space=space.name, texts=texts[start : start + _MOST]), call)
        return made

    async def embed_contents(self, space: JointSpace, contents: Sequence[types_pb2.Content], call: Call) -> list[bytes]:
        """See `ports.JointEncoders`."""
        request = llm_pb2.EmbedJointRequest(space=space.name)
        for content in contents:
            request.contents.add(media_type=content.media_type, data=content.data)
        return await self._ask(request, call)

    async def _ask(self, request: llm_pb2.EmbedJointRequest, call: Call) -> list[bytes]:
        remaining = call.remaining()
        response = await self._llm.embed_joint(request, _TIMEOUT_S if remaining is None else min(_TIMEOUT_S, remaining))
        return list(response.vectors)
