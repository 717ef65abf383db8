"""Who calls, and for which tenant. The port, and the two authenticators that need nothing outside the process."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ndml.errors import CredentialsInvalid, TenantDenied
from ndml.runtime.call import Call

DEFAULT_TENANT = "default"
TENANT_KEY = "ndml-tenant"
AUTHORIZATION_KEY = "authorization"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who it is. tenants None: any. operator: may use AdminService."""

    name: str
    tenants: frozenset[str] | None = None
    operator: bool = False


class Authenticator(Protocol):
    """Says who a call is from, by its metadata."""

    def authenticate(self, call: Call) -> Principal:
        """Raises CredentialsInvalid."""
        ...


class AnonymousAuthenticator:
    """Everybody is the operator; for loopback and for networks that authenticate before us. Known tenants may be listed."""

    def __init__(self, tenants: frozenset[str] | None = None) -> None:
        self._principal = Principal("anonymous", tenants, operator=True)

    def authenticate(self, call: Call) -> Principal:
        return self._principal


class TokenAuthenticator:
    """Bearer tokens from the settings, each bound to a principal; compared in constant time."""

    def __init__(self, principals: Mapping[str, Principal]) -> None:
        self._principals = [(token.encode(), principal) for token, principal in principals.items()]

    def authenticate(self, call: Call) -> Principal:
        scheme, _, token = call.metadata.get(AUTHORIZATION_KEY, "").partition(" ")
        if scheme.lower() == "bearer":
            for known, principal in self._principals:
                if hmac.compare_digest(known, token.encode()):
                    return principal
        raise CredentialsInvalid("no valid credentials: send metadata `authorization: Bearer <token>`")


def choose_tenant(principal: Principal, call: Call) -> str:
    """The tenant that this call works for. Raises TenantDenied."""
    wanted = call.metadata.get(TENANT_KEY, "")
    if principal.tenants is None:
        return wanted or DEFAULT_TENANT
    if not wanted and len(principal.tenants) == 1:
        return next(iter(principal.tenants))
    wanted = wanted or DEFAULT_TENANT
    if wanted not in principal.tenants:
        raise TenantDenied(f"tenant {wanted!r} is not known here or not yours: set metadata `{TENANT_KEY}` to one of your tenants")
    return wanted
