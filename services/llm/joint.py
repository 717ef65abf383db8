"""Joint encoders of the service: one thread computes for all, requests wait in a bounded queue, each is worked off in small batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ndml.errors import DeadlinePassed, FieldInvalid, ModelUnavailable, ModelUnknown, NdmlError, Overloaded
from ndml.runtime.log import get_logger
from services.llm.ports import Floats, JointEncoder, Media, Unreadable
from services.llm.settings import JointSection

log = get_logger(__name__)

T = TypeVar("T")


class JointQueue:
    """Component: loads the encoders at start and owns the thread that computes. `load` builds them, `prepare` runs first in that thread."""

    def __init__(self, settings: JointSection, load: Callable[[], Mapping[str, JointEncoder]], prepare: Callable[[], None]) -> None:
        self._settings, self._load, self._prepare = settings, load, prepare
        self._waiting = 0
        self._thread: ThreadPoolExecutor | None = None
        self.encoders: Mapping[str, JointEncoder] = {}

    async def start(self) -> None:
        """Raises ModelUnavailable."""
        if self._settings.models:
            self.encoders = await asyncio.to_thread(self._load)
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="joint", initializer=self._prepare)

    async def stop(self) -> None:
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def embed(self, space: str, texts: Sequence[str], media: Sequence[Media], timeout_s: float | None) -> list[bytes]:
        """Unit vectors of texts, then of media, float32 little-endian.

        Raises ModelUnknown, FieldInvalid for what cannot be read, Overloaded, DeadlinePassed, ModelUnavailable.
        """
        encoder = self.encoders.get(space)
        if encoder is None or self._thread is None:
            configured = ", ".join(self.encoders) or "none"
            raise ModelUnknown(f"no joint encoder is called {space!r} (joint.models has {configured})", field="space")
        for i, each in enumerate(media):
            if each.media_type.partition("/")[0].lower() not in encoder.media:
                read = ", ".join(encoder.media)
                raise FieldInvalid(f"{space!r} reads {read}, not {each.media_type}", field=f"contents[{i}].media_type")
        if self._waiting >= self._settings.queue:
            raise Overloaded(f"{self._waiting} requests wait for a joint encoder (joint.queue): come back shortly")
        self._waiting += 1
        # Released when the thread is through with it, not when its caller leaves: what still computes still takes its place.
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._embed, encoder, texts, media)
        work.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(work), timeout_s)
        except TimeoutError:
            work.cancel()
            raise DeadlinePassed("the joint encoder took longer than the caller waits: ask for fewer at once") from None

    def _done(self, work: asyncio.Future[list[bytes]]) -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # its caller may be gone

    def _embed(self, encoder: JointEncoder, texts: Sequence[str], media: Sequence[Media]) -> list[bytes]:
        try:
            return self._in_batches(encoder.encode_texts, texts) + self._in_batches(encoder.encode_media, media)
        except NdmlError:
            raise
        except Exception as error:
            log.error("joint_encoder_failed", exc_info=error)
            raise ModelUnavailable("the joint encoder failed: the llm service's log has the details") from error

    def _in_batches(self, encode: Callable[[Sequence[T]], Floats], inputs: Sequence[T]) -> list[bytes]:
        made: list[bytes] = []
        for start in range(0, len(inputs), self._settings.batch):
            try:
                rows = encode(inputs[start : start + self._settings.batch])
            except Unreadable as error:
                raise FieldInvalid(str(error), field=f"contents[{start + error.place}].data") from None
            made += [row.astype("<f4").tobytes() for row in rows]
        return made
