"""Scripts for machines without Docker, on one without: what they ask for, refuse, start and stop, with stand-ins for daemon and client.

A base image itself is made where there is a daemon: `make images` as docs/operations/images.md has it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.manifests import ROOT

SCRIPT = ROOT / "scripts/dockerd_in_vm.sh"
BASES = ROOT / "scripts/lookalike_base.sh"
USED = ("bash", "sed", "mkdir", "cat", "chmod", "seq", "sleep", "tail")
DAEMON = """#!/bin/sh
echo "$@" > "$(dirname "$0")/asked"
while [ "$1" != --pidfile ]; do shift; done
echo $$ > "$2"
exec sleep 300
"""
NO_DAEMON = "#!/bin/sh\necho no overlay here >&2\nexit 1\n"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what the script itself uses, and nothing of Docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in USED:
        found = shutil.which(name)
        assert found is not None, name
        (folder / name).symlink_to(found)
    return folder


def program(folder: Path, name: str, text: str = "#!/bin/sh\nexit 0\n") -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def run(tools: Path, *arguments: str, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    # Into a file: the daemon in the background keeps what it inherits open.
    said = tools.parent / "said"
    with said.open("w") as sink:
        done = subprocess.run(
            [str(tools / "bash"), str(script), *arguments], env={"PATH": str(tools)}, stdout=sink, stderr=sink, timeout=60
        )
    return subprocess.CompletedProcess(done.args, done.returncode, said.read_text(), "")


@pytest.mark.parametrize("script", [SCRIPT, BASES], ids=lambda script: script.stem)
def test_it_parses_and_may_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [(), ("start",), ("restart", "DIR"), ("start", "DIR", "more")])
def test_a_wrong_call_is_told_the_right_ones(tools: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tools, *(word.replace("DIR", str(tmp_path / "own")) for word in arguments))
    assert done.returncode == 2
    assert "dockerd_in_vm.sh start DIR" in done.stdout and "dockerd_in_vm.sh stop DIR" in done.stdout


@pytest.mark.parametrize("missing", ["dockerd", "containerd", "runc"])
def test_a_tool_that_is_not_here_is_named_with_its_package(tools: Path, tmp_path: Path, missing: str) -> None:
    for name in {"dockerd", "containerd", "runc"} - {missing}:
        program(tools, name)
    done = run(tools, "start", str(tmp_path / "own"))
    assert (done.returncode, done.stdout) == (1, f"dockerd_in_vm: {missing} is not installed; Debian: apt-get install docker.io\n")


def test_a_daemon_that_does_not_come_up_is_told_with_the_end_of_its_log(tools: Path, tmp_path: Path) -> None:
    for name, text in {"dockerd": NO_DAEMON, "containerd": NO_DAEMON, "runc": NO_DAEMON, "docker": NO_DAEMON}.items():
        program(tools, name, text)
    done = run(tools, "start", str(tmp_path / "own"))
    assert done.returncode == 1 and "the daemon did not come up" in done.stdout and "no overlay here" in done.stdout


def test_a_daemon_lives_from_start_to_stop(tools: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    program(tools, "dockerd", DAEMON.replace("dirname", shutil.which("dirname") or "dirname"))
    for name in ("containerd", "runc", "docker"):
        program(tools, name)
    started = run(tools, "start", str(own))
    assert (started.returncode, started.stdout) == (0, f"export DOCKER_HOST=unix://{own}/docker.sock\n"), started.stdout
    asked = (tools / "asked").read_text()
    assert f"--data-root {own}/data" in asked and f"-H unix://{own}/docker.sock" in asked and f"--add-runtime vm={own}/runc" in asked
    pid = int((own / "dockerd.pid").read_text())
    os.kill(pid, 0)
    assert run(tools, "stop", str(own)).returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nothing_is_stopped_where_nothing_was_started(tools: Path, tmp_path: Path) -> None:
    done = run(tools, "stop", str(tmp_path / "own"))
    assert (done.returncode, done.stdout) == (1, f"dockerd_in_vm: no daemon was started in {tmp_path / 'own'}\n")


def test_containers_may_be_started_where_no_score_may_be_lowered(tools: Path, tmp_path: Path) -> None:
    """The stand-in for runc changes what would need a right that the machine does not give; what runc makes of it is runc's."""
    own, bundle = tmp_path / "own", tmp_path / "bundle"
    for name in ("dockerd", "containerd", "runc", "docker"):
        program(tools, name, NO_DAEMON)
    run(tools, "start", str(own))
    bundle.mkdir()
    (bundle / "config.json").write_text('{"process":{"oomScoreAdj":-500}}')
    subprocess.run(
        [str(own / "runc"), "create", "--bundle", str(bundle), "--help"], env={"PATH": str(tools)}, capture_output=True, timeout=30
    )
    assert json.loads((bundle / "config.json").read_text()) == {"process": {"oomScoreAdj": 0}}


@pytest.mark.parametrize("missing", ["docker", "debootstrap", "python3.11"])
def test_bases_are_not_begun_without_a_tool(tools: Path, missing: str) -> None:
    for name in {"docker", "debootstrap", "python3.11"} - {missing}:
        program(tools, name)
    done = run(tools, script=BASES)
    assert (done.returncode, done.stdout) == (1, f"lookalike_base: {missing} is not installed\n")


def test_bases_are_not_begun_without_a_daemon(tools: Path) -> None:
    for name in ("docker", "debootstrap", "python3.11"):
        program(tools, name, NO_DAEMON)
    done = run(tools, script=BASES)
    assert (done.returncode, done.stdout) == (1, "lookalike_base: no docker daemon answers; scripts/dockerd_in_vm.sh starts one\n")
