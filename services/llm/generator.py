"""A local model as a `Generator`: one thread for each generation, text streamed to the event loop token by token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

from ndml.errors import FieldInvalid, ModelUnavailable
from ndml.runtime.log import get_logger
from services.llm.admission import Admission
from services.llm.ports import Finish, Message, Sampling
from services.llm.prompt import PLAIN_STOPS
from services.llm.settings import ChatSection
from services.llm.text_stream import Detokenizer, StopFilter

if TYPE_CHECKING:
    from services.llm.local_model import LocalModel

log = get_logger(__name__)


class HuggingFaceGenerator:
    """Component and `Generator`. `load` reads the model, at start and in a thread; `prepare` runs first in each generating thread."""

    def __init__(self, settings: ChatSection, load: Callable[[], LocalModel], prepare: Callable[[], None] = lambda: None) -> None:
        self._settings, self._load = settings, load
        self._local: LocalModel | None = None
        self._admission = Admission("generate", settings.max_concurrent, settings.max_waiting)
        self._pool = ThreadPoolExecutor(settings.max_concurrent, "generate", initializer=prepare)
        self._running: set[Event] = set()

    @property
    def model(self) -> str:
        return self._settings.model if self._local is None else self._local.name

    async def start(self) -> None:
        """Raises ModelUnavailable where the model cannot be loaded."""
        self._local = await asyncio.to_thread(self._load)
        log.info("chat_model_loaded", model=self._local.name, plain_template=self._local.prompts.plain)

    async def stop(self) -> None:
        for halt in self._running:
            halt.set()
        await asyncio.to_thread(self._pool.shutdown)

    async def generate(
        self, messages: Sequence[Message], sampling: Sampling, remaining_s: float | None
    ) -> AsyncGenerator[str | Finish, None]:
        """See ports.Generator."""
        local = self._local
        if local is None:
            raise ModelUnavailable("the chat model is still loading: retry in a few seconds", retry_after_s=2.0)
        async with self._admission.turn(remaining_s):
            loop, halt = asyncio.get_running_loop(), Event()
            # At most one entry for each new token, 4,096: a slow reader cannot make it grow past that.
            pieces: asyncio.Queue[str | Finish | BaseException] = asyncio.Queue()

            def send(item: str | Finish | BaseException) -> None:
                loop.call_soon_threadsafe(pieces.put_nowait, item)

            self._running.add(halt)
            work = loop.run_in_executor(self._pool, _generate, local, messages, sampling, self._settings.default_max_new_tokens, halt, send)
            try:
                while not isinstance(item := await pieces.get(), Finish):
                    if isinstance(item, BaseException):
                        raise item
                    yield item
                yield item
            finally:
                halt.set()
                self._running.discard(halt)
                await asyncio.shield(work)  # the slot is free again only when the thread is


def _generate(
    local: LocalModel,
    messages: Sequence[Message],
    sampling: Sampling,
    default_new: int,
    halt: Event,
    send: Callable[[str | Finish | BaseException], None],
) -> None:
    """The work of one generation, in its thread; every outcome goes through `send`."""
    try:
        prompt, new_tokens = local.prepare(messages, sampling, default_new)
        text = _TextOut(local, sampling, halt, send)
        reason = local.run(prompt, new_tokens, sampling, text.take)
        text.finish()
        send(Finish(reason, len(prompt), text.tokens))
    except FieldInvalid as error:
        send(error)
    except Exception as error:
        log.exception("generation_failed")
        send(ModelUnavailable(f"the chat model failed: {' '.join(str(error).split())[:300]}"))


class _TextOut:
    """Tokens in, text pieces out through `send`."""

    def __init__(self, local: LocalModel, sampling: Sampling, halt: Event, send: Callable[[str], None]) -> None:
        self._detokenizer = Detokenizer(local.decode)
        self._stop = StopFilter((*sampling.stop, *(PLAIN_STOPS if local.prompts.plain else ())))
        self._lead = local.prompts.plain  # "assistant:" is followed by a blank that is no part of the answer
        self._halt, self._send = halt, send
        self.tokens = 0

    def take(self, token: int) -> bool:
        """False: enough."""
        if self._halt.is_set():
            return False
        self.tokens += 1
        self._out(self._stop.add(self._detokenizer.add(token)))
        return not self._stop.stopped

    def finish(self) -> None:
        self._out(self._stop.add(self._detokenizer.flush()))
        self._out(self._stop.flush())

    def _out(self, piece: str) -> None:
        if self._lead:
            piece = piece.lstrip()
        if piece:
            self._lead = False
            self._send(piece)
