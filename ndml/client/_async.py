"""The client for asyncio. The parameters and contract of each method stand in `_operations.py`, once for both clients."""

from __future__ import annotations

import asyncio
import builtins
import copy
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import grpc.aio

from ndml import wire
from ndml.client import _decode as decode
from ndml.client._administration import restored_part
from ndml.client._attempts import Attempts
from ndml.client._calls import Call, Identity, Page, Streamed, Unary, presented
from ndml.client._chunks import Chunks
from ndml.client._connection import AsyncConnection
from ndml.client._models import Added, ImportResult, Memory, NewMemory, Query, RestoreResult, SearchResult
from ndml.client._operations import Operations, Outcome, checked
from ndml.client._options import DEFAULT_ADDRESS, CallOptions, ClientOptions
from ndml.client._session import Tokens
from ndml.client._streams import (
    AsyncBackupStream,
    AsyncChatStream,
    AsyncConsolidationStream,
    AsyncDrainStream,
    AsyncExportStream,
    AsyncForgetStream,
    AsyncStream,
)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=AsyncStream[Any])
_Batches = Chunks[Any, Any, Unary[list[Outcome]]]
_Either = Iterable[R] | AsyncIterable[R]


def _unary(operation: Callable[Concatenate[Operations, P], Unary[R]]) -> Callable[Concatenate[AsyncNdmlClient, P], Awaitable[R]]:
    @presented(operation)
    async def method(self: AsyncNdmlClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._send(operation(self._operations, *args, **kwargs))

    return method


def _paged(
    operation: Callable[Concatenate[Operations, P], Unary[Page[R]]],
) -> Callable[Concatenate[AsyncNdmlClient, P], AsyncIterator[R]]:
    @presented(operation)
    def method(self: AsyncNdmlClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        return self._pages(operation(self._operations, *args, **kwargs))

    return method


def _streamed(
    operation: Callable[Concatenate[Operations, P], Streamed], into: Callable[[AsyncGenerator[Any, None]], S]
) -> Callable[Concatenate[AsyncNdmlClient, P], S]:
    @presented(operation)
    def method(self: AsyncNdmlClient, /, *args: P.args, **kwargs: P.kwargs) -> S:
        return into(self._messages(operation(self._operations, *args, **kwargs)))

    return method


class AsyncNdmlClient:
    """Memory over gRPC, for one event loop. Use it in an `async with` block, or `await close()`. Parameters as in NdmlClient.

    Streams and pages (`list`, `export`, `chat`, `consolidate`, `forget`) are iterated with `async for`, everything else is awaited.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        tenant: str = "",
        token: str = "",
        user: str = "",
        agent: str = "",
        session: str = "",
        timeout_s: float = 10.0,
        options: ClientOptions | None = None,
    ) -> None:
        options = options or ClientOptions()
        identity = Identity(tenant, token, user, agent, session, timeout_s)
        self._operations = Operations(identity, options, Tokens(options.remembered_owners))
        self._connection = AsyncConnection(address, options)

    add = _unary(Operations.add)
    search = _unary(Operations.search)
    get = _unary(Operations.get)
    list = _paged(Operations.list)
    update = _unary(Operations.update)
    delete = _unary(Operations.delete)
    forget = _streamed(Operations.forget, AsyncForgetStream)
    resolve = _unary(Operations.resolve)
    reinforce = _unary(Operations.reinforce)
    consolidate = _streamed(Operations.consolidate, AsyncConsolidationStream)
    profile = _unary(Operations.profile)
    stats = _unary(Operations.stats)
    export = _streamed(Operations.export, AsyncExportStream)
    chat = _streamed(Operations.chat, AsyncChatStream)
    models = _unary(Operations.models)
    embed = _unary(Operations.embed)
    cluster_status = _unary(Operations.cluster_status)
    placement = _unary(Operations.placement)
    create_snapshot = _unary(Operations.create_snapshot)
    drain = _streamed(Operations.drain, AsyncDrainStream)
    backup = _streamed(Operations.backup, AsyncBackupStream)

    async def add_many(
        self,
        memories: _Either[NewMemory | str],
        *,
        request_id: str = "",
        deduplicate: bool = False,
        return_errors: bool = False,
        **options: Unpack[CallOptions],
    ) -> builtins.list[Added]:
        """Store many memories, in order; the input may be a generator of either kind, it is read as it is sent. One result for each.

        `request_id`: the same id with the same input writes nothing twice. `deduplicate`: as in `add`, for each. The first refused
        memory is raised, with its position as metadata "index", after its chunk was written; with `return_errors` it is in the results
        and the rest goes on.
        """
        return await self._in_chunks(
            memories, self._operations.add_many(request_id=request_id, deduplicate=deduplicate, **options), return_errors
        )

    async def search_many(
        self, queries: _Either[Query | str], *, return_errors: bool = False, **options: Unpack[CallOptions]
    ) -> builtins.list[SearchResult]:
        """Many searches in few messages, one result for each, in order. Errors as in `add_many`."""
        return await self._in_chunks(queries, self._operations.search_many(**options), return_errors)

    async def import_(self, memories: _Either[Memory], **options: Unpack[CallOptions]) -> ImportResult:
        """Take in what `export` gave, keeping ids and times; a memory that is there already is left as it is.

        The input may be a generator. A memory goes to the user (agent, session) that the call names, else to its own, else to the client's.
        """
        call, chunks = self._operations.import_(**options)
        return decode.imported(await self._upload(call, _chunked(memories, chunks)))

    async def restore(self, parts: _Either[bytes], **options: Unpack[CallOptions]) -> RestoreResult:
        """Join the parts of a backup into the suite, whatever its number of nodes: what was erased since stays erased.

        Repeating it is safe. Raises FieldInvalid for what is no part of a backup, OwnerUnavailable.
        """
        messages = (restored_part(part) async for part in _each(parts))
        return decode.restored(await self._upload(self._operations.restore(**options), messages))

    def scoped(self, *, user: str = "", agent: str = "", session: str = "") -> Self:
        """This client with other defaults; channel and session are shared, and closed with the first of them that is closed."""
        own = self._operations.identity
        identity = replace(own, user=user or own.user, agent=agent or own.agent, session=session or own.session)
        clone = copy.copy(self)
        clone._operations = replace(self._operations, identity=identity)
        return clone

    async def close(self) -> None:
        """End calls under way and the channel. Further calls raise FailedPrecondition."""
        channel = self._connection.detach()
        if channel is not None:
            await channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, unary: Unary[R]) -> R:
        call = unary.call
        attempts = Attempts(self._operations.options.retry, call.timeout_s, repeatable=call.repeatable)
        while True:
            try:
                response = await self._connection.method(call)(unary.request, timeout=attempts.remaining(), metadata=call.metadata)
            except grpc.RpcError as failure:
                await asyncio.sleep(unary.delay_after(attempts, failure))
            else:
                return unary.parse(response)

    async def _pages(self, first: Unary[Page[R]]) -> AsyncIterator[R]:
        page: Page[R] = Page([], first)
        while page.following is not None:
            page = await self._send(page.following)
            for item in page.items:
                yield item

    async def _messages(self, streamed: Streamed) -> AsyncGenerator[Any, None]:
        call = streamed.call
        attempts = Attempts(self._operations.options.retry, call.timeout_s, repeatable=call.repeatable)
        begun = False
        while True:
            responses = self._connection.method(call)(streamed.request, timeout=attempts.remaining(), metadata=call.metadata)
            try:
                async for response in responses:
                    begun = True
                    streamed.note(response)
                    yield response
                return
            except grpc.RpcError as failure:
                await asyncio.sleep(attempts.delay_after(failure, begun=begun))
            finally:
                responses.cancel()

    async def _upload(self, call: Call, messages: AsyncIterator[Any]) -> Any:
        stream = self._connection.method(call)(timeout=call.timeout_s, metadata=call.metadata)
        try:
            async for message in messages:
                if stream.done():  # The server has ended the call: its reason comes with the answer below.
                    break
                await stream.write(message)
            await stream.done_writing()
            return await stream
        except grpc.RpcError as failure:
            raise wire.rpc_error_to_ndml(failure) from failure
        finally:
            stream.cancel()

    async def _in_chunks(
        self, items: _Either[Any], chunks: Chunks[Any, Any, Unary[builtins.list[Outcome]]], return_errors: bool
    ) -> builtins.list[Outcome]:
        done: builtins.list[Outcome] = []
        async for unary in _chunked(items, chunks):
            done += checked(await self._send(unary), first=len(done), return_errors=return_errors)
        return done


async def _chunked(items: _Either[Any], chunks: Chunks[Any, Any, R]) -> AsyncIterator[R]:
    async for item in _each(items):
        if (full := chunks.push(item)) is not None:
            yield full
    if (rest := chunks.finish()) is not None:
        yield rest


async def _each(items: _Either[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
