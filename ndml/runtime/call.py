"""One call as the services see it, whichever door it came through."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Call:
    """What is known of a call beside its request.

    method       "/package.Service/Method"
    metadata     lower-case keys; binary values are left out
    deadline     `time.monotonic()` seconds after which nobody waits; None: no limit
    tenant       set by the tenancy stage, "" in services behind the gateway
    principal    who the authenticator says it is
    traceparent  W3C trace context of the server span, "" when it is not sampled
    tenant_hash  of a traced call: its tenant as baggage names it
    """

    method: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None
    tenant: str = ""
    principal: str = ""
    traceparent: str = ""
    tenant_hash: str = ""
    started: float = field(default_factory=time.monotonic)

    def remaining(self) -> float | None:
        """Seconds to the deadline, never negative; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
