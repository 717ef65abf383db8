"""Who may call, for which tenant, and who may operate: through a real server."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import grpc
import pytest

from ndml.errors import CredentialsInvalid, NdmlError, TenantDenied
from ndml.runtime.auth import AnonymousAuthenticator, Authenticator, Principal, TokenAuthenticator
from ndml.v1 import admin_pb2, admin_pb2_grpc
from ndml.wire import rpc_error_to_ndml

TOKENS = TokenAuthenticator(
    {
        "secret-a": Principal("app", frozenset({"acme"})),
        "secret-b": Principal("both", frozenset({"acme", "globex"})),
        "secret-o": Principal("root", None, operator=True),
    }
)
LISTED = AnonymousAuthenticator(frozenset({"default", "acme"}))


async def call(serve: Any, sample: ModuleType, authenticator: Authenticator, admin: bool, metadata: dict[str, str]) -> tuple[str, str]:
    """(principal, tenant) as the handler saw them. Raises NdmlError."""
    running = await serve(authenticator=authenticator, more=lambda service: service.expose(sample.ADMIN, sample.AdminSample()))
    pairs = tuple(metadata.items())
    try:
        if admin:
            stub: admin_pb2_grpc.AdminServiceAsyncStub = admin_pb2_grpc.AdminServiceStub(running.channel())
            status = await stub.GetClusterStatus(admin_pb2.GetClusterStatusRequest(), metadata=pairs)
            return status.services[0].instance, status.services[0].address
        await running.embed("ok", metadata=pairs)
        seen = running.servicer.calls[0]
        return seen.principal, seen.tenant
    except grpc.aio.AioRpcError as error:
        assert running.servicer.calls == []
        raise rpc_error_to_ndml(error) from None


@pytest.mark.parametrize(
    ("authenticator", "admin", "metadata", "seen"),
    [
        (AnonymousAuthenticator(), False, {}, ("anonymous", "default")),
        (AnonymousAuthenticator(), True, {"ndml-tenant": "any"}, ("anonymous", "any")),
        (LISTED, False, {}, ("anonymous", "default")),
        (LISTED, False, {"ndml-tenant": "acme"}, ("anonymous", "acme")),
        (TOKENS, False, {"authorization": "Bearer secret-a"}, ("app", "acme")),
        (TOKENS, False, {"authorization": "bearer secret-b", "ndml-tenant": "globex"}, ("both", "globex")),
        (TOKENS, True, {"authorization": "Bearer secret-o"}, ("root", "default")),
    ],
)
async def test_who_is_let_in_and_as_whom(
    serve: Any, sample: ModuleType, authenticator: Authenticator, admin: bool, metadata: dict[str, str], seen: tuple[str, str]
) -> None:
    assert await call(serve, sample, authenticator, admin, metadata) == seen


@pytest.mark.usefixtures("no_grpc_trace")
@pytest.mark.parametrize(
    ("authenticator", "admin", "metadata", "expected", "hint"),
    [
        (LISTED, False, {"ndml-tenant": "globex"}, TenantDenied, "ndml-tenant"),
        (TOKENS, False, {}, CredentialsInvalid, "authorization"),
        (TOKENS, False, {"authorization": "Bearer secret"}, CredentialsInvalid, "authorization"),
        (TOKENS, False, {"authorization": "Basic secret-a"}, CredentialsInvalid, "authorization"),
        (TOKENS, False, {"authorization": "secret-a"}, CredentialsInvalid, "authorization"),
        (TOKENS, False, {"authorization": "Bearer secret-a", "ndml-tenant": "globex"}, TenantDenied, "globex"),
        (TOKENS, False, {"authorization": "Bearer secret-b"}, TenantDenied, "default"),
        (TOKENS, True, {"authorization": "Bearer secret-a"}, TenantDenied, "operator"),
    ],
)
async def test_who_is_refused_and_told_what_to_do(
    serve: Any,
    sample: ModuleType,
    authenticator: Authenticator,
    admin: bool,
    metadata: dict[str, str],
    expected: type[NdmlError],
    hint: str,
) -> None:
    with pytest.raises(expected, match=hint) as caught:
        await call(serve, sample, authenticator, admin, metadata)
    assert "secret" not in caught.value.message
