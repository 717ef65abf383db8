"""After the faults end, copies agree: equal digests of every owner within ceil(log2 n) + 2 rounds."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2


def rounds_allowed(replicas: int) -> int:
    """Anti-entropy rounds after the last fault that `replicas` copies may take."""
    return ceil(log2(replicas)) + 2


def diverged(digests: Mapping[str, Mapping[str, bytes]]) -> list[str]:
    """`digests`: for each owner the digest at each of its copies."""
    return [
        f"copies of {owner} differ: " + ", ".join(f"{copy} {digest.hex()[:8]}" for copy, digest in sorted(copies.items()))
        for owner, copies in digests.items()
        if len(set(copies.values())) > 1
    ]
