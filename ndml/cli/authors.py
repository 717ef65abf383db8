"""What `ndml roster` does to the file. Apart from the commands, for it needs cryptography, which the client does not bring."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ndml.crdt import keys, roster
from ndml.crdt.roster import Author, Roster
from ndml.errors import FieldInvalid
from ndml.runtime.files import write_durably


def begin(file: Path) -> Roster:
    """Raises FieldInvalid where the file is there already, OSError."""
    if file.exists():
        raise FieldInvalid(f"{file} is there already: add to it, or name another file", field="file")
    return _written(file, Roster(1, {}))


def load(file: Path) -> Roster:
    """Raises FieldInvalid, RequestMalformed; FieldInvalid where it cannot be read."""
    try:
        return roster.load(file)
    except OSError as error:
        raise FieldInvalid(f"{file} cannot be read ({error}): make it with `ndml roster init`", field="file") from error


def add(file: Path, node: str, key: str, trust: int) -> Roster:
    """Raises as `load`."""
    known = load(file)
    author = Author(_public(key), trust, known.authors[node].replicas if node in known.authors else frozenset())
    return _written(file, replace(known, version=known.version + 1, authors={**known.authors, node: author}, signature=b""))


def remove(file: Path, node: str) -> Roster:
    """Raises as `load`, FieldInvalid for whom it does not name."""
    known = load(file)
    if node not in known.authors:
        raise FieldInvalid(f"{file} does not name {node!r}", field="node")
    left = {name: author for name, author in known.authors.items() if name != node}
    return _written(file, replace(known, version=known.version + 1, authors=left, signature=b""))


def sign(file: Path, key: Path) -> tuple[Roster, str]:
    """The signed roster and the operator's public key. Raises as `load`."""
    operator = keys.load_or_create(key)
    return _written(file, load(file).sign(operator)), keys.public_bytes(operator).hex()


def _public(key: str) -> bytes:
    """Raises FieldInvalid."""
    if len(key) == 2 * keys.PUBLIC_BYTES and all(letter in "0123456789abcdef" for letter in key):
        return bytes.fromhex(key)
    return keys.public_bytes(keys.load_or_create(Path(key)))


def _written(file: Path, made: Roster) -> Roster:
    write_durably(file, made.to_json())
    return made
