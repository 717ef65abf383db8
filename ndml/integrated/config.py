"""`memory_config`: where memory is, whose it is, how it is read and learned. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ndml.client import CallOptions
from ndml.errors import FieldInvalid
from ndml.training.config import parse

Fusion = Literal["auto", "prompt", "prefix", "adapter", "state", "knn"]
Learning = Literal["background", "wait", "off"]
# Both spellings that the seed's callers use, to the name here.
_SCOPE = {"user": "user", "user_id": "user", "agent": "agent", "agent_id": "agent", "session": "session", "session_id": "session"}
_SCOPE |= {"tenant": "tenant", "tenant_id": "tenant"}


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """How a model remembers.

    address          host:port of a running suite's gateway; "": one of our own, started now and stopped with the model
    data_dir         of our own suite, kept; "": a temporary folder, gone with the model
    embedding_model  of our own suite; "": its default
    token            credential of a running suite
    tenant, user, agent, session   whose memory, where a call's context does not say; without a user nothing is recalled or written
    retrieval_k      memories that the model reads; candidates: looked at, so that out-of-date ones leave no gaps
    fusion           how they are read; auto: as quoted text while it has room
    trained          folder that `ndml train` wrote, for the ways adapter and prefix
    prompt_tokens    of quoted memory at most
    learning         background: what was said is written behind the answer; wait: before it is given; off: not
    backlog          statements that wait to be written; past it a chat is refused before it begins, so that nothing said is lost.
                     A turn with more of them is taken where nothing waits
    workers          calls of this object that run at once, each with a thread
    device           of the model: auto takes cuda where there is one
    timeout_s        of one call to the suite; ready_timeout_s: for our own suite to start, the first load of torch being most of it
    """

    address: str = ""
    data_dir: str = ""
    embedding_model: str = ""
    token: str = ""
    tenant: str = ""
    user: str = ""
    agent: str = ""
    session: str = ""
    retrieval_k: int = 5
    candidates: int = 20
    fusion: Fusion = "auto"
    trained: str = ""
    prompt_tokens: int = 1024
    learning: Learning = "background"
    backlog: int = 256
    workers: int = 4
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout_s: float = 30.0
    ready_timeout_s: float = 180.0

    def __post_init__(self) -> None:
        bounds = {
            "retrieval_k": (1, 50),
            "candidates": (1, 1000),
            "prompt_tokens": (0, 1 << 20),
            "backlog": (1, 1 << 20),
            "workers": (1, 64),
        }
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                raise FieldInvalid(f"{name} is {getattr(self, name)}: give {least} to {most}", field=f"memory_config.{name}")
        for name in ("timeout_s", "ready_timeout_s"):
            if not 0 < getattr(self, name) < 1e6:
                raise FieldInvalid(f"{name} is {getattr(self, name)}: give seconds above 0", field=f"memory_config.{name}")
        own = [name for name in ("data_dir", "embedding_model") if getattr(self, name)]
        if self.address and own:
            raise FieldInvalid(f"{own[0]} is of a suite of our own, address names a running one: give one of them", field="memory_config")

    @classmethod
    def of(cls, given: Mapping[str, Any] | MemoryConfig | None) -> MemoryConfig:
        """Raises FieldUnknown for a key that there is not, FieldInvalid for a value that cannot be."""
        return given if isinstance(given, MemoryConfig) else parse(cls, given or {}, "memory_config.")

    def scope(self, context: Mapping[str, Any] | None) -> CallOptions:
        """Whose memory a call is about: the context's user_id, session_id, agent_id, tenant_id, else ours. Raises FieldInvalid."""
        scope: dict[str, str] = {"tenant": self.tenant, "user": self.user, "agent": self.agent, "session": self.session}
        for key, value in (context or {}).items():
            if key in _SCOPE:
                if not isinstance(value, str):
                    raise FieldInvalid(f"context.{key} is {value!r}: give a text", field=f"context.{key}")
                scope[_SCOPE[key]] = value
        return CallOptions(tenant=scope["tenant"], user=scope["user"], agent=scope["agent"], session=scope["session"])


def labels(context: Mapping[str, Any] | None) -> dict[str, str]:
    """The rest of a context, as labels of what is written. Raises FieldInvalid for what is no plain value."""
    found = {}
    for key, value in (context or {}).items():
        if key in _SCOPE:
            continue
        if not isinstance(value, str | int | float | bool):
            raise FieldInvalid(f"context.{key} is a {type(value).__name__}: give a text or a number", field=f"context.{key}")
        found[str(key)] = str(value)
    return found
