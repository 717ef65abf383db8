"""Free loopback ports for processes that start in a moment."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack

from ndml.errors import FieldInvalid

# Below the range that kernels give to outgoing connections (Linux from 32768, macOS and Windows from 49152): a port found free
# here is not taken by a client socket before its server binds it.
_FIRST, _LAST = 18000, 31999
_TRIES = 2000
RANGE = "NDML_TESTING_PORTS"
"""Environment variable "first-last": suites that run side by side, each in a range of its own, never take the port of a process of another
one that is down for a moment."""


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different TCP ports that were free on `host` a moment ago. Raises FieldInvalid when there are not so many."""
    picker = random.SystemRandom()
    first, last = (int(end) for end in os.environ.get(RANGE, f"{_FIRST}-{_LAST}").split("-"))
    found: list[int] = []
    with ExitStack() as held:
        for _ in range(_TRIES):
            if len(found) == count:
                return found
            candidate = picker.randint(first, last)
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            found.append(candidate)
    if len(found) == count:
        return found
    raise FieldInvalid(
        f"found {len(found)} free ports of {count} on {host} in {_TRIES} tries; ask for fewer or close something", field="count"
    )
