"""The client programs of examples/clients, built where their toolchain is: each builder gives the command that runs one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.doors.toolchain import node_project

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
Command = list[str]

# Bounds of one build: C++ takes a minute on two cores that others use too.
BUILD_S = 300
_GO_SOURCES = Path("/usr/share/gocode/src/google.golang.org/grpc")
_JARS = (Path("/usr/share/java/grpc-netty.jar"), Path("/usr/share/java/netty-tcnative.jar"))
_GO = "apt-get install golang-go golang-google-grpc-dev golang-google-genproto-dev golang-github-golang-protobuf-1-5-dev"
_JAVA = (
    "apt-get install default-jdk-headless libgrpc-java libprotobuf-java libnetty-java libnetty-tcnative-java libperfmark-java libguava-java"
)


def need(install: str, *programs: str, files: tuple[Path, ...] = ()) -> None:
    """Skip where a toolchain is not here, saying what installs it."""
    missing = [program for program in programs if shutil.which(program) is None] + [str(path) for path in files if not path.exists()]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}. To have them: {install}")


def run(command: Command, cwd: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a step of a build; its output is the failure's message."""
    own = os.environ | dict(environment or {})
    done = subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def python(_: Path) -> Command:
    return [sys.executable, str(CLIENTS / "python" / "client.py")]


def curl(_: Path) -> Command:
    need("apt-get install curl", "curl")
    return ["sh", str(CLIENTS / "curl" / "ndml.sh")]


def go(_: Path) -> Command:
    packages = f"{_GO} protobuf-compiler protoc-gen-go protoc-gen-go-grpc make"
    need(packages, "go", "make", "protoc", "protoc-gen-go", "protoc-gen-go-grpc", files=(_GO_SOURCES,))
    return [str(_cached("go", lambda source: run(["make", "WITH=debian"], source)) / "ndml-client")]


def java(_: Path) -> Command:
    packages = f"{_JAVA} libgeronimo-annotation-1.3-spec-java protobuf-compiler protobuf-compiler-grpc-java-plugin make"
    need(packages, "javac", "java", "make", "protoc", "grpc_java_plugin", files=_JARS)
    source = _cached("java", lambda source: run(["make", "build"], source))
    return ["make", "--silent", "--no-print-directory", "-C", str(source), "run"]


def cpp(_: Path) -> Command:
    packages = "cmake g++ pkg-config libgrpc++-dev protobuf-compiler-grpc"
    need(f"apt-get install {packages}", "cmake", "g++", "pkg-config", "protoc", "grpc_cpp_plugin")

    def build(source: Path) -> None:
        run(["cmake", "-S", ".", "-B", "build"], source)
        run(["cmake", "--build", "build", "--parallel", "2"], source)

    return [str(_cached("cpp", build) / "build" / "ndml-client")]


def node(work: Path) -> Command:
    """The packed package, installed as a user has it: what it does not ship is not there."""
    project = node_package(work / "package")
    run(["npm", "pack", "--ignore-scripts", "--silent"], project)
    modules = work / "user" / "node_modules"
    modules.mkdir(parents=True)
    for name in ("@grpc", "@bufbuild", *_dependencies(project)):
        (modules / name).symlink_to(project / "node_modules" / name)
    (tarball,) = project.glob("*.tgz")
    (modules / "ndml-client").mkdir()
    run(["tar", "-xzf", str(tarball), "-C", str(modules / "ndml-client"), "--strip-components=1"], project)
    shutil.copy(project / "quickstart.js", work / "user" / "quickstart.mjs")
    return ["node", str(work / "user" / "quickstart.mjs")]


def _dependencies(project: Path) -> Iterator[str]:
    """The other folders of node_modules: what grpc-js needs in its turn."""
    for path in (project / "node_modules").iterdir():
        if not path.name.startswith((".", "@grpc", "@bufbuild")):
            yield path.name


def node_package(root: Path) -> Path:
    """The Node package with its dependencies, generated and compiled in a copy; it finds the protos as in the tree."""
    project = node_project(CLIENTS / "node", root / "examples" / "clients" / "node")
    with suppress(FileExistsError):
        (root / "protos").symlink_to(ROOT / "protos", target_is_directory=True)
    buf = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    assert buf, "buf is missing: make setup installs it (buf-bin)"
    run(["npm", "run", "build"], project, environment={"PATH": f"{Path(buf).parent}{os.pathsep}{os.environ['PATH']}"})
    return project


BUILDERS: dict[str, Callable[[Path], Command]] = {"python": python, "curl": curl, "node": node, "go": go, "java": java, "cpp": cpp}


def _cached(language: str, build: Callable[[Path], None]) -> Path:
    """A built copy of a client, kept between runs under a name that its sources and the protos give; older ones of the language go.
    Of several processes that want it at once one builds."""
    source = CLIENTS / language
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", str(source), "protos"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    digest = hashlib.sha256(b"".join(name.encode() + (ROOT / name).read_bytes() for name in sorted(files) if (ROOT / name).exists()))
    base = Path(tempfile.gettempdir()) / f"ndml-clients-{os.getuid()}"
    kept = base / f"{language}-{digest.hexdigest()[:16]}"
    copied = kept / "examples" / "clients" / language
    base.mkdir(exist_ok=True)
    with (base / f"{language}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / "built").exists():
            for old in base.glob(f"{language}-*"):
                shutil.rmtree(old)
            shutil.copytree(source, copied, ignore=shutil.ignore_patterns("build", "gen", ".gopath", "ndml-client"))
            (kept / "protos").symlink_to(ROOT / "protos", target_is_directory=True)
            build(copied)
            (kept / "built").touch()
    return copied
