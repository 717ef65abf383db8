"""What a call brings beside its fields: body within bounds, metadata, deadline, and whether the client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, TypeVarTuple

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from ndml.errors import FieldInvalid, Overloaded
from services.gateway.rest.settings import RestSettings
from services.gateway.rest.validation import validated

TIMEOUT_HEADER = "ndml-timeout-ms"
_PASSED = frozenset({"authorization", "traceparent", "tracestate", "user-agent"})
_OWN_PREFIX = "ndml-"

B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Bodies:
    """Reads bodies, bounded each and all together."""

    def __init__(self, settings: RestSettings) -> None:
        self._settings = settings
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body; it counts against the budget until the block ends.

        Raises HTTPException 408, 413, 415, Overloaded, and ClientDisconnect when the client goes away.
        """
        self._check_length(request.headers.get("content-length", "0"))
        chunks: list[bytes] = []
        try:
            await self._gather(request, chunks)
            if chunks:
                _check_content_type(request.headers.get("content-type", ""))
            yield b"".join(chunks)
        finally:
            self._held -= sum(map(len, chunks))

    async def parsed(self, request: Request, model: type[B]) -> B:
        """The whole body as `model`. Raises FieldInvalid, FieldUnknown, RequestMalformed, and what `read` raises."""
        async with self.read(request) as body:
            return await converted(len(body), self._settings.thread_above_bytes, validated, model, body)

    async def _gather(self, request: Request, chunks: list[bytes]) -> None:
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                async for chunk in request.stream():
                    if chunk:
                        chunks.append(chunk)
                        size += len(chunk)
                        self._held += len(chunk)
                        self._check(size)
        except TimeoutError:
            text = f"the body did not arrive within {self._settings.body_timeout_s:g} s; send it at once"
            raise HTTPException(408, text, {"Connection": "close"}) from None

    def _check_length(self, declared: str) -> None:
        if declared.isdecimal():
            self._check(int(declared))

    def _check(self, size: int) -> None:
        if size > self._settings.max_body_bytes:
            # The rest of the body stays unread, so the connection cannot be used again.
            text = f"the body is larger than {self._settings.max_body_bytes} bytes; split it, for example into smaller batches"
            raise HTTPException(413, text, {"Connection": "close"})
        if self._held > self._settings.body_budget_bytes:
            raise Overloaded("the gateway holds as many request bodies as it may; come back a little later")


async def converted(size: int, above: int, act: Callable[[*Ts], T], *given: *Ts) -> T:
    """`act` of what is given, in a thread where that has more bytes than `above`: everybody else's answers do not wait for it."""
    return act(*given) if size <= above else await asyncio.to_thread(act, *given)


def metadata_of(request: Request) -> dict[str, str]:
    """Headers that go on as call metadata: credentials, trace context and everything that begins with ndml-."""
    return {
        name: value
        for name, value in request.headers.items()
        if (name in _PASSED or name.startswith(_OWN_PREFIX)) and name != TIMEOUT_HEADER and not name.endswith("-bin")
    }


def timeout_of(request: Request, max_timeout_s: float) -> float | None:
    """Seconds that `ndml-timeout-ms` allows; None without it. Raises FieldInvalid."""
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    limit = int(max_timeout_s * 1000)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= limit):
        raise FieldInvalid(f"{TIMEOUT_HEADER} must be whole milliseconds from 1 to {limit}", field=TIMEOUT_HEADER)
    return int(text) / 1000


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Result of `work`, or ClientDisconnect, with `work` cancelled, if the client goes away first. The body has been read."""
    job = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({job, watch}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientDisconnect
    finally:
        job.cancel()
        watch.cancel()
        await asyncio.gather(job, watch, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_content_type(value: str) -> None:
    media, _, parameters = value.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise HTTPException(415, f"send the body as application/json in UTF-8, not as {value[:80] or 'an unnamed type'}")
