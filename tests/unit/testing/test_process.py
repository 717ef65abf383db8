"""Children drain on SIGTERM, die on SIGKILL, and never outlive their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ndml.testing.process import ManagedProcess

DRAINS = """
import signal, sys, time
def drain(*_):
    print("drained", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
print("up", flush=True)
while True:
    time.sleep(0.02)
"""
SUPERVISOR = """
import sys, time
from pathlib import Path
from ndml.testing.process import ManagedProcess
child = ManagedProcess("child", sys.argv[1], {"PYTHONPATH": sys.argv[2]}, Path(sys.argv[2]) / "child.log")
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    (tmp_path / "drains.py").write_text(DRAINS)
    (tmp_path / "fails.py").write_text("for n in range(100): print('line', n)\nraise SystemExit(3)\n")
    (tmp_path / "ignores.py").write_text(DRAINS.replace("sys.exit(0)", "pass"))
    return "drains"


def started(name: str, directory: Path) -> ManagedProcess:
    process = ManagedProcess("child", name, {"PYTHONPATH": str(directory)}, directory / "child.log")
    process.start()
    return process


def wait_for_log(path: Path, word: str, bound_s: float = 30.0) -> None:
    deadline = time.monotonic() + bound_s
    while not (path.exists() and word in path.read_text()):
        assert time.monotonic() < deadline, f"{word!r} never came into {path}"
        time.sleep(0.02)


def test_terminate_drains_and_restart_appends_to_the_log(tmp_path: Path, module: str) -> None:
    process = started(module, tmp_path)
    wait_for_log(tmp_path / "child.log", "up")
    process.terminate()
    assert process.wait(30) == 0
    process.start()
    wait_for_log(tmp_path / "child.log", "drained\nup")
    process.terminate()
    assert process.wait(30) == 0
    assert process.log_tail().splitlines() == ["up", "drained", "up", "drained"]


def test_kill_ends_a_child_that_ignores_sigterm(tmp_path: Path, module: str) -> None:
    process = started("ignores", tmp_path)
    wait_for_log(tmp_path / "child.log", "up")
    process.terminate()
    wait_for_log(tmp_path / "child.log", "drained")
    assert process.wait(0.2) is None
    process.kill()
    assert process.wait(30) == -signal.SIGKILL


def test_a_failed_child_shows_its_exit_code_and_last_lines(tmp_path: Path, module: str) -> None:
    process = started("fails", tmp_path)
    assert process.wait(30) == 3
    assert process.log_tail(2) == "line 98\nline 99"


def test_child_has_a_session_of_its_own(tmp_path: Path, module: str) -> None:
    process = started(module, tmp_path)
    wait_for_log(tmp_path / "child.log", "up")
    assert process.pid is not None
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    process.terminate()
    assert process.wait(30) == 0


def test_start_while_running_is_refused(tmp_path: Path, module: str) -> None:
    process = started(module, tmp_path)
    with pytest.raises(RuntimeError, match="runs already"):
        process.start()
    process.kill()
    process.wait(30)


def test_children_drain_when_the_supervisor_is_killed(tmp_path: Path, module: str) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, module, str(tmp_path)], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    child = psutil.Process(int(supervisor.stdout.readline()))
    wait_for_log(tmp_path / "child.log", "up")
    supervisor.kill()
    supervisor.communicate()
    wait_for_log(tmp_path / "child.log", "drained")
    child.wait(30)
    assert not psutil.pid_exists(child.pid)
