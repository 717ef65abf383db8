"""One child process with a log file, signals and a bounded wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# A log that grew past this is moved to `<name>.log.1` at the next start, so a data directory that is restarted for months stays bounded.
_ROTATE_BYTES = 20 << 20
_TAIL_BYTES = 16 << 10


class ManagedProcess:
    """`python -m <module>` in a session of its own, so that the terminal's Ctrl-C reaches the supervisor alone.

    It ends by itself when the supervisor dies (see child.py). Signals other than SIGKILL do not exist on Windows: there
    `terminate` ends the process at once, without a drain.
    """

    def __init__(self, name: str, module: str, environment: Mapping[str, str], log_path: Path, before: Sequence[str] = ()) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [*before, sys.executable, "-m", "ndml.testing.child", module]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code; None while it runs or before it was started. Negative: the signal that ended it."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, appending to its log. Raises RuntimeError when it runs already."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already with pid {self.pid}")
        self._release()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > _ROTATE_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def terminate(self) -> None:
        """Ask it to drain and end (SIGTERM)."""
        if self._process is not None and self.running:
            self._process.terminate()

    def kill(self) -> None:
        """End it now (SIGKILL)."""
        if self._process is not None and self.running:
            self._process.kill()

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, or None when it still runs after `timeout_s`."""
        if self._process is None:
            return None
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._release()
        return code

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        if not self.log_path.exists():
            return "(no log)"
        with self.log_path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:]) or "(empty log)"

    def _release(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
