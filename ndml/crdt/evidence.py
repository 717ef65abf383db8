"""What a third party can check by itself: that an author signed what no honest author signs, and that a member had taken an update."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ndml.crdt.envelope import HASH_BYTES, MAX_ENVELOPE_BYTES, MAX_NODE_ID_BYTES, Envelope, conflict
from ndml.crdt.keys import SIGNATURE_BYTES, is_signed
from ndml.crdt.roster import Roster
from ndml.errors import FieldInvalid, RequestMalformed

_DOMAIN = b"ndml-vouch-1"
_LENGTH = struct.Struct(">I")
_VOUCH_TAIL = HASH_BYTES + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Proof:
    """Two envelopes that no honest author signs both, the smaller hash first. Raises FieldInvalid where they do not conflict.

    It needs nobody's word: whoever has the author's public key can check it.
    """

    one: Envelope
    other: Envelope

    def __post_init__(self) -> None:
        if not conflict(self.one, self.other):
            raise FieldInvalid("these two envelopes are no contradiction: an honest author may have signed both", field="proof")
        if self.other.hash < self.one.hash:
            first, second = self.other, self.one
            object.__setattr__(self, "one", first)
            object.__setattr__(self, "other", second)

    @property
    def node_id(self) -> str:
        """Whom it convicts."""
        return self.one.node_id

    def verify(self, roster: Roster) -> bool:
        """Whether the author whom the roster knows signed both."""
        author = roster.authors.get(self.node_id)
        return author is not None and self.one.verify(author.key) and self.other.verify(author.key)

    def to_bytes(self) -> bytes:
        """Both envelopes, the first with its length."""
        one = self.one.to_bytes()
        return _LENGTH.pack(len(one)) + one + self.other.to_bytes()

    @staticmethod
    def from_bytes(data: bytes) -> Proof:
        """Inverse of to_bytes. Raises RequestMalformed; signatures are not checked."""
        if not _LENGTH.size < len(data) <= _LENGTH.size + 2 * MAX_ENVELOPE_BYTES:
            raise RequestMalformed(f"a proof does not have {len(data)} bytes: send Proof.to_bytes", field="proof")
        cut = _LENGTH.size + int(_LENGTH.unpack_from(data)[0])
        try:
            proof = Proof(Envelope.from_bytes(data[_LENGTH.size : cut]), Envelope.from_bytes(data[cut:]))
        except FieldInvalid as error:
            raise RequestMalformed(error.message, field="proof") from error
        if proof.to_bytes() != data:
            raise RequestMalformed("the smaller hash stands first in a proof: send Proof.to_bytes", field="proof")
        return proof


@dataclass(frozen=True, slots=True)
class Vouch:
    """A member's word that it had taken an update before it knew of its author's lie, so that all replicas end with the same updates."""

    node_id: str
    hash: bytes
    signature: bytes

    def verify(self, roster: Roster) -> bool:
        """Whether the member whom the roster knows signed it."""
        author = roster.authors.get(self.node_id)
        return author is not None and len(self.hash) == HASH_BYTES and is_signed(author.key, self.signature, _DOMAIN + self.hash)

    def to_bytes(self) -> bytes:
        """Hash, signature, name."""
        return self.hash + self.signature + self.node_id.encode()

    @staticmethod
    def from_bytes(data: bytes) -> Vouch:
        """Inverse of to_bytes. Raises RequestMalformed; the signature is not checked."""
        if not _VOUCH_TAIL < len(data) <= _VOUCH_TAIL + MAX_NODE_ID_BYTES:
            raise RequestMalformed(f"a vouch does not have {len(data)} bytes: send Vouch.to_bytes", field="vouch")
        try:
            node_id = data[_VOUCH_TAIL:].decode()
        except UnicodeDecodeError as error:
            raise RequestMalformed(f"the name is no UTF-8 ({error.reason}): send Vouch.to_bytes", field="vouch") from error
        return Vouch(node_id, data[:HASH_BYTES], data[HASH_BYTES:_VOUCH_TAIL])


def vouch(key: Ed25519PrivateKey, node_id: str, hashed: bytes) -> Vouch:
    """This member's word for the update of this hash. Give it only for what an Auditor has admitted."""
    return Vouch(node_id, hashed, key.sign(_DOMAIN + hashed))
