"""What every call of the API has: defaults filled in, scope, metadata, consistency and the session's token. No I/O."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ndml.client import _encode as encode
from ndml.client._calls import Call, Identity
from ndml.client._chunks import Chunks
from ndml.client._models import Scope
from ndml.client._options import CallOptions, ClientOptions
from ndml.client._session import Owner, Tokens
from ndml.errors import FieldInvalid
from ndml.v1 import types_pb2

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Basics:
    """Who calls, how, and what the session has seen."""

    identity: Identity
    options: ClientOptions
    tokens: Tokens = field(repr=False)

    def _consistency(self, options: CallOptions) -> types_pb2.Consistency:
        return encode.consistency(options.get("consistency", self.options.consistency))

    def _scope(self, options: CallOptions) -> Scope:
        own = self.identity
        return Scope(
            options.get("user", own.user),
            options.get("agent", own.agent),
            options.get("session", own.session),
            options.get("tenant", own.tenant),
        )

    def _call(self, service: str, method: str, options: CallOptions, *, stream: bool = False, repeatable: bool = True) -> Call:
        default_s = self.options.stream_timeout_s if stream else self.identity.timeout_s
        timeout_s = encode.number("timeout_s", options.get("timeout_s", default_s))
        if not timeout_s > 0:
            raise FieldInvalid(f"timeout_s must be greater than 0 seconds, got {timeout_s}", field="timeout_s")
        headers = dict(options.get("headers", {}))
        if tenant := options.get("tenant", self.identity.tenant):
            headers["ndml-tenant"] = tenant
        if self.identity.token:
            headers["authorization"] = f"Bearer {self.identity.token}"
        return Call(service, method, tuple(headers.items()), timeout_s, repeatable)

    def _chunks(self, encoder: Callable[[Any], Any], pack: Callable[[builtins.list[Any], int], R]) -> Chunks[Any, Any, R]:
        return Chunks(encoder, pack, max_items=self.options.chunk_items, max_bytes=self.options.chunk_bytes)

    def _token(self, scope: Scope, given: str) -> str:
        if given or not self.options.session_consistency:
            return encode.text("consistency_token", given)
        return self.tokens.newest(owner_of(scope))

    def _remembering(self, owners: Iterable[Owner], parse: Callable[[Any], R]) -> Callable[[Any], R]:
        return partial(remember, self.tokens, tuple(owners), parse)


def owner_of(scope: Scope) -> Owner:
    """Whose session a call in this scope belongs to."""
    return scope.tenant, scope.user


def remember(tokens: Tokens, owners: tuple[Owner, ...], parse: Callable[[Any], R], response: Any) -> R:
    """What `parse` makes of the response, after its token is joined to what the owners' sessions have seen."""
    for owner in owners:
        tokens.remember(owner, response.consistency_token)
    return parse(response)
