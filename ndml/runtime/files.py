"""Small files that survive a crash."""

from __future__ import annotations

import os
from pathlib import Path

from ndml.disk import sync_directory


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
