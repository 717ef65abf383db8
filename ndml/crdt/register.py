"""Multi-value register with dotted versions: writes that did not see each other all stay, until one that saw them replaces them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ndml.crdt.causal import CausalContext, Dot, joined_values, lacking_values, parts_of

V = TypeVar("V")


def itself(value: Any) -> Any:
    """The order of values that have one of their own."""
    return value


@dataclass(frozen=True)  # no slots: Python 3.11 cannot make MVRegister[str]() with them
class MVRegister(Generic[V]):
    """Versions by dot, and every dot ever seen. `order` (values have their own) decides between two values of one dot; a mixture of
    orders among replicas would not converge."""

    versions: Mapping[Dot, V] = field(default_factory=dict)
    context: CausalContext = field(default_factory=CausalContext)
    order: Callable[[V], Any] = field(default=itself, compare=False, repr=False)

    def write(self, dot: Dot, value: V, replaces: Iterable[Dot]) -> MVRegister[V]:
        """Delta of a write: it covers its own dot and exactly `replaces`. A sibling that is not named stays beside it."""
        return MVRegister({dot: value}, CausalContext.from_dots((dot, *replaces)), self.order)

    def joined(self, other: MVRegister[V]) -> MVRegister[V]:
        """Least upper bound."""
        versions = joined_values(self.versions, self.context, other.versions, other.context, self.order)
        return MVRegister(versions, self.context.joined(other.context), self.order)

    def delta_since(self, other: MVRegister[V]) -> MVRegister[V]:
        """What the other lacks: joined to it, it gives the join with this one."""
        versions, context = lacking_values(self.versions, self.context, other.versions, other.context, self.order)
        return MVRegister(versions, context, self.order)

    def decompose(self) -> Iterator[MVRegister[V]]:
        """Join-irreducible parts. CapacityReached: more than causal.MAX_DOTS."""
        return (MVRegister(versions, context, self.order) for versions, context in parts_of(self.versions, self.context))
