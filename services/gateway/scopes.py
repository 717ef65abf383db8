"""Whose memory a request is about. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ndml.errors import FieldInvalid, TenantDenied
from ndml.runtime.call import Call
from ndml.v1 import types_pb2


class Owner(NamedTuple):
    """The storage partition: nothing crosses it."""

    tenant: str
    user: str


def owner_of(scope: types_pb2.Scope, call: Call, field: str = "scope") -> Owner:
    """The owner that `scope` names, in the caller's tenant. Raises TenantDenied, FieldInvalid with the path below `field`."""
    tenant = tenant_of(scope, call)
    if not scope.user:
        raise FieldInvalid("user is required: memories belong to one user", field=f"{field}.user")
    return Owner(tenant, scope.user)


def tenant_of(scope: types_pb2.Scope, call: Call) -> str:
    """The caller's tenant; a scope may repeat it, never change it."""
    if scope.tenant and scope.tenant != call.tenant:
        raise TenantDenied(
            f"scope.tenant is {scope.tenant!r}, the call is for {call.tenant!r}: set metadata `ndml-tenant` to the tenant you mean"
        )
    return call.tenant
