"""Who owns an owner's traces: highest-random-weight (rendezvous) hashing, failure domains spread first.

The order of nodes is a pure function of (tenant, user) and the node ids, so every process that knows the same members agrees without
asking anybody. A member that joins takes only the keys that it wins; one that leaves gives up only its own.
Source: D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 1998.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from struct import pack

_PERSON = b"ndml-placement-1"  # part of where data lies: a change of it, of the key or of the score moves every owner
_SCORE_BYTES = 8


def owner_key(tenant: str, user: str) -> bytes:
    """Bytes of an owner; the tenant's length stands first, so that ("a", "bc") and ("ab", "c") differ."""
    head = tenant.encode()
    return pack(">I", len(head)) + head + user.encode()


class Ring:
    """Fixed set of nodes, ready for look-ups.

    nodes               (node_id, zone) of each member, ids unique; "" is one zone like any other
    replication_factor  owners of each key; fewer where there are fewer nodes
    cache_owners        look-ups remembered (least recently used goes first): one costs some 300 bytes and saves n hashes
    """

    def __init__(self, nodes: Iterable[tuple[str, str]], replication_factor: int, *, cache_owners: int = 16384) -> None:
        self.nodes = tuple(sorted(nodes))
        self.replication_factor = replication_factor
        self._seeds = tuple((_seeded(node_id), index) for index, (node_id, _) in enumerate(self.nodes))
        self.rank = lru_cache(maxsize=cache_owners)(self._rank)

    def _rank(self, tenant: str, user: str) -> tuple[int, ...]:
        """Positions in `nodes` of the owners of (tenant, user), first choice first."""
        key = owner_key(tenant, user)
        scores = []
        for seed, index in self._seeds:
            score = seed.copy()
            score.update(key)
            scores.append((score.digest(), index))
        if self.replication_factor == 1:
            return (max(scores)[1],) if scores else ()
        scores.sort(reverse=True)
        return self._spread(index for _, index in scores)

    def _spread(self, best_first: Iterable[int]) -> tuple[int, ...]:
        # The n-th best of each zone before the n+1-th of any: sorting by that rank is stable, so score decides within a round.
        taken: Counter[str] = Counter()
        rounds: list[tuple[int, int]] = []
        for index in best_first:
            zone = self.nodes[index][1]
            rounds.append((taken[zone], index))
            taken[zone] += 1
        rounds.sort(key=lambda entry: entry[0])
        return tuple(index for _, index in rounds[: self.replication_factor])


def _seeded(node_id: str) -> blake2b:
    # Names of up to 64 bytes would fit as the key; hashed, they fit at any length.
    return blake2b(digest_size=_SCORE_BYTES, key=blake2b(node_id.encode()).digest(), person=_PERSON)
