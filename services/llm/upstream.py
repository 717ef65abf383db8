"""An OpenAI-compatible chat API (vLLM, Ollama, llama.cpp, OpenAI) as a `Generator`."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import httpx

from ndml.errors import DeadlinePassed, FieldInvalid, ModelNotConfigured, ModelUnavailable, NdmlError
from ndml.runtime.log import get_logger
from services.llm.admission import Admission
from services.llm.ports import Finish, Message, Sampling
from services.llm.settings import ChatSection
from services.llm.sse import EventTooLong, SseDecoder

log = get_logger(__name__)

_MESSAGE_CHARS = 500  # of an upstream's own words in our error
_ERROR_BYTES = 64 << 10  # read of an error's body
_LONGEST_DELAY_S = 5.0


class _TryAgain(Exception):
    """A failure before the first token that another attempt may not meet."""

    def __init__(self, error: NdmlError, delay_s: float = 0.0) -> None:
        super().__init__(error.message)
        self.error, self.delay_s = error, delay_s


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What one event says."""

    text: str = ""
    finish: Finish | None = None
    usage: tuple[int, int] | None = None


class OpenAIUpstream:
    """Component and `Generator`. Retries only before the first token; after it a failure is the caller's to see."""

    def __init__(self, settings: ChatSection) -> None:
        self._settings = settings
        self._url = settings.upstream_url.rstrip("/") + "/chat/completions"
        self._admission = Admission("generate", settings.max_concurrent, settings.max_waiting)
        self._client: httpx.AsyncClient | None = None

    @property
    def model(self) -> str:
        return self._settings.model

    async def start(self) -> None:
        key = self._settings.api_key.get_secret_value()
        timeout = httpx.Timeout(self._settings.read_timeout_s, connect=self._settings.connect_timeout_s)
        self._client = httpx.AsyncClient(timeout=timeout, headers={"authorization": f"Bearer {key}"} if key else {})

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, remaining_s: float | None
    ) -> AsyncGenerator[str | Finish, None]:
        """See ports.Generator."""
        until = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
        async with self._admission.turn(remaining_s), aclosing(self._attempts(self._body(messages, sampling))) as pieces:
            while True:
                try:
                    async with asyncio.timeout_at(until):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise DeadlinePassed("the deadline passed while the upstream generated: allow more time or fewer tokens") from None
                yield piece

    async def _attempts(self, body: dict[str, Any]) -> AsyncGenerator[str | Finish, None]:
        for attempt in range(self._settings.retries + 1):
            begun = False
            try:
                async with aclosing(self._attempt(body)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except _TryAgain as failure:
                if begun or attempt == self._settings.retries:
                    raise failure.error from failure
                delay = max(failure.delay_s, self._settings.retry_delay_s * 2**attempt * random.uniform(0.5, 1.0))
                log.warning("upstream_retry", attempt=attempt + 1, delay_s=round(delay, 2), error=failure.error.message)
                await asyncio.sleep(min(delay, _LONGEST_DELAY_S))

    async def _attempt(self, body: dict[str, Any]) -> AsyncGenerator[str | Finish, None]:
        """One request. Raises _TryAgain for what may pass, NdmlError for what will not."""
        if self._client is None:
            raise ModelUnavailable("the upstream's client is not started: retry in a second")
        finish: Finish | None = None
        usage = (0, 0)
        try:
            async with self._client.stream("POST", self._url, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    await self._refuse(response)
                async for event in _events(response):
                    chunk = _chunk(event)
                    if chunk.text:
                        yield chunk.text
                    finish, usage = chunk.finish or finish, chunk.usage or usage
        except httpx.TimeoutException as error:
            raise _TryAgain(self._unavailable(f"did not answer in time ({type(error).__name__})")) from error
        except httpx.HTTPError as error:
            raise _TryAgain(self._unavailable(f"broke off: {error or type(error).__name__}")) from error
        except (EventTooLong, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._unavailable(f"sent what is no chat completion stream: {error!r}") from error
        if finish is None:
            raise _TryAgain(self._unavailable("ended its answer without a finish_reason"))
        yield replace(finish, prompt_tokens=usage[0], completion_tokens=usage[1])

    async def _refuse(self, response: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        body = b""
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _ERROR_BYTES:
                break
        status, words = response.status_code, _words(body)
        if status in (400, 413, 422):
            raise FieldInvalid(f"the upstream refuses the request ({status}): {words}", field="messages")
        if status in (401, 403, 404):
            raise ModelNotConfigured(
                f"the upstream at {self._url} answers {status}: {words} -- check chat.upstream_url, chat.model and chat.api_key "
                "(NDML_LLM__CHAT__API_KEY)"
            )
        error = self._unavailable(f"answers {status}: {words}")
        if status in (408, 429) or status >= 500:
            raise _TryAgain(error, _retry_after(response))
        raise error

    def _unavailable(self, what: str) -> ModelUnavailable:
        return ModelUnavailable(f"the upstream at {self._url} {what[:_MESSAGE_CHARS]}", retry_after_s=1.0)

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            self._settings.max_tokens_field: sampling.max_new_tokens or self._settings.default_max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        optional = {"stop": list(sampling.stop) or None, "seed": sampling.seed}
        return body | {key: value for key, value in optional.items() if value is not None}


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    """Data of the stream's events up to [DONE]."""
    decoder = SseDecoder()
    async for part in response.aiter_bytes():
        for event in decoder.feed(part):
            if event == "[DONE]":
                return
            yield event
    for event in decoder.close():
        if event != "[DONE]":
            yield event


def _chunk(event: str) -> _Chunk:
    """Read one event. Raises ModelUnavailable for an error the upstream reports in its stream, ValueError and kin for garbage."""
    data = json.loads(event)
    if data.get("error"):
        raise ModelUnavailable(f"the upstream failed: {_words(event.encode())}")
    usage = data.get("usage")
    counts = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)) if usage else None
    if not data["choices"]:
        return _Chunk(usage=counts)
    choice = data["choices"][0]
    text = (choice.get("delta") or {}).get("content") or ""
    if not isinstance(text, str):
        raise TypeError(f"delta.content is a {type(text).__name__}")
    reason = choice.get("finish_reason")
    finish = Finish("length" if reason == "length" else "stop", 0, 0) if reason else None
    return _Chunk(text, finish, counts)


def _words(body: bytes) -> str:
    """The upstream's own message, from {"error": {"message": …}}, {"error": "…"} or whatever it sent."""
    text = body.decode("utf-8", "replace")
    try:
        data = json.loads(text)
        error = data.get("error", data) if isinstance(data, dict) else data
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except ValueError:
        text = text or "no message"
    return " ".join(text.split())[:_MESSAGE_CHARS]


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the upstream asks for; its other form, a date, counts as not said."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else 0.0
