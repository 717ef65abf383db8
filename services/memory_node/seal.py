"""The seal of a store at rest: a digest of the whole file, written when it is closed and looked at before it is opened again.

SQLite notices a page whose structure is damaged; a flipped bit inside a value, or in a key of an index, it does not. While the store is
open rows have checks of their own (records.checks_of).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ndml.disk import sync_directory
from ndml.runtime.files import write_durably


def write(path: Path, most_bytes: int) -> None:
    """Seal the file, which nobody has open. One that is larger than `most_bytes` stays without: reading it would hold the stop up."""
    if path.stat().st_size <= most_bytes:
        write_durably(seal_of(path), f"{_digest(path)}\n".encode())


def is_broken(path: Path) -> bool:
    """True when the file is not as it was sealed; False where it is, or has no seal."""
    seal = seal_of(path)
    return seal.is_file() and path.is_file() and seal.read_text().strip() != _digest(path)


def remove(path: Path) -> None:
    """The file is about to change: this is on disk before anything of that is."""
    seal = seal_of(path)
    if seal.exists():
        seal.unlink()
        sync_directory(seal.parent)


def seal_of(path: Path) -> Path:
    """The file that has it."""
    return path.with_name(path.name + ".seal")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
