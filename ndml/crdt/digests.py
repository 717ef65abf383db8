"""Digests by which two nodes find what differs: of an owner, and of many owners in 256 buckets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from ndml.errors import FieldInvalid

DIGEST_BYTES = 16
BUCKETS = 256
"""4 KiB of bucket digests a comparison; 100,000 owners are 400 a bucket."""
NOTHING = bytes(DIGEST_BYTES)
"""Digest of an owner without a record: the same as of an owner that is not held."""


def owner_digest(digests: Sequence[bytes]) -> bytes:
    """XOR of the records' digests, in any order; of none: NOTHING. FieldInvalid: one that has not 16 bytes.

    A record that changes costs two XORs: `owner_digest([owner's, old, new])`.
    """
    if any(len(digest) != DIGEST_BYTES for digest in digests):
        raise FieldInvalid(f"a digest has not {DIGEST_BYTES} bytes: give TraceRecord.digest()", field="digests")
    words = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
    return bytes(np.bitwise_xor.reduce(words, axis=0).tobytes())


def bucket_of(owner: bytes) -> int:
    """Bucket, 0 to 255, of an owner's key."""
    return blake2b(owner, digest_size=1).digest()[0]


class Buckets:
    """Owners' digests, folded into one digest a bucket. Who shares an owner with whom differs by pair of nodes: make one for each pair."""

    def __init__(self, owners: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Owners' keys with their digests (`owner_digest`)."""
        # Many nodes share few owners: a bucket costs nothing until an owner is in it.
        self._owners: dict[int, dict[bytes, bytes]] = {}
        self._folds = [NOTHING] * BUCKETS
        for owner, digest in owners.items() if isinstance(owners, Mapping) else owners:
            self.put(owner, digest)

    def put(self, owner: bytes, digest: bytes) -> None:
        """The owner has this digest now; NOTHING lets it go. FieldInvalid: not 16 bytes."""
        if len(digest) != DIGEST_BYTES:
            raise FieldInvalid(f"a digest of {len(digest)} bytes: an owner's has {DIGEST_BYTES}", field="digest")
        bucket = bucket_of(owner)
        held = self._owners.setdefault(bucket, {})
        fold = int.from_bytes(self._folds[bucket], "little") ^ _mark(owner, held.pop(owner, NOTHING)) ^ _mark(owner, digest)
        self._folds[bucket] = fold.to_bytes(DIGEST_BYTES, "little")
        if digest != NOTHING:
            held[owner] = digest

    def digests(self) -> list[bytes]:
        """One digest for each bucket; equal where both sides have the same owners with the same digests."""
        return list(self._folds)

    def differing(self, theirs: Sequence[bytes]) -> list[int]:
        """Buckets whose digest is another one there. FieldInvalid: not one digest for each bucket."""
        if len(theirs) != BUCKETS:
            raise FieldInvalid(f"{len(theirs)} bucket digests: give {BUCKETS}", field="digests")
        return [bucket for bucket, (ours, other) in enumerate(zip(self._folds, theirs, strict=True)) if ours != other]

    def owners(self, bucket: int) -> Mapping[bytes, bytes]:
        """Owners of a bucket with their digests."""
        return self._owners.get(bucket, {})


def _mark(owner: bytes, digest: bytes) -> int:
    """What an owner adds to its bucket. Hashed with its key: two owners that exchanged their digests must not cancel out."""
    if digest == NOTHING:
        return 0
    return int.from_bytes(blake2b(digest + owner, digest_size=DIGEST_BYTES).digest(), "little")
