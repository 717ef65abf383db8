"""Server streams over HTTP: a line a message (NDJSON), or server-sent events for who asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

from google.protobuf.message import Message
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ndml.errors import DeadlinePassed, InternalFault, ModelUnavailable, NdmlError
from ndml.runtime.log import get_logger
from ndml.v1 import chat_pb2
from services.gateway.rest.codec import to_json, to_tree
from services.gateway.rest.problems import problem_of, problem_response
from services.gateway.rest.requests import until_gone

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

_log = get_logger(__name__)


class Framing(Protocol):
    """How the messages of one stream become bytes. Called in the order of the stream, from one thread at a time."""

    media: str

    def message(self, message: Message) -> bytes: ...

    def end(self) -> bytes:
        """What comes after the last message."""
        ...

    def failed(self, failure: NdmlError) -> bytes:
        """What comes in place of the rest."""
        ...

    def refusal(self, failure: NdmlError) -> Response:
        """The whole answer, where the first message did not come."""
        ...


class Lines:
    """A line a message, or an event for who accepts those."""

    def __init__(self, accept: str, traceparent: str) -> None:
        self._events = SSE in accept
        self._traceparent = traceparent
        self.media = SSE if self._events else NDJSON

    def message(self, message: Message) -> bytes:
        return self._framed(to_tree(message))

    def end(self) -> bytes:
        return b""

    def failed(self, failure: NdmlError) -> bytes:
        name = b"event: error\n" if self._events else b""
        return name + self._framed({"error": problem_of(failure, self._traceparent)})

    def refusal(self, failure: NdmlError) -> Response:
        return problem_response(failure, self._traceparent)

    def _framed(self, value: Any) -> bytes:
        return b"data: " + to_json(value) + b"\n\n" if self._events else to_json(value) + b"\n"


@asynccontextmanager
async def reading(messages: AsyncIterator[Message], timeout_s: float | None) -> AsyncIterator[AsyncIterator[Message]]:
    """The stream within its deadline, closed at the end of the block: the server learns at once that nobody reads on.

    Raises DeadlinePassed.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            yield messages
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlinePassed("the deadline passed before the stream was at its end; ask with a larger ndml-timeout-ms") from None
    finally:
        close = getattr(messages, "aclose", None)
        if close is not None:
            await close()


async def whole_answer(parts: AsyncIterator[Message], timeout_s: float | None, max_bytes: int) -> tuple[str, chat_pb2.ChatResponse]:
    """The text of a chat, and its last message. Raises ModelUnavailable where the text is longer than `max_bytes`, DeadlinePassed."""
    deltas: list[str] = []
    size = 0
    last = chat_pb2.ChatResponse()
    async with reading(parts, timeout_s) as messages:
        async for part in messages:
            last = cast(chat_pb2.ChatResponse, part)
            deltas.append(last.delta)
            size += len(last.delta.encode())
            if size > max_bytes:
                raise ModelUnavailable(f"the model went on beyond {max_bytes} bytes; set max_tokens or ask again")
    return "".join(deltas), last


class StreamAnswer(Response):
    """Sends the messages of a stream as they come. The status is decided by the first message: an error before it is a plain answer,
    an error after it the end of the stream. When the client goes away the stream is cancelled."""

    def __init__(
        self,
        messages: AsyncIterator[Message],
        timeout_s: float | None,
        framing: Framing,
        thread_above: int,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._messages = messages
        self._timeout_s = timeout_s
        self._thread_above = thread_above
        self._framing = framing
        # Proxies that gather a response before they pass it on would undo the stream.
        super().__init__(None, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})}, framing.media)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ClientDisconnect when the client goes away first."""
        await until_gone(receive, self._pump(scope, receive, send))

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with reading(self._messages, self._timeout_s) as messages:
                async for message in messages:
                    if not started:
                        await self._start(send)
                        started = True
                    await send({"type": "http.response.body", "body": await self._encoded(message), "more_body": True})
            last = self._framing.end()
        except Exception as error:
            failure = self._failure(error)
            if not started:
                await self._framing.refusal(failure)(scope, receive, send)
                return
            last = self._framing.failed(failure)
        if not started:
            await self._start(send)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _encoded(self, message: Message) -> bytes:
        if message.ByteSize() <= self._thread_above:
            return self._framing.message(message)
        return await asyncio.to_thread(self._framing.message, message)

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    def _failure(self, error: Exception) -> NdmlError:
        if isinstance(error, NdmlError):
            return error
        _log.error("rest_stream_fault", exc_info=error)
        return InternalFault("a fault of ours; the log line with the same trace id has the stack")
