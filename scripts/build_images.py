"""Build the four images and say what became of each: `make images`. Standard library only, so that it runs before any set-up.

    python3 scripts/build_images.py [--tag TAG] [--base-registry PREFIX] [--gpu] [--torch-index URL] [--only gateway …]

Exit code 0: all are built. 1: one is not; the end of its log is shown. 2: no docker.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVICES = {"gateway": "gateway", "consensus": "consensus", "memory-node": "memory_node", "llm": "llm"}
WITH_GPU = ("memory-node", "llm")
LIMITS_MB = {"gateway": 250, "consensus": 250}
"""What the image may weigh at most; the others carry FAISS and torch, whose size is not ours."""
_LOG_LINES = 25


@dataclass(frozen=True)
class Options:
    """What every build is told."""

    tag: str
    base_registry: str
    torch_index: str
    gpu: bool
    version: str
    revision: str


class NotBuilt(Exception):
    """One image was not built; the message has the end of the log."""


def image_name(service: str, options: Options) -> str:
    """Name and tag of a service's image."""
    return f"ndml-{service}{'-gpu' if options.gpu else ''}:{options.tag}"


def command(service: str, options: Options) -> list[str]:
    """The docker command that builds one image."""
    arguments = {
        "BASE_REGISTRY": options.base_registry,
        "VERSION": options.version,
        "REVISION": options.revision,
        **({"VARIANT": "gpu" if options.gpu else "cpu", "TORCH_INDEX": options.torch_index} if service in WITH_GPU else {}),
    }
    given = [word for name, value in arguments.items() if value for word in ("--build-arg", f"{name}={value}")]
    return ["docker", "build", *given, "-f", f"services/{SERVICES[service]}/Dockerfile", "-t", image_name(service, options), "."]


def build(service: str, options: Options) -> int:
    """Build one image; gives its size in bytes. Raises NotBuilt."""
    done = subprocess.run(
        command(service, options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode:
        raise NotBuilt("\n".join(done.stdout.splitlines()[-_LOG_LINES:]))
    shown = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Size}}", image_name(service, options)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout)


def build_all(services: Sequence[str], options: Options) -> int:
    """Build each in turn, one line each; gives the exit code."""
    for number, service in enumerate(services, 1):
        print(f"[{number}/{len(services)}] {image_name(service, options)} … ", end="", flush=True)
        started = time.monotonic()
        try:
            size = build(service, options)
        except NotBuilt as error:
            print(f"not built\n{error}", file=sys.stderr)
            return 1
        print(f"{time.monotonic() - started:.0f} s, {size / 1e6:.0f} MB", flush=True)
        limit = LIMITS_MB.get(service)
        if limit is not None and size > limit * 1_000_000:
            print(f"{service} is above its {limit} MB: see docs/operations/images.md for what is in it", file=sys.stderr)
            return 1
    return 0


def read_options(arguments: Sequence[str]) -> tuple[list[str], Options]:
    """Services to build, and how. Exits with 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="build_images", description=(__doc__ or "").splitlines()[0])
    version = re.search(r'__version__ = "(.+?)"', (ROOT / "ndml" / "__init__.py").read_text("utf-8"))
    assert version is not None
    parser.add_argument("--tag", default=version[1], help="tag of the images; default: the version")
    parser.add_argument("--base-registry", default="", metavar="PREFIX", help="put before the base images' names: a mirror, with its slash")
    parser.add_argument("--gpu", action="store_true", help="the GPU variants of memory-node and llm, instead of the four")
    parser.add_argument("--torch-index", default="", metavar="URL", help="where pip finds builds of torch for CPU (with --gpu: for CUDA)")
    parser.add_argument("--only", nargs="+", choices=list(SERVICES), default=[], help="these alone")
    options = parser.parse_args(arguments)
    choice = [name for name in (WITH_GPU if options.gpu else SERVICES) if not options.only or name in options.only]
    if not choice:
        parser.error(f"of {', '.join(options.only)} there is no GPU variant; there is of {' and '.join(WITH_GPU)}")
    revision = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    given = Options(
        tag=options.tag,
        base_registry=options.base_registry,
        torch_index=options.torch_index,
        gpu=options.gpu,
        version=version[1],
        revision=revision.stdout.strip() or "unknown",
    )
    return choice, given


def main(arguments: Sequence[str]) -> int:
    services, options = read_options(arguments)
    if shutil.which("docker") is None:
        print("build_images: docker is not installed", file=sys.stderr)
        return 2
    if subprocess.run(["docker", "version"], capture_output=True).returncode:
        where = os.environ.get("DOCKER_HOST", "the default socket")
        print(f"build_images: no docker daemon answers at {where}; scripts/dockerd_in_vm.sh starts one", file=sys.stderr)
        return 2
    return build_all(services, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
