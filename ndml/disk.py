"""What every floor needs from a disk beyond the standard library. Pure: no library but that one."""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make renames, links and removals in it durable. Windows has no handle for that and journals them."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
