"""The client for threads. The parameters and contract of each method stand in `_operations.py`, once for both clients."""

from __future__ import annotations

import builtins
import copy
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import grpc

from ndml import wire
from ndml.client import _decode as decode
from ndml.client._administration import restored_part
from ndml.client._attempts import Attempts
from ndml.client._calls import Call, Identity, Page, Streamed, Unary, presented
from ndml.client._chunks import Chunks
from ndml.client._connection import SyncConnection
from ndml.client._models import Added, ImportResult, Memory, NewMemory, Query, RestoreResult, SearchResult
from ndml.client._operations import Operations, Outcome, checked
from ndml.client._options import DEFAULT_ADDRESS, CallOptions, ClientOptions
from ndml.client._session import Tokens
from ndml.client._streams import BackupStream, ChatStream, ConsolidationStream, DrainStream, ExportStream, ForgetStream, SyncStream

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=SyncStream[Any])
_Batches = Chunks[Any, Any, Unary[list[Outcome]]]


def _unary(operation: Callable[Concatenate[Operations, P], Unary[R]]) -> Callable[Concatenate[NdmlClient, P], R]:
    @presented(operation)
    def method(self: NdmlClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._send(operation(self._operations, *args, **kwargs))

    return method


def _paged(operation: Callable[Concatenate[Operations, P], Unary[Page[R]]]) -> Callable[Concatenate[NdmlClient, P], Iterator[R]]:
    @presented(operation)
    def method(self: NdmlClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        return self._pages(operation(self._operations, *args, **kwargs))

    return method


def _streamed(
    operation: Callable[Concatenate[Operations, P], Streamed], into: Callable[[Generator[Any, None, None]], S]
) -> Callable[Concatenate[NdmlClient, P], S]:
    @presented(operation)
    def method(self: NdmlClient, /, *args: P.args, **kwargs: P.kwargs) -> S:
        return into(self._messages(operation(self._operations, *args, **kwargs)))

    return method


class NdmlClient:
    """Memory over gRPC, for threads; safe to share between them. Use it in a `with` block, or `close` it.

    address: "host:port", a gRPC target, or several "ip:port" joined by commas that take calls in turn.
    tenant, user, agent, session, timeout_s: defaults that every call may replace by keywords of the same names.
    token: sent as `authorization: Bearer …`. Errors are leaves of `ndml.errors`.
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
        self._connection = SyncConnection(address, options)

    add = _unary(Operations.add)
    search = _unary(Operations.search)
    get = _unary(Operations.get)
    list = _paged(Operations.list)
    update = _unary(Operations.update)
    delete = _unary(Operations.delete)
    forget = _streamed(Operations.forget, ForgetStream)
    resolve = _unary(Operations.resolve)
    reinforce = _unary(Operations.reinforce)
    consolidate = _streamed(Operations.consolidate, ConsolidationStream)
    profile = _unary(Operations.profile)
    stats = _unary(Operations.stats)
    export = _streamed(Operations.export, ExportStream)
    chat = _streamed(Operations.chat, ChatStream)
    models = _unary(Operations.models)
    embed = _unary(Operations.embed)
    cluster_status = _unary(Operations.cluster_status)
    placement = _unary(Operations.placement)
    create_snapshot = _unary(Operations.create_snapshot)
    drain = _streamed(Operations.drain, DrainStream)
    backup = _streamed(Operations.backup, BackupStream)

    def add_many(
        self,
        memories: Iterable[NewMemory | str],
        *,
        request_id: str = "",
        deduplicate: bool = False,
        return_errors: bool = False,
        **options: Unpack[CallOptions],
    ) -> builtins.list[Added]:
        """Store many memories, in order; the input may be a generator, it is read as it is sent. One result for each.

        `request_id`: the same id with the same input writes nothing twice. `deduplicate`: as in `add`, for each. The first refused
        memory is raised, with its position as metadata "index", after its chunk was written; with `return_errors` it is in the results
        and the rest goes on.
        """
        return self._in_chunks(
            memories, self._operations.add_many(request_id=request_id, deduplicate=deduplicate, **options), return_errors
        )

    def search_many(
        self, queries: Iterable[Query | str], *, return_errors: bool = False, **options: Unpack[CallOptions]
    ) -> builtins.list[SearchResult]:
        """Many searches in few messages, one result for each, in order. Errors as in `add_many`."""
        return self._in_chunks(queries, self._operations.search_many(**options), return_errors)

    def import_(self, memories: Iterable[Memory], **options: Unpack[CallOptions]) -> ImportResult:
        """Take in what `export` gave, keeping ids and times; a memory that is there already is left as it is.

        The input may be a generator. A memory goes to the user (agent, session) that the call names, else to its own, else to the client's.
        """
        call, chunks = self._operations.import_(**options)
        return decode.imported(self._upload(call, _chunked(memories, chunks)))

    def restore(self, parts: Iterable[bytes], **options: Unpack[CallOptions]) -> RestoreResult:
        """Join the parts of a backup into the suite, whatever its number of nodes: what was erased since stays erased.

        Repeating it is safe. Raises FieldInvalid for what is no part of a backup, OwnerUnavailable.
        """
        return decode.restored(self._upload(self._operations.restore(**options), map(restored_part, parts)))

    def scoped(self, *, user: str = "", agent: str = "", session: str = "") -> Self:
        """This client with other defaults; channel and session are shared, and closed with the first of them that is closed."""
        own = self._operations.identity
        identity = replace(own, user=user or own.user, agent=agent or own.agent, session=session or own.session)
        clone = copy.copy(self)
        clone._operations = replace(self._operations, identity=identity)
        return clone

    def close(self) -> None:
        """End calls under way and the channel. Further calls raise FailedPrecondition."""
        channel = self._connection.detach()
        if channel is not None:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, unary: Unary[R]) -> R:
        call = unary.call
        attempts = Attempts(self._operations.options.retry, call.timeout_s, repeatable=call.repeatable)
        while True:
            try:
                response = self._connection.method(call)(unary.request, timeout=attempts.remaining(), metadata=call.metadata)
            except grpc.RpcError as failure:
                time.sleep(unary.delay_after(attempts, failure))
            else:
                return unary.parse(response)

    def _pages(self, first: Unary[Page[R]]) -> Iterator[R]:
        page: Page[R] = Page([], first)
        while page.following is not None:
            page = self._send(page.following)
            yield from page.items

    def _messages(self, streamed: Streamed) -> Generator[Any, None, None]:
        call = streamed.call
        attempts = Attempts(self._operations.options.retry, call.timeout_s, repeatable=call.repeatable)
        begun = False
        while True:
            responses = self._connection.method(call)(streamed.request, timeout=attempts.remaining(), metadata=call.metadata)
            try:
                for response in responses:
                    begun = True
                    streamed.note(response)
                    yield response
                return
            except grpc.RpcError as failure:
                time.sleep(attempts.delay_after(failure, begun=begun))
            finally:
                responses.cancel()

    def _upload(self, call: Call, messages: Iterable[Any]) -> Any:
        broken: builtins.list[Exception] = []

        def requests() -> Iterator[Any]:
            try:
                yield from messages
            except Exception as error:  # gRPC reads this in a thread of its own and would only say that iterating failed.
                broken.append(error)
                raise

        try:
            return self._connection.method(call)(requests(), timeout=call.timeout_s, metadata=call.metadata)
        except grpc.RpcError as failure:
            raise (broken[0] if broken else wire.rpc_error_to_ndml(failure)) from failure

    def _in_chunks(
        self, items: Iterable[Any], chunks: Chunks[Any, Any, Unary[builtins.list[Outcome]]], return_errors: bool
    ) -> builtins.list[Outcome]:
        done: builtins.list[Outcome] = []
        for unary in _chunked(items, chunks):
            done += checked(self._send(unary), first=len(done), return_errors=return_errors)
        return done


def _chunked(items: Iterable[Any], chunks: Chunks[Any, Any, R]) -> Iterator[R]:
    for item in items:
        if (full := chunks.push(item)) is not None:
            yield full
    if (rest := chunks.finish()) is not None:
        yield rest
