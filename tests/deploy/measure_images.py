"""What the images weigh, how fast they start, what a demonstration and a stop under load do to them, into docs/operations/images.md.

    python -m tests.deploy.measure_images [--markdown docs/operations/images.md]

Needs a docker daemon, compose and the images (`make images`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ndml.client import ClientOptions
from tests.deploy.containers import GPU_IMAGES, IMAGES, ROOT, Containers, built, docker, image, inspect, missing, running
from tests.deploy.load import CALLERS, PATIENT, Load

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
# Calls before the signal, while the container is away, and after it is back: each caller has gone round some times.
ROUND = 40
BETWEEN = {"llm": 0}


def sizes() -> list[list[str]]:
    """Image, size, its layers above the base, user; of the GPU variants those that are built."""
    rows = []
    for name in [*map(image, IMAGES), *(name for name in map(image, GPU_IMAGES) if built(name))]:
        found = inspect(name, "image")
        layers = [int(size) for size in docker("history", "--human=false", "--format", "{{.Size}}", name).stdout.split()]
        base = layers[-1]
        rows.append([name, f"{found['Size'] / 1e6:.0f} MB", f"{(found['Size'] - base) / 1e6:.0f} MB", found["Config"]["User"]])
    return rows


def starts(containers: Containers) -> list[list[str]]:
    """Container, seconds from start to ready, memory then."""
    stats = docker("stats", "--no-stream", "--format", "{{.ID}} {{.MemUsage}}").stdout.splitlines()
    used = {line.split()[0]: line.split()[1] for line in stats}
    return [[name, f"{containers.start_seconds(name):.1f} s", used.get(containers.id(name)[:12], "?")] for name in containers.names]


def stop_under_load(containers: Containers, name: str) -> list[str]:
    """SIGTERM one container while callers go on, start it again; the table's row."""
    once = name == "llm"
    options = PATIENT if once else ClientOptions()
    with Load(containers.grpc_addresses, options, timeout_s=120.0 if once else 20.0) as load:
        load.wait_for(ROUND)
        ended = containers.stop(name)
        load.wait_for(BETWEEN.get(name, ROUND))
        containers.start(name)
        load.wait_for(ROUND)
    tally = load.tally
    failed = "0" if not tally.failures else f"{len(tally.failures)}: {tally.failures[0]}"
    client = f"{options.retry.attempts} attempts, {120 if once else 20} s"
    return [name, str(ended.exit_code), f"{ended.seconds:.1f} s", str(tally.total), failed, client]


def demonstration(containers: Containers) -> str:
    """The last lines of `make demo` against the containers. Raises CalledProcessError where a check failed."""
    command = [sys.executable, "scripts/demo.py", "--address", containers.grpc_addresses[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise RuntimeError(f"the demonstration failed:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return f"{done.stdout.count('✓')} checks of `scripts/demo.py --address …` held, 0 did not; {done.stdout.strip().splitlines()[-1]}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured() -> str:
    """The measured part of the page."""
    with running(second_gateway=True) as containers:
        weights = table(["image", "size", "above the base", "user"], sizes())
        speed = table(["container", "ready after", "memory then"], starts(containers))
        demo = demonstration(containers)
        print(demo, flush=True)
        rows = []
        for name in ("gateway", "gateway-2", "memory-1", "memory-2", "consensus", "llm"):
            rows.append(stop_under_load(containers, name))
            print(rows[-1], flush=True)
        head = ["SIGTERM to", "exit code", "stopped after", "calls meanwhile", "failed", "client"]
        stops = table(head, rows)
    cores = f"{os.cpu_count()} cores, shared with other work"
    return "\n\n".join(
        [f"On {cores}:", weights, speed, demo, f"{CALLERS} callers add, search, read and chat through both gateways:", stops]
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="measure_images", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markdown", type=Path, help="page whose measured part is replaced")
    options = parser.parse_args(arguments)
    if reason := missing():
        print(f"measure_images: {reason}", file=sys.stderr)
        return 2
    found = measured()
    print(found)
    if options.markdown is not None:
        before, _, rest = options.markdown.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        options.markdown.write_text(f"{before}{BEGIN}\n{found}\n{END}{after}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
