"""Set in which an add wins over a remove that did not see it; a removed element leaves nothing but its dots in the context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ndml.crdt.causal import CausalContext, Dot, joined_values, lacking_values, parts_of
from ndml.crdt.register import itself

T = TypeVar("T")


@dataclass(frozen=True)  # no slots: Python 3.11 cannot make ORSet[str]() with them
class ORSet(Generic[T]):
    """Elements by the dot of their adding. Elements have an order, for the one case of a dot that was given to two of them."""

    added: Mapping[Dot, T] = field(default_factory=dict)
    context: CausalContext = field(default_factory=CausalContext)

    def elements(self) -> frozenset[T]:
        """What is in the set."""
        return frozenset(self.added.values())

    def add(self, element: T, dot: Dot) -> ORSet[T]:
        """Delta of an add. It replaces the element's older dots, so that an element that is added again does not grow."""
        return ORSet({dot: element}, CausalContext.from_dots((dot, *self._dots(element))))

    def remove(self, element: T) -> ORSet[T]:
        """Delta of a remove: the adds that are seen here, and no others."""
        return ORSet({}, CausalContext.from_dots(self._dots(element)))

    def joined(self, other: ORSet[T]) -> ORSet[T]:
        """Least upper bound."""
        added = joined_values(self.added, self.context, other.added, other.context, itself)
        return ORSet(added, self.context.joined(other.context))

    def delta_since(self, other: ORSet[T]) -> ORSet[T]:
        """What the other lacks: joined to it, it gives the join with this one."""
        return ORSet(*lacking_values(self.added, self.context, other.added, other.context, itself))

    def decompose(self) -> Iterator[ORSet[T]]:
        """Join-irreducible parts. CapacityReached: more than causal.MAX_DOTS."""
        return (ORSet(added, context) for added, context in parts_of(self.added, self.context))

    def _dots(self, element: T) -> list[Dot]:
        return [dot for dot, held in self.added.items() if held == element]
