"""Who may sign updates, and how much is thought of them: a file that the operator writes, and may sign.

A roster only grows in version. Trust is an integer, so that every replica that weighs siblings by it decides alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ndml.crdt.envelope import MAX_NODE_ID_BYTES, MAX_POSITION, owns_replica, replica_tag
from ndml.crdt.keys import PUBLIC_BYTES, SIGNATURE_BYTES, is_signed, public_key
from ndml.errors import FieldInvalid, RequestMalformed

FORMAT = "ndml-roster-1"
MAX_AUTHORS = 4096
MAX_TRUST = 100
MAX_REPLICAS = 64  # stores of one node made before numbers carried its name
MAX_FILE_BYTES = 8 << 20  # MAX_AUTHORS with long names; with as many old stores each it is split over several suites anyway
_FIELDS = {"format", "version", "authors", "signature"}
_AUTHOR_FIELDS = {"public_key", "trust", "replicas"}


@dataclass(frozen=True, slots=True)
class Author:
    """A node that may sign.

    public_key  32 bytes
    trust       0 (nothing of it is taken) to 100
    replicas    numbers of its stores that do not carry its name (`envelope.replica_number`): made before updates were signed
    key         the parsed public key
    """

    public_key: bytes
    trust: int = MAX_TRUST
    replicas: frozenset[int] = frozenset()
    key: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", public_key(self.public_key))
        if not _is_int(self.trust) or not 0 <= self.trust <= MAX_TRUST:
            raise FieldInvalid(f"an integer from 0 to {MAX_TRUST}, not {self.trust!r}", field="trust")
        if len(self.replicas) > MAX_REPLICAS or any(not _is_int(number) or not 1 <= number <= MAX_POSITION for number in self.replicas):
            raise FieldInvalid(f"at most {MAX_REPLICAS} numbers of stores, 1 to 2^63-1", field="replicas")


@dataclass(frozen=True, slots=True)
class Roster:
    """Authors by node id. `version` from 1; `signature` by the operator or empty. FieldInvalid where two could pass for each other."""

    version: int
    authors: Mapping[str, Author]
    signature: bytes = b""

    def __post_init__(self) -> None:
        if not _is_int(self.version) or not 1 <= self.version <= MAX_POSITION:
            raise FieldInvalid("an integer from 1, larger than that of the roster before", field="version")
        if len(self.authors) > MAX_AUTHORS:
            raise FieldInvalid(f"at most {MAX_AUTHORS}, not {len(self.authors)}", field="authors")
        if len(self.signature) not in (0, SIGNATURE_BYTES):
            raise FieldInvalid(f"a signature has {SIGNATURE_BYTES} bytes", field="signature")
        object.__setattr__(self, "authors", dict(sorted(self.authors.items())))
        _check_names(self.authors)
        _check_apart(self.authors)

    @property
    def digest(self) -> bytes:
        """SHA-256 of what the operator signs: everything but the signature. Equal digests, equal rosters."""
        return sha256(FORMAT.encode() + b"\n" + _dump(self._plain())).digest()

    def sign(self, operator: Ed25519PrivateKey) -> Roster:
        """The same with the operator's signature."""
        return replace(self, signature=operator.sign(self.digest))

    def verify(self, operator: Ed25519PublicKey) -> bool:
        """Whether this operator signed it."""
        return len(self.signature) == SIGNATURE_BYTES and is_signed(operator, self.signature, self.digest)

    def trust(self, node_id: str) -> int:
        """0 .. 100; 0 for whom it does not know."""
        author = self.authors.get(node_id)
        return author.trust if author else 0

    def owns(self, node_id: str, replica: int) -> bool:
        """Whether `replica` is a store of this author."""
        author = self.authors.get(node_id)
        return author is not None and (owns_replica(node_id, replica) or replica in author.replicas)

    def to_json(self) -> bytes:
        """What `load` reads; to be written with ndml.runtime.files.write_durably."""
        plain = self._plain()
        if self.signature:
            plain["signature"] = self.signature.hex()
        return json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"

    @staticmethod
    def from_json(data: bytes) -> Roster:
        """Inverse of to_json. Raises RequestMalformed for what is no roster, FieldInvalid for a field that breaks its rule."""
        if len(data) > MAX_FILE_BYTES:
            raise RequestMalformed(f"a roster has at most {MAX_FILE_BYTES} bytes, not {len(data)}", field="roster")
        try:
            plain = json.loads(data, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise RequestMalformed(f"the roster is no JSON ({error}): make it with Roster.to_json", field="roster") from error
        return _roster_of(plain)

    def _plain(self) -> dict[str, Any]:
        authors = {name: _plain_author(author) for name, author in self.authors.items()}
        return {"format": FORMAT, "version": self.version, "authors": authors}


def load(path: Path, operator: bytes | None = None) -> Roster:
    """The roster in a file. operator: raw public key that must have signed it; None takes unsigned ones.

    Raises FieldInvalid, RequestMalformed, OSError.
    """
    with path.open("rb") as file:
        roster = Roster.from_json(file.read(MAX_FILE_BYTES + 1))
    if operator is not None and not roster.verify(public_key(operator)):
        raise FieldInvalid(f"{path} is not signed by this operator: sign it with the operator's key", field="signature")
    return roster


def check_successor(known: Roster, offered: Roster) -> None:
    """Raises FieldInvalid unless `offered` is newer than `known`, or the same."""
    if offered.version < known.version or (offered.version == known.version and offered.digest != known.digest):
        raise FieldInvalid(
            f"version {offered.version} does not follow version {known.version}: raise the version with every change", field="version"
        )


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= MAX_NODE_ID_BYTES or not name.isprintable():
            raise FieldInvalid(f"a node id has 1 to {MAX_NODE_ID_BYTES} printable bytes, not {name!r}", field="authors")


def _check_apart(authors: Mapping[str, Author]) -> None:
    """Two authors with one key, one store or names that hash alike could each pass for the other."""
    keys: dict[bytes, str] = {}
    tags: dict[int, str] = {}
    stores: dict[int, str] = {}
    for name, author in authors.items():
        if keys.setdefault(author.public_key, name) != name:
            raise FieldInvalid(f"{name!r} has the key of {keys[author.public_key]!r}: each node makes its own", field="public_key")
        if tags.setdefault(replica_tag(name), name) != name:
            raise FieldInvalid(f"{name!r} hashes like {tags[replica_tag(name)]!r}: rename one of the two", field="authors")
        for number in author.replicas:
            if stores.setdefault(number, name) != name:
                raise FieldInvalid(f"store {number} belongs to {name!r} and {stores[number]!r}: leave it with one", field="replicas")
    for number, name in stores.items():
        if any(owns_replica(other, number) for other in authors if other != name):
            raise FieldInvalid(f"store {number} of {name!r} carries another author's name", field="replicas")


def _plain_author(author: Author) -> dict[str, Any]:
    plain: dict[str, Any] = {"public_key": author.public_key.hex(), "trust": author.trust}
    if author.replicas:
        plain["replicas"] = sorted(author.replicas)
    return plain


def _dump(plain: Mapping[str, Any]) -> bytes:
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=True, sort_keys=True).encode()


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _roster_of(plain: Any) -> Roster:
    if not isinstance(plain, dict) or plain.get("format") != FORMAT or not set(plain) <= _FIELDS:
        raise RequestMalformed(f"no roster of format {FORMAT}: make it with Roster.to_json", field="format")
    authors = plain.get("authors")
    if not isinstance(authors, dict) or len(authors) > MAX_AUTHORS:
        raise RequestMalformed(f"an object of at most {MAX_AUTHORS} node ids", field="authors")
    signature = _unhex(plain["signature"], SIGNATURE_BYTES, "signature") if "signature" in plain else b""
    return Roster(
        version=plain.get("version", 0),
        authors={name: _author_of(name, entry) for name, entry in authors.items()},
        signature=signature,
    )


def _author_of(name: str, plain: Any) -> Author:
    where = f"authors[{name}]"
    if not isinstance(plain, dict) or not set(plain) <= _AUTHOR_FIELDS:
        raise RequestMalformed(f"an object with {', '.join(sorted(_AUTHOR_FIELDS))}", field=where)
    replicas = plain.get("replicas", [])
    if not isinstance(replicas, list) or not all(_is_int(number) for number in replicas):
        raise RequestMalformed("a list of integers", field=f"{where}.replicas")
    try:
        return Author(
            public_key=_unhex(plain.get("public_key"), PUBLIC_BYTES, f"{where}.public_key"),
            trust=plain.get("trust", MAX_TRUST),
            replicas=frozenset(replicas),
        )
    except FieldInvalid as error:
        raise FieldInvalid(error.message, field=f"{where}.{error.violations[0].field}") from error


def _unhex(text: Any, length: int, where: str) -> bytes:
    # bytes.fromhex passes over spaces, and one roster must have one form.
    if not isinstance(text, str) or len(text) != 2 * length or any(letter not in "0123456789abcdef" for letter in text):
        raise RequestMalformed(f"{2 * length} hexadecimal digits in lower case", field=where)
    return bytes.fromhex(text)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
