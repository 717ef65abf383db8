"""The `ndml` command. Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 not found, 4 not reachable or too late."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `ndml` script."""
    try:
        from ndml.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "ndml":
            raise
        sys.exit(f"ndml: {error.name} is not installed: pip install 'ndml[cli]'")
    sys.exit(run(sys.argv[1:]))
