"""A chat API over HTTP as a `Generator`: admission, retries, timeouts, refusals. What it speaks is a `Dialect`."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

import httpx

from ndml.errors import DeadlinePassed, FieldInvalid, FusionUnsupported, ModelNotConfigured, ModelUnavailable, NdmlError, ScoresUnsupported
from ndml.fusion.prompt import Block, PromptLimits, write_block
from ndml.runtime.log import get_logger
from services.llm.admission import Admission
from services.llm.control_tokens import CONTROL_TOKENS
from services.llm.names import check_model
from services.llm.ports import WAYS, Abilities, Ask, Finish, Message, Score, WayName
from services.llm.settings import ChatSection
from services.llm.sse import EventTooLong, SseDecoder
from services.llm.tool_calls import check_tools, whole_text

log = get_logger(__name__)

_MESSAGE_CHARS = 500  # of an upstream's own words in our error
_ERROR_BYTES = 64 << 10  # read of an error's body
_WHOLE_BYTES = 1 << 20  # of an answer that does not come as a stream; the longest we ask for has some 16 kB
_LONGEST_DELAY_S = 5.0
_BYTES_PER_TOKEN = 4  # of English in today's vocabularies; other scripts take more bytes a token, so this errs to the safe side
_FRAME = 16  # tokens that a template puts around a message
_CHECK = "check chat.upstream_url, chat.model and chat.api_key (NDML_LLM__CHAT__API_KEY)"
_ELSEWHERE = "the chat model runs at an upstream, which takes text alone: use FUSION_WAY_PROMPT, or serve the model here"


NO_STREAM = (EventTooLong, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What a `Reader` raises for events that are no answer."""
_MOST_TOKENS = (1 << 31) - 1  # what the contract's counts hold


class StreamFailed(Exception):
    """The upstream says in its stream that it failed. status: of HTTP, as the event names it; 0 where it names none."""

    def __init__(self, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.status = status


class Reader(Protocol):
    """One answer's events. `take` and `finish` raise one of NO_STREAM for what is none, StreamFailed for a failure that it reports."""

    def take(self, event: str) -> str:
        """New text of an event."""

    def finish(self) -> Finish | None:
        """How it ended, None before the upstream said so."""


class Dialect(Protocol):
    """What an upstream speaks."""

    path: str

    def headers(self, key: str) -> dict[str, str]:
        """key: "" where none is configured."""

    def body(self, ask: Ask, messages: Sequence[Message], new_tokens: int) -> dict[str, Any]:
        """Of the request. Raises FieldInvalid for what cannot be said in it."""

    def reader(self) -> Reader:
        """For one answer."""


class _TryAgain(Exception):
    """A failure before the first token that another attempt may not meet."""

    def __init__(self, error: NdmlError, delay_s: float = 0.0) -> None:
        super().__init__(error.message)
        self.error, self.delay_s = error, delay_s


class Upstream:
    """Component and `Generator`. Retries only before the first token; after it a failure is the caller's to see."""

    def __init__(self, settings: ChatSection, dialect: Dialect) -> None:
        self._settings, self._dialect = settings, dialect
        self._url = settings.upstream_url.rstrip("/") + dialect.path
        self._admission = Admission("generate", settings.max_concurrent, settings.max_waiting)
        self._client: httpx.AsyncClient | None = None

    @property
    def model(self) -> str:
        return self._settings.model

    @property
    def abilities(self) -> Abilities:
        refusals: dict[WayName, str] = {way: "" if way == "prompt" else _ELSEWHERE for way in WAYS}
        return Abilities(refusals, scores=False, context_tokens=self._settings.context_tokens)

    async def start(self) -> None:
        timeout = httpx.Timeout(self._settings.read_timeout_s, connect=self._settings.connect_timeout_s)
        limits = httpx.Limits(max_connections=self._settings.max_concurrent, max_keepalive_connections=self._settings.max_concurrent)
        headers = self._dialect.headers(self._settings.api_key.get_secret_value())
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, headers=headers)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def score(self, texts: Sequence[str], context: str, remaining_s: float | None) -> list[Score]:
        """Raises ScoresUnsupported."""
        raise ScoresUnsupported(f"the chat model {self.model} runs at an upstream, whose API does not score given texts")

    async def generate(self, ask: Ask, remaining_s: float | None) -> AsyncGenerator[str | Finish, None]:
        """See ports.Generator."""
        until = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
        body, read = self._request(ask)
        async with self._admission.turn(remaining_s), aclosing(self._attempts(body)) as pieces:
            while True:
                try:
                    async with asyncio.timeout_at(until):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise DeadlinePassed("the deadline passed while the upstream generated: allow more time or fewer tokens") from None
                yield replace(piece, read=read) if isinstance(piece, Finish) else piece

    def _request(self, ask: Ask) -> tuple[dict[str, Any], tuple[int, ...]]:
        """The body, and which entries of memory stand in it."""
        check_model(ask.model, self.model, self.model)
        check_tools(ask.tools, ask.tool_choice)
        if ask.fusion not in (None, "prompt"):
            raise FusionUnsupported(_ELSEWHERE, field="fusion")
        new_tokens = ask.sampling.max_new_tokens or self._settings.default_max_new_tokens
        block = self._block(ask, new_tokens)
        body = self._dialect.body(ask, with_block(ask.messages, block), new_tokens)
        return body | {"model": self._settings.model, "stream": True}, block.used

    def _block(self, ask: Ask, new_tokens: int) -> Block:
        room = self._settings.memory_tokens
        if self._settings.context_tokens:
            said = [m.content for m in ask.messages] + [f"{t.name} {t.description} {t.parameters}" for t in ask.tools]
            room = min(room, self._settings.context_tokens - new_tokens - sum(tokens_of(text) + _FRAME for text in said))
        return write_block(ask.memory, tokens_of, PromptLimits(max(room, 0), self._settings.entry_chars), CONTROL_TOKENS)

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
        reader = self._dialect.reader()
        try:
            async with self._client.stream("POST", self._url, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    await self._refuse(response)
                async for event in _events(response):
                    if text := reader.take(event):
                        yield text
            finish = reader.finish()
        except httpx.TimeoutException as error:
            raise _TryAgain(self._unavailable(f"did not answer in time ({type(error).__name__})")) from error
        except httpx.HTTPError as error:
            raise _TryAgain(self._unavailable(f"broke off: {error or type(error).__name__}")) from error
        except StreamFailed as error:
            raise self._failure(error) from error
        except NO_STREAM as error:
            raise self._unavailable(f"sent what is no chat completion stream: {error!r}") from error
        if finish is None:
            raise _TryAgain(self._unavailable("ended its answer without a finish_reason"))
        yield finish

    async def _refuse(self, response: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        body = b""
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _ERROR_BYTES:
                break
        words = words_of(body.decode("utf-8", "replace"))
        raise self._refusal(response.status_code, words, _retry_after(response))

    def _refusal(self, status: int, words: str, delay_s: float = 0.0) -> Exception:
        """What a status other than 200 means, in the status line or in an event."""
        if status in (400, 413, 422):
            return FieldInvalid(f"the upstream refuses the request ({status}): {words}", field="messages")
        if status in (401, 403, 404):
            return ModelNotConfigured(f"the upstream at {self._url} answers {status}: {words} -- {_CHECK}")
        error = self._unavailable(f"answers {status}: {words}")
        return _TryAgain(error, delay_s) if status in (408, 429) or status >= 500 else error

    def _failure(self, failure: StreamFailed) -> Exception:
        """What an event means that says so. Without a status, another attempt may not meet it."""
        if failure.status:
            return self._refusal(failure.status, str(failure))
        return _TryAgain(self._unavailable(f"failed: {failure}"))

    def _unavailable(self, what: str) -> ModelUnavailable:
        return ModelUnavailable(f"the upstream at {self._url} {what[:_MESSAGE_CHARS]}", retry_after_s=1.0)


def tokens_of(text: str) -> int:
    """A guess, where the tokenizer is elsewhere."""
    return len(text.encode()) // _BYTES_PER_TOKEN + 1


def with_block(messages: Sequence[Message], block: Block) -> list[Message]:
    """The conversation as `Block.into` has it, for upstreams too."""
    return [turn if isinstance(turn, Message) else Message("system", turn.content) for turn in block.into(messages)]


def count_of(value: Any) -> int:
    """Tokens as an upstream counts them: nothing where it says nothing, within what our contract can say. Raises one of NO_STREAM."""
    return min(max(int(value or 0), 0), _MOST_TOKENS)


def words_of(text: str) -> str:
    """The upstream's own message, from {"error": {"message": …}}, {"error": "…"} or whatever it sent."""
    try:
        data = json.loads(text)
        error = data.get("error", data) if isinstance(data, dict) else data
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (ValueError, RecursionError):
        text = text or "no message"
    return whole_text(" ".join(text.split())[:_MESSAGE_CHARS])


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    """Data of the stream's events up to [DONE]; a body of JSON, from a server that does not stream, is one event."""
    if response.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
        yield await _whole(response)
        return
    decoder = SseDecoder()
    async for part in response.aiter_bytes():
        for event in decoder.feed(part):
            if event == "[DONE]":
                return
            yield event
    for event in decoder.close():
        if event != "[DONE]":
            yield event


async def _whole(response: httpx.Response) -> str:
    """The body. Raises EventTooLong, UnicodeDecodeError."""
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _WHOLE_BYTES:
            raise EventTooLong
    return body.decode()


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the upstream asks for; its other form, a date, counts as not said."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else 0.0
