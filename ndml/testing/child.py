"""Run a module as the child of a supervisor: `python -m ndml.testing.child services.gateway`.

The supervisor holds the other end of our standard input and never writes to it. End of file means that it is gone, even by
SIGKILL, on every platform (PR_SET_PDEATHSIG would be Linux only, and fires when the *thread* that forked us ends).
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
import threading
import time

_ORPHAN_EXIT_CODE = 70


def follow_supervisor(stdin_fd: int, grace_s: float) -> None:
    """Block until the supervisor is gone, then drain: SIGTERM to ourselves, and after `grace_s` a hard exit."""
    while os.read(stdin_fd, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(_ORPHAN_EXIT_CODE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="ndml.testing.child")
    parser.add_argument("--grace-s", type=float, default=15.0, help="how long to drain once the supervisor is gone")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    # A duplicate, so that a module that closes or reads sys.stdin does not disturb the watch.
    watched = os.dup(sys.stdin.fileno())
    threading.Thread(target=follow_supervisor, args=(watched, options.grace_s), name="follow-supervisor", daemon=True).start()
    sys.argv = [options.module, *options.arguments]
    runpy.run_module(options.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
