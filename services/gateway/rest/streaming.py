"""Server streams over HTTP: a line a message (NDJSON), or server-sent events for who asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message import Message
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ndml.errors import DeadlinePassed, InternalFault, NdmlError
from ndml.runtime.log import get_logger
from services.gateway.rest.codec import to_json, to_tree
from services.gateway.rest.problems import problem_of, problem_response
from services.gateway.rest.requests import until_gone

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

_log = get_logger(__name__)


Frame = Callable[[Any, bool], bytes]


def _line(value: Any, failed: bool) -> bytes:
    return to_json({"error": value} if failed else value) + b"\n"


def _event(value: Any, failed: bool) -> bytes:
    name = b"event: error\n" if failed else b""
    return name + b"data: " + to_json({"error": value} if failed else value) + b"\n\n"


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


class StreamAnswer(Response):
    """Sends the messages of a stream as they come. The status is decided by the first message: an error before it is a plain problem,
    an error after it the last line. When the client goes away the stream is cancelled."""

    def __init__(self, messages: AsyncIterator[Message], timeout_s: float | None, accept: str, traceparent: str, thread_above: int) -> None:
        events = SSE in accept
        self._messages = messages
        self._timeout_s = timeout_s
        self._traceparent = traceparent
        self._thread_above = thread_above
        self._frame: Frame = _event if events else _line
        # Proxies that gather a response before they pass it on would undo the stream.
        super().__init__(None, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, SSE if events else NDJSON)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ClientDisconnect when the client goes away first."""
        await until_gone(receive, self._pump(scope, receive, send))

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        last = b""
        try:
            async with reading(self._messages, self._timeout_s) as messages:
                async for message in messages:
                    if not started:
                        await self._start(send)
                        started = True
                    await send({"type": "http.response.body", "body": await self._encoded(message), "more_body": True})
        except Exception as error:
            failure = self._failure(error)
            if not started:
                await problem_response(failure, self._traceparent)(scope, receive, send)
                return
            last = self._frame(problem_of(failure, self._traceparent), True)
        if not started:
            await self._start(send)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _encoded(self, message: Message) -> bytes:
        def encode() -> bytes:
            return self._frame(to_tree(message), False)

        return encode() if message.ByteSize() <= self._thread_above else await asyncio.to_thread(encode)

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    def _failure(self, error: Exception) -> NdmlError:
        if isinstance(error, NdmlError):
            return error
        _log.error("rest_stream_fault", exc_info=error)
        return InternalFault("a fault of ours; the log line with the same trace id has the stack")
