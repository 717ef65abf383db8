"""What the streaming calls gather as they run (Exported, Answer) and the two ways to iterate them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Generic, Self, TypeVar

from ndml.client import _decode as decode
from ndml.client._dynamics import ConsolidationProgress
from ndml.client._models import Citation, DrainProgress, Memory, SearchStats, ToolCall
from ndml.v1 import admin_pb2, chat_pb2, memory_pb2

Item = TypeVar("Item")


class _Gathering(ABC, Generic[Item]):
    @abstractmethod
    def absorb(self, message: Any) -> list[Item]:
        """The items of one message; what belongs to the whole stream is kept."""


class Exported(_Gathering[Memory]):
    """Memories of a scope, first learned first."""

    total: int | None = None
    """Traces in the export, as counted at its start; None before the first memory."""

    def absorb(self, message: memory_pb2.ExportMemoriesResponse) -> list[Memory]:
        self.total = message.total
        return [decode.memory(trace) for trace in message.traces]


class Consolidating(_Gathering[ConsolidationProgress]):
    """Progress of a consolidation; closing the stream stops the work before the next cluster."""

    last: ConsolidationProgress | None = None
    """The newest message: after the last one, the totals."""

    def absorb(self, message: memory_pb2.ConsolidateMemoriesResponse) -> list[ConsolidationProgress]:
        self.last = decode.progress(message)
        return [self.last]


class Forgetting(_Gathering[int]):
    """Memories erased so far, each time more are; closing the stream stops the work, what is erased stays erased."""

    erased: int = 0
    done: bool = False
    """The scope was found empty."""

    def absorb(self, message: memory_pb2.ForgetScopeResponse) -> list[int]:
        self.erased, self.done = message.erased, message.done
        return [self.erased]


class Draining(_Gathering[DrainProgress]):
    """Progress of a drain; closing the stream does not stop it."""

    last: DrainProgress | None = None
    """The newest message."""

    def absorb(self, message: admin_pb2.DrainNodeResponse) -> list[DrainProgress]:
        self.last = decode.drain(message)
        return [self.last]


class BackingUp(_Gathering[bytes]):
    """Parts of a backup, in the order in which they are to be restored."""

    owners_done: int = 0
    """Owners whose parts have all come."""
    owners_total: int | None = None
    """Owners in all, as counted at the start; None before the first part."""

    def absorb(self, message: admin_pb2.BackupResponse) -> list[bytes]:
        self.owners_done, self.owners_total = message.owners_done, message.owners_total
        return [message.part.SerializeToString(deterministic=True)]


class Answer(_Gathering[str]):
    """The answer, piece by piece; everything but `text` is known after the last piece."""

    text: str = ""
    """What came so far."""
    citations: tuple[Citation, ...] = ()
    """What the model read, by number."""
    finish_reason: str = ""
    """"stop", "length" or "tool_calls"."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Tools that the model asks for."""
    fusion: str = ""
    """How it read memory; empty where it did not."""
    learned_trace_ids: tuple[str, ...] = ()
    """With learning="wait": traces written or strengthened."""
    model: str = ""
    """Model that answered."""
    prompt_tokens: int = 0
    """Tokens of the prompt, memory included."""
    completion_tokens: int = 0
    """Tokens generated."""
    recall_stats: SearchStats | None = None
    """How recall went."""
    answer_id: str = ""
    """Give it to `reinforce` to grade the answer: what it mentions, else all that was read; empty where that is nothing."""

    def absorb(self, message: chat_pb2.ChatResponse) -> list[str]:
        if message.finish_reason:
            self._close(message)
        self.text += message.delta
        return [message.delta] if message.delta else []

    def _close(self, last: chat_pb2.ChatResponse) -> None:
        self.citations = tuple(decode.citation(row) for row in last.citations)
        self.finish_reason = decode.finish_reason(last.finish_reason)
        self.model = last.model
        self.answer_id = last.answer_id
        self.tool_calls = tuple(decode.tool_call(row) for row in last.tool_calls)
        self.fusion = decode.fusion(last.fusion)
        self.learned_trace_ids = tuple(last.learned_trace_ids)
        self.prompt_tokens, self.completion_tokens = last.usage.prompt_tokens, last.usage.completion_tokens
        self.recall_stats = decode.stats(last.recall_stats) if last.HasField("recall_stats") else None


class SyncStream(_Gathering[Item]):
    """Iterate it once; `close`, or leaving a `with` block, stops the server's work too."""

    def __init__(self, messages: Generator[Any, None, None]) -> None:
        self._messages = messages
        self._items = self._run()

    def _run(self) -> Iterator[Item]:
        for message in self._messages:
            yield from self.absorb(message)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return next(self._items)

    def close(self) -> None:
        self._messages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_Gathering[Item]):
    """As SyncStream, with `async for`, `aclose` and `async with`."""

    def __init__(self, messages: AsyncGenerator[Any, None]) -> None:
        self._messages = messages
        self._items = self._run()

    async def _run(self) -> AsyncIterator[Item]:
        async for message in self._messages:
            for item in self.absorb(message):
                yield item

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        return await anext(self._items)

    async def aclose(self) -> None:
        await self._messages.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class ExportStream(Exported, SyncStream[Memory]):
    """Result of NdmlClient.export."""


class ChatStream(Answer, SyncStream[str]):
    """Result of NdmlClient.chat."""


class ConsolidationStream(Consolidating, SyncStream[ConsolidationProgress]):
    """Result of NdmlClient.consolidate."""


class ForgetStream(Forgetting, SyncStream[int]):
    """Result of NdmlClient.forget."""


class DrainStream(Draining, SyncStream[DrainProgress]):
    """Result of NdmlClient.drain."""


class BackupStream(BackingUp, SyncStream[bytes]):
    """Result of NdmlClient.backup."""


class AsyncForgetStream(Forgetting, AsyncStream[int]):
    """Result of AsyncNdmlClient.forget."""


class AsyncDrainStream(Draining, AsyncStream[DrainProgress]):
    """Result of AsyncNdmlClient.drain."""


class AsyncBackupStream(BackingUp, AsyncStream[bytes]):
    """Result of AsyncNdmlClient.backup."""


class AsyncConsolidationStream(Consolidating, AsyncStream[ConsolidationProgress]):
    """Result of AsyncNdmlClient.consolidate."""


class AsyncExportStream(Exported, AsyncStream[Memory]):
    """Result of AsyncNdmlClient.export."""


class AsyncChatStream(Answer, AsyncStream[str]):
    """Result of AsyncNdmlClient.chat."""
