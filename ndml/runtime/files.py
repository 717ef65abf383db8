"""Directories of our own, and small files that survive a crash."""

from __future__ import annotations

import os
from pathlib import Path

from ndml.disk import sync_directory

_MAY_WRITE = "give it a directory that this process's user may write to (a pod: fsGroup 10001; a volume: chown 10001:10001)"


def claim_directory(directory: Path, setting: str) -> None:
    """Make `directory`, which `setting` names, and see that this process may write there. Raises OSError that says what to do."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make {setting} {directory}: {error.strerror}; {_MAY_WRITE}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OSError(f"cannot write to {setting} {directory}: read-only, or another user's; {_MAY_WRITE}")


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: after a crash at any point it holds the old bytes or the new ones, whole. Makes the directory.

    One writer per path. Raises OSError; the old file is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)
