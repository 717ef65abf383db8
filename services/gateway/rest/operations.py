"""Routes that no proto describes: how they are served and how they are documented."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

Route = tuple[str, str, Callable[[Request], Awaitable[Response]]]
"""Verb, path, handler."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One route of a group.

    path    as Starlette routes it; a variable may say its kind: "/v1/models/{model:path}"
    name    method of the group's handlers, whose docstring is the description
    answer  an example; None: nothing worth showing
    query   parameters in the query string
    events  it can answer with server-sent events
    """

    verb: str
    path: str
    name: str
    body: type[BaseModel] | None
    answer: dict[str, Any] | None
    query: tuple[str, ...] = ()
    events: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Routes that are documented together. `error`: the component of /openapi.json that their errors have."""

    tag: str
    description: str
    prefix: str
    operations: tuple[Operation, ...]
    handlers: type[object]
    error: str
