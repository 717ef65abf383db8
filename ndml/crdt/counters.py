"""Counter that goes up and down: two growing numbers a replica, each written by that replica alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ndml.errors import FieldInvalid


@dataclass(frozen=True, slots=True)
class PNCounter:
    """`counts`: replica -> (sum of what it added, sum of what it took away), both at least 0; a replica that did neither is absent."""

    counts: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for replica, (up, down) in self.counts.items():
            if up < 0 or down < 0 or up == down == 0:
                raise FieldInvalid(f"replica {replica} counts ({up}, {down}): both at least 0, and one of them more", field="counts")

    @property
    def value(self) -> int:
        """All that was added less all that was taken away."""
        return sum(up - down for up, down in self.counts.values())

    def changed(self, replica: int, by: int) -> PNCounter:
        """Delta of a change by the replica; a change by 0 is none."""
        up, down = self.counts.get(replica, (0, 0))
        return PNCounter({replica: (up + max(by, 0), down + max(-by, 0))} if by else {})

    def joined(self, other: PNCounter) -> PNCounter:
        """Least upper bound."""
        counts = dict(self.counts)
        for replica, (up, down) in other.counts.items():
            our_up, our_down = counts.get(replica, (0, 0))
            counts[replica] = max(up, our_up), max(down, our_down)
        return PNCounter(counts)

    def delta_since(self, other: PNCounter) -> PNCounter:
        """What the other lacks: joined to it, it gives the join with this one."""
        parts = [part for part in self.decompose() if other.joined(part) != other]
        return _joined_all(parts)

    def decompose(self) -> Iterator[PNCounter]:
        """Join-irreducible parts: one sum of one replica each."""
        for replica, (up, down) in self.counts.items():
            yield from (PNCounter({replica: count}) for count in ((up, 0), (0, down)) if any(count))


def _joined_all(parts: list[PNCounter]) -> PNCounter:
    """The join of all; of none: a counter that nobody has changed."""
    total = PNCounter()
    for part in parts:
        total = total.joined(part)
    return total
