"""Where the replicas of one service are: a list that is configured, or one that changes while the process lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload


class Addresses(Sequence[str]):
    """host:port of each replica now. This class is a fixed list; a subclass may change it and then calls those of `on_change`.

    Read it anew each time. Everything belongs to the event loop.
    """

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        self._now = tuple(addresses)
        self._callbacks: list[Callable[[], None]] = []

    @classmethod
    def of(cls, addresses: Sequence[str]) -> Addresses:
        """Itself, or the fixed list of them."""
        return addresses if isinstance(addresses, Addresses) else Addresses(addresses)

    @property
    def expected(self) -> bool:
        """There is one, or there may be one later."""
        return bool(self._now)

    def zone_of(self, address: str) -> str:
        """Failure domain of the replica, "" where it is not known."""
        return ""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop after each change."""
        self._callbacks.append(callback)

    def __len__(self) -> int:
        return len(self._now)

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._now[index]

    def _replace(self, addresses: Sequence[str]) -> None:
        before, self._now = self._now, tuple(addresses)
        if set(before) != set(self._now):
            for callback in self._callbacks:
                callback()


def follow(addresses: Addresses, add: Callable[[str], None], drop: Callable[[str], None]) -> None:
    """Call `add` for each address that there is, and from then on `add` and `drop` for those that come and go."""
    known: set[str] = set()

    def compare() -> None:
        now = set(addresses)
        gone, new = known - now, [address for address in addresses if address not in known]
        known.clear()
        known.update(now)
        for address in gone:
            drop(address)
        for address in new:
            add(address)

    addresses.on_change(compare)
    compare()
