"""Every call of the API, once: what is sent, how the answer is read, whether it is safe to repeat. No I/O: the two clients add that."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar, Unpack
from uuid import uuid4

from google.protobuf import field_mask_pb2

from ndml.client import _decode as decode
from ndml.client import _encode as encode
from ndml.client import _models as models
from ndml.client._administration import Administration
from ndml.client._basics import owner_of
from ndml.client._calls import Call, Page, Streamed, Unary
from ndml.client._chunks import Chunks
from ndml.client._contents import Content
from ndml.client._dynamics import CreditSpread, Feedback, Link, RankingWeights, Reinforced, SearchMode
from ndml.client._models import Added, Filter, Kind, Memory, NewMemory, Query, Scope, SearchResult
from ndml.client._options import CallOptions
from ndml.client._session import Owner, Tokens
from ndml.client._talking import Talking
from ndml.errors import FieldInvalid, NdmlError
from ndml.v1 import memory_pb2, types_pb2

R = TypeVar("R")
Outcome = TypeVar("Outcome", Added, SearchResult)


@dataclass(frozen=True, slots=True)
class Operations(Administration, Talking):
    """The calls, with the client's defaults filled in."""

    def add(
        self,
        text: str = "",
        *,
        speaker: str = "",
        said_at: datetime | None = None,
        kind: Kind | str = "",
        metadata: Mapping[str, str] | None = None,
        salience: float = 0.0,
        provenance: models.Provenance | None = None,
        embedding: object = None,
        protected: bool = False,
        expires_at: datetime | None = None,
        ttl_s: float | None = None,
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
        links: Sequence[Link] = (),
        contents: Sequence[Content] = (),
        deduplicate: bool = False,
        request_id: str = "",
        **options: Unpack[CallOptions],
    ) -> Unary[Added]:
        """Store one memory, of text, contents or both; it is on disk and findable when this returns. The fields are those of NewMemory.

        `deduplicate`: where the gate finds that another memory says the same, store nothing and strengthen that one.
        `request_id` (1 to 128 bytes; made up where it is not given) makes a repeat safe: the same id gives the same trace, once.
        Raises FieldInvalid, EmbeddingDimensionMismatch, EmbeddingNotFinite, EmbeddingModelMismatch, RequestIdReused,
        CapacityReached, OwnerUnavailable, DeadlinePassed.
        """
        scope = self._scope(options)
        what = (text, speaker, said_at, kind, metadata or {}, salience, provenance, embedding)
        new = NewMemory(
            *what,
            protected=protected,
            expires_at=expires_at,
            ttl_s=ttl_s,
            valid_from=valid_from,
            valid_until=valid_until,
            links=links,
            contents=tuple(contents),
        )
        request = memory_pb2.AddMemoryRequest(
            request_id=encode.text("request_id", request_id) or uuid4().hex,
            memory=encode.new_memory(new, scope),
            deduplicate=deduplicate,
            consistency=self._consistency(options),
        )
        return Unary(self._call("memory", "AddMemory", options), request, self._remembering([owner_of(scope)], decode.added))

    def add_many(
        self, *, request_id: str = "", deduplicate: bool = False, **options: Unpack[CallOptions]
    ) -> Chunks[Any, Any, Unary[builtins.list[Added]]]:
        """Turns memories pushed into it into batch calls."""
        scope, call = self._scope(options), self._call("memory", "BatchAddMemories", options)
        base, consistency = encode.text("request_id", request_id) or uuid4().hex, self._consistency(options)

        def pack(parts: builtins.list[memory_pb2.NewMemory], first: int) -> Unary[builtins.list[Added]]:
            # The position is part of the id: a repeated call with the same input and id makes the same chunks, so nothing doubles.
            request = memory_pb2.BatchAddMemoriesRequest(
                request_id=f"{base}/{first}", memories=parts, deduplicate=deduplicate, consistency=consistency
            )
            owners = {(part.scope.tenant, part.scope.user) for part in parts}
            return Unary(call, request, self._remembering(owners, decode.batch_added))

        return self._chunks(lambda item: encode.new_memory(item if isinstance(item, NewMemory) else NewMemory(item), scope), pack)

    def search(
        self,
        text: str = "",
        *,
        embedding: object = None,
        k: int = 0,
        filter: Filter | None = None,
        min_score: float | None = None,
        explain: bool = False,
        include_embedding: bool = False,
        include_strength: bool = False,
        weights: RankingWeights | None = None,
        mode: SearchMode | str = "",
        neighbours: int = 0,
        ancestors: int = 0,
        episode: bool = False,
        diversity: float = 0.0,
        max_tokens: int = 0,
        node_profile: str = "",
        content: Content | None = None,
        space: str = "",
        include_data: bool = False,
        consistency_token: str = "",
        **options: Unpack[CallOptions],
    ) -> Unary[SearchResult]:
        """The k memories of the scope (0: 10, at most 1,000) nearest to a text, to a vector or to a content, best first.

        `min_score` leaves out what scores below it; `explain` fills Hit.signals; `agent` and `session` narrow the search; `mode` says how
        to rank ("full", "fast" or "dense"; empty: the server's setting), `weights` what each signal counts; `include_strength` fills
        Hit.memory.strength.
        `neighbours` (0 to 5) fills Hit.before and Hit.after, `ancestors` (steps, 0 to 5) Hit.ancestors; `episode` fills Hit.episode, and
        neighbours are of the episode then, k is at most 100. `diversity` (0 to 1) puts back
        what is like a hit before it; `max_tokens` bounds the texts of all hits, a token taken for four bytes, and leaves repetitions out.
        `node_profile` ("code", say): the copy that should answer, where they differ; empty: the one that suits the query.
        `content`, an image say, is looked for among contents in the `space` of the model that made its vector, or of the suite's encoder
        that reads it; a text or vector with `space` too, where that is the space of a joint encoder. `include_data`: with contents' data.
        Raises FieldInvalid, EmbeddingDimensionMismatch, EmbeddingNotFinite, OwnerUnavailable, DeadlinePassed.
        """
        what = (text, embedding, k, filter, min_score, explain, include_embedding)
        query = Query(
            *what,
            weights=weights,
            include_strength=include_strength,
            mode=mode,
            neighbours=neighbours,
            ancestors=ancestors,
            episode=episode,
            diversity=diversity,
            max_tokens=max_tokens,
            node_profile=node_profile,
            content=content,
            space=space,
            include_data=include_data,
        )
        request = self._search_request(query, options, consistency_token)
        owners = [(request.scope.tenant, request.scope.user)]
        return Unary(self._call("memory", "SearchMemories", options), request, self._remembering(owners, decode.found))

    def search_many(self, **options: Unpack[CallOptions]) -> Chunks[Any, Any, Unary[builtins.list[SearchResult]]]:
        """Turns queries pushed into it into batch calls."""
        call = self._call("memory", "BatchSearchMemories", options)

        def pack(parts: builtins.list[memory_pb2.SearchMemoriesRequest], first: int) -> Unary[builtins.list[SearchResult]]:
            owners = [(part.scope.tenant, part.scope.user) for part in parts]
            return Unary(call, memory_pb2.BatchSearchMemoriesRequest(searches=parts), partial(_remember_each, self.tokens, owners))

        return self._chunks(lambda item: self._search_request(item if isinstance(item, Query) else Query(item), options, ""), pack)

    def get(
        self,
        trace_id: str,
        *,
        include_embedding: bool = False,
        include_strength: bool = False,
        include_history: bool = False,
        include_siblings: bool = False,
        include_data: bool = False,
        consistency_token: str = "",
        **options: Unpack[CallOptions],
    ) -> Unary[Memory]:
        """One memory of the owner, an archived one too. Raises TraceNotFound.

        `include_siblings`: all contents, where several were written at different nodes at the same time; `resolve` ends that.
        `include_data`: with the data of its images and other contents.
        """
        scope = self._scope(options)
        request = memory_pb2.GetMemoryRequest(
            scope=encode.scope(scope),
            trace_id=encode.text("trace_id", trace_id),
            consistency_token=self._token(scope, consistency_token),
            include_embedding=include_embedding,
            include_strength=include_strength,
            include_history=include_history,
            include_siblings=include_siblings,
            include_data=include_data,
            consistency=self._consistency(options),
        )
        parse = self._remembering([owner_of(scope)], lambda response: decode.memory(response.trace))
        return Unary(self._call("memory", "GetMemory", options), request, parse, partial(_remember_error, self.tokens, owner_of(scope)))

    def list(
        self,
        *,
        filter: Filter | None = None,
        page_size: int = 0,
        include_embedding: bool = False,
        include_archived: bool = False,
        consistency_token: str = "",
        **options: Unpack[CallOptions],
    ) -> Unary[Page[Memory]]:
        """Memories of the scope, last learned first; pages (0: 50 memories, at most 1,000) are fetched as they are needed.

        `include_archived`: those too that forgetting took out of the index.
        """
        scope = self._scope(options)
        request = memory_pb2.ListMemoriesRequest(
            scope=encode.scope(scope),
            page_size=encode.integer("page_size", page_size),
            filter=encode.filter_(filter),
            include_embedding=include_embedding,
            include_archived=include_archived,
            consistency_token=self._token(scope, consistency_token),
            consistency=self._consistency(options),
        )
        return self._page(self._call("memory", "ListMemories", options), request)

    def update(
        self,
        trace_id: str,
        *,
        text: str | None = None,
        speaker: str | None = None,
        said_at: datetime | None = None,
        kind: Kind | str | None = None,
        metadata: Mapping[str, str] | None = None,
        salience: float | None = None,
        provenance: models.Provenance | None = None,
        embedding: object = None,
        protected: bool | None = None,
        expires_at: datetime | Literal["never"] | None = None,
        valid_from: datetime | None = None,
        valid_until: datetime | Literal["never"] | None = None,
        expected_version: int = 0,
        **options: Unpack[CallOptions],
    ) -> Unary[Memory]:
        """Change what is given, leave the rest; returns the memory as it stands now. A changed text is embedded anew.

        `expires_at`, `valid_until`: "never" takes an end back. `expected_version`: only when the memory still has this version.
        Raises TraceNotFound, VersionConflict, FieldInvalid.
        """
        given = {
            "text": text, "speaker": speaker, "said_at": said_at, "kind": kind, "metadata": metadata,
            "salience": salience, "provenance": provenance, "embedding": embedding, "protected": protected, "expires_at": expires_at,
            "valid_from": valid_from, "valid_until": valid_until,
        }  # fmt: skip
        changed = {name: value for name, value in given.items() if value is not None}
        if not changed:
            raise FieldInvalid("an update changes at least one field: give text, speaker, said_at, kind, metadata, …", field="update_mask")
        scope = self._scope(options)
        values: dict[str, Any] = {"text": "", **changed}
        values |= {name: None for name in ("expires_at", "valid_until") if values.get(name) == "never"}
        request = memory_pb2.UpdateMemoryRequest(
            trace=encode.trace(Memory(trace_id=trace_id, scope=scope, **values), scope),
            update_mask=field_mask_pb2.FieldMask(paths=list(changed)),
            expected_version=encode.integer("expected_version", expected_version, bits=64, signed=False),
            consistency=self._consistency(options),
            consistency_token=self._token(scope, ""),
        )
        # Repeated after an answer that was lost, an update that expects a version would fail on its own success.
        call = self._call("memory", "UpdateMemory", options, repeatable=expected_version == 0)
        return Unary(call, request, self._remembering([owner_of(scope)], lambda response: decode.memory(response.trace)))

    def delete(self, trace_id: str, *, allow_missing: bool = False, **options: Unpack[CallOptions]) -> Unary[bool]:
        """Remove one memory for good. True when it was there; False only with `allow_missing`. Raises TraceNotFound."""
        scope = self._scope(options)
        request = memory_pb2.DeleteMemoryRequest(
            scope=encode.scope(scope),
            trace_id=encode.text("trace_id", trace_id),
            allow_missing=allow_missing,
            consistency=self._consistency(options),
            consistency_token=self._token(scope, ""),
        )
        # As with update: the second try of a lost success would say that there is no such trace.
        call = self._call("memory", "DeleteMemory", options, repeatable=allow_missing)
        return Unary(call, request, self._remembering([owner_of(scope)], lambda response: bool(response.deleted)))

    def resolve(self, trace_id: str, sibling_id: str = "", **options: Unpack[CallOptions]) -> Unary[Memory]:
        """End a conflict: of the contents that stand beside each other keep one, as `get(..., include_siblings=True)` names them; by
        default the one that reads show. Returns the memory as it stands now. Raises TraceNotFound, FieldInvalid.
        """
        scope = self._scope(options)
        request = memory_pb2.ResolveConflictRequest(
            scope=encode.scope(scope),
            trace_id=encode.text("trace_id", trace_id),
            sibling_id=encode.text("sibling_id", sibling_id),
            consistency=self._consistency(options),
            consistency_token=self._token(scope, ""),
        )
        # Repeated after an answer that was lost, it would look for a sibling that its own success replaced.
        call = self._call("memory", "ResolveConflict", options, repeatable=not sibling_id)
        return Unary(call, request, self._remembering([owner_of(scope)], lambda response: decode.memory(response.trace)))

    def reinforce(
        self,
        feedback: str | Sequence[Feedback],
        grade: float = 1.0,
        *,
        spread: CreditSpread | None = None,
        request_id: str = "",
        **options: Unpack[CallOptions],
    ) -> Unary[Reinforced]:
        """Grade memories by their use: only this strengthens them, being found does not. Neighbours in time get credit too.

        `feedback`: a trace id or an answer id with its `grade`, -1 (wrong) to 1 (right, used), or up to 64 Feedback with grades of
        their own. `request_id` as in `add`. A memory that is not there has its error in the result, the others took their grade; where
        none took it, the first error is raised. Raises FieldInvalid, TraceNotFound, OwnerUnavailable.
        """
        scope = self._scope(options)
        given = [Feedback(feedback, grade)] if isinstance(feedback, str) else feedback
        request = memory_pb2.ReinforceMemoriesRequest(
            request_id=encode.text("request_id", request_id) or uuid4().hex,
            scope=encode.scope(scope),
            feedback=[encode.feedback(item) for item in given],
            spread=encode.credit_spread(spread),
            consistency=self._consistency(options),
            consistency_token=self._token(scope, ""),
        )
        return Unary(self._call("memory", "ReinforceMemories", options), request, self._remembering([owner_of(scope)], _reinforced))

    def forget(self, **options: Unpack[CallOptions]) -> Streamed:
        """Erase everything of the user, or with `agent` or `session` what belongs to it; progress as it comes.

        It ends when a read of enough copies finds nothing left. Closing the stream stops it, repeating it goes on. Raises FieldInvalid,
        OwnerUnavailable, Overloaded where the scope is written to faster than it is erased.
        """
        scope = self._scope(options)
        request = memory_pb2.ForgetScopeRequest(scope=encode.scope(scope), consistency_token=self._token(scope, ""))

        def note(message: memory_pb2.ForgetScopeResponse) -> None:
            self.tokens.remember(owner_of(scope), message.consistency_token)

        return Streamed(self._call("memory", "ForgetScope", options, stream=True), request, note)

    def consolidate(
        self, *, max_traces: int = 0, time_budget_s: float | None = None, dry_run: bool = False, **options: Unpack[CallOptions]
    ) -> Streamed:
        """Merge clusters of the user's episodic memories into semantic ones where they predict their members; progress as it comes.

        Sources stay, and deleting a semantic memory takes the merge back. `max_traces` (0: the server's setting) and `time_budget_s`
        bound the work, `dry_run` changes nothing. Closing the stream stops it between two clusters. Raises FieldInvalid, OwnerUnavailable.
        """
        request = memory_pb2.ConsolidateMemoriesRequest(
            scope=encode.scope(self._scope(options)),
            max_traces=encode.integer("max_traces", max_traces),
            time_budget=encode.duration("time_budget", time_budget_s),
            dry_run=dry_run,
        )
        return Streamed(self._call("memory", "ConsolidateMemories", options, stream=True), request)

    def profile(
        self, *, filter: Filter | None = None, consistency_token: str = "", **options: Unpack[CallOptions]
    ) -> Unary[models.Profile]:
        """The one-valued properties that the user's memories tell, each with the statement that holds; a filter by time: as of then."""
        scope = self._scope(options)
        request = memory_pb2.GetProfileRequest(
            scope=encode.scope(scope),
            filter=encode.filter_(filter),
            consistency_token=self._token(scope, consistency_token),
            consistency=self._consistency(options),
        )
        return Unary(self._call("memory", "GetProfile", options), request, self._remembering([owner_of(scope)], decode.profile))

    def stats(self, **options: Unpack[CallOptions]) -> Unary[models.MemoryStats]:
        """Counts of the user's memory; with user="" those of the whole tenant."""
        request = memory_pb2.GetMemoryStatsRequest(scope=encode.scope(self._scope(options)))
        return Unary(self._call("memory", "GetMemoryStats", options), request, decode.memory_stats)

    def export(self, *, include_embedding: bool = False, **options: Unpack[CallOptions]) -> Streamed:
        """Every memory of the scope, first learned first. With embeddings, an import needs no embedding."""
        request = memory_pb2.ExportMemoriesRequest(scope=encode.scope(self._scope(options)), include_embedding=include_embedding)
        return Streamed(self._call("memory", "ExportMemories", options, stream=True), request)

    def import_(self, **options: Unpack[CallOptions]) -> tuple[Call, Chunks[Any, Any, memory_pb2.ImportMemoriesRequest]]:
        """The call, and what turns memories pushed into it into its requests."""
        own, given = self.identity, Scope(options.get("user", ""), options.get("agent", ""), options.get("session", ""))

        def encoder(item: Memory) -> types_pb2.MemoryTrace:
            was = item.scope
            user, agent = given.user or was.user or own.user, given.agent or was.agent or own.agent
            # The tenant is the caller's: what was exported from one may be imported into another.
            tenant = options.get("tenant", own.tenant)
            return encode.trace(item, Scope(user, agent, given.session or was.session or own.session, tenant))

        def pack(parts: builtins.list[types_pb2.MemoryTrace], first: int) -> memory_pb2.ImportMemoriesRequest:
            return memory_pb2.ImportMemoriesRequest(traces=parts)

        return self._call("memory", "ImportMemories", options, stream=True), self._chunks(encoder, pack)

    def _search_request(self, query: Query, options: CallOptions, token: str) -> memory_pb2.SearchMemoriesRequest:
        default = self._scope(options)
        scope = Scope(query.user or default.user, query.agent or default.agent, query.session or default.session, default.tenant)
        if bool(query.text) + (query.embedding is not None) + (query.content is not None) > 1:
            raise FieldInvalid("a search is by text, by embedding or by content: give one of them", field="query")
        request = memory_pb2.SearchMemoriesRequest(
            scope=encode.scope(scope),
            k=encode.integer("k", query.k),
            filter=encode.filter_(query.filter),
            min_score=None if query.min_score is None else encode.number("min_score", query.min_score),
            consistency_token=self._token(scope, token),
            include_embedding=query.include_embedding,
            explain=query.explain,
            weights=encode.weights(query.weights),
            include_strength=query.include_strength,
            mode=encode.mode(query.mode),
            neighbours=encode.integer("neighbours", query.neighbours),
            ancestors=encode.integer("ancestors", query.ancestors),
            episode=query.episode,
            diversity=encode.number("diversity", query.diversity),
            max_tokens=encode.integer("max_tokens", query.max_tokens),
            node_profile=encode.node_profile(query.node_profile),
            space=encode.text("space", query.space),
            include_data=query.include_data,
            consistency=self._consistency(options),
        )
        vector = encode.embedding("embedding", query.embedding)
        if query.content is not None:
            request.content.CopyFrom(encode.content("content", query.content))
        elif vector is None:
            request.text = encode.text("text", query.text)
        else:
            request.embedding.CopyFrom(vector)
        return request

    def _page(self, call: Call, request: memory_pb2.ListMemoriesRequest) -> Unary[Page[Memory]]:
        def parse(response: memory_pb2.ListMemoriesResponse) -> Page[Memory]:
            traces = [decode.memory(trace) for trace in response.traces]
            if not response.next_page_token:
                return Page(traces, None)
            following = memory_pb2.ListMemoriesRequest()
            following.CopyFrom(request)
            following.page_token = response.next_page_token
            if self.options.session_consistency and response.consistency_token:
                following.consistency_token = response.consistency_token  # has the request's in it
            return Page(traces, self._page(call, following))

        return Unary(call, request, self._remembering([(request.scope.tenant, request.scope.user)], parse))


def _remember_each(tokens: Tokens, owners: Sequence[Owner], response: memory_pb2.BatchSearchMemoriesResponse) -> list[SearchResult]:
    for owner, row in zip(owners, response.results, strict=False):
        tokens.remember(owner, row.response.consistency_token)
    return decode.batch_found(response)


def _remember_error(tokens: Tokens, owner: Owner, error: NdmlError) -> None:
    """That a memory is gone is seen, too."""
    tokens.remember(owner, error.metadata.get("consistency_token", ""))


def _reinforced(response: memory_pb2.ReinforceMemoriesResponse) -> Reinforced:
    done = decode.reinforced(response)
    failed = [row.error for row in done.results if row.error is not None]
    if failed and len(failed) == len(done.results):
        raise failed[0]
    return done


def checked(outcomes: builtins.list[Outcome], *, first: int, return_errors: bool) -> builtins.list[Outcome]:
    """The outcomes of one chunk; unless errors are to be returned, the first one is raised, with its position in the input."""
    if not return_errors:
        for position, outcome in enumerate(outcomes, first):
            if outcome.error is not None:
                outcome.error.metadata = {**outcome.error.metadata, "index": str(position)}
                raise outcome.error
    return outcomes
