"""What an operation is made of: a call, its request, how its answer is read."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from ndml.client._attempts import Attempts
from ndml.errors import NdmlError

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
_RESULT = re.compile(r"Unary\[(.*)\]")


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC: which, with what metadata, for how long. `repeatable`: a second try cannot do harm."""

    service: str
    method: str
    metadata: tuple[tuple[str, str], ...]
    timeout_s: float
    repeatable: bool = True


def _unheard(error: NdmlError) -> None:
    """An error that says nothing to remember."""


def _unnoted(message: Any) -> None:
    """An answer that says nothing to remember."""


@dataclass(frozen=True, slots=True)
class Unary(Generic[R]):
    """One request, one answer, or an error that `refused` is told of before the caller is."""

    call: Call
    request: Message
    parse: Callable[[Any], R]
    refused: Callable[[NdmlError], None] = _unheard

    def delay_after(self, attempts: Attempts, failure: grpc.RpcError) -> float:
        """As the attempts'."""
        try:
            return attempts.delay_after(failure)
        except NdmlError as error:
            self.refused(error)
            raise


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Some items, and the call that gives those after them."""

    items: list[R]
    following: Unary[Page[R]] | None


@dataclass(frozen=True, slots=True)
class Streamed:
    """One request, many answers, each of which `note` sees before the caller does."""

    call: Call
    request: Message
    note: Callable[[Any], None] = _unnoted


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, and for whom where the call does not say."""

    tenant: str = ""
    token: str = ""
    user: str = ""
    agent: str = ""
    session: str = ""
    timeout_s: float = 10.0


def presented(operation: Callable[..., Any]) -> Callable[[F], F]:
    """As functools.wraps, with the result in the signature that `help` shows instead of the call that fetches it."""

    def decorate(method: F) -> F:
        result = wraps(operation)(method)
        signature = inspect.signature(operation)
        found = _RESULT.fullmatch(str(signature.return_annotation))
        result.__signature__ = signature.replace(return_annotation=found[1] if found else signature.empty)  # type: ignore[attr-defined]
        return result  # type: ignore[return-value]

    return decorate
