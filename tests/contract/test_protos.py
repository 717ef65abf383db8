"""The protos: lint, and a REST route for every RPC that can have one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import FileDescriptor

from ndml.internal.v1 import consensus_pb2, llm_pb2, memory_node_pb2
from ndml.v1 import admin_pb2, chat_pb2, errors_pb2, memory_pb2, model_pb2, types_pb2

ROOT = Path(__file__).resolve().parents[2]
PUBLIC: list[FileDescriptor] = [m.DESCRIPTOR for m in (admin_pb2, chat_pb2, errors_pb2, memory_pb2, model_pb2, types_pb2)]
INTERNAL: list[FileDescriptor] = [m.DESCRIPTOR for m in (consensus_pb2, llm_pb2, memory_node_pb2)]
# A client stream has no HTTP counterpart; over REST an import is a series of batchAdd.
WITHOUT_ROUTE = {"ndml.v1.MemoryService.ImportMemories", "ndml.v1.AdminService.Backup", "ndml.v1.AdminService.Restore"}
BUF = shutil.which("buf") or shutil.which("buf", path=str(Path(sys.executable).parent))
needs_buf = pytest.mark.skipif(BUF is None, reason="buf is not installed: pip install buf-bin")


@needs_buf
def test_the_protos_are_clean() -> None:
    done = subprocess.run([str(BUF), "lint"], cwd=ROOT / "protos", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_rpc_has_a_route_of_its_own() -> None:
    routes: dict[tuple[str, str], str] = {}
    without = set()
    for service in (service for file in PUBLIC for service in file.services_by_name.values()):
        for method in service.methods:
            options = method.GetOptions()
            if not options.HasExtension(annotations_pb2.http):
                without.add(method.full_name)
                continue
            rule = options.Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            route = (verb, getattr(rule, verb))
            assert route not in routes, f"{method.full_name} and {routes[route]} share {route}"
            assert route[1].startswith("/v1/")
            assert (rule.body == "*") == (verb in ("post", "patch", "put"))
            routes[route] = method.full_name
    assert without == WITHOUT_ROUTE
    assert len(routes) > 10


def test_internal_rpcs_have_no_route() -> None:
    for service in (service for file in INTERNAL for service in file.services_by_name.values()):
        assert not [m.full_name for m in service.methods if m.GetOptions().HasExtension(annotations_pb2.http)]


def test_writes_can_be_repeated_safely() -> None:
    for request in (memory_pb2.AddMemoryRequest, memory_pb2.BatchAddMemoriesRequest):
        assert "request_id" in request.DESCRIPTOR.fields_by_name
