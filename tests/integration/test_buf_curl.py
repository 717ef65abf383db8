"""Any gRPC tool can speak to the suite: `buf curl` knows nothing of NDML but what reflection tells it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

USER = f"buf-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def buf() -> str:
    found = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    assert found, "buf is missing: make setup installs it (buf-bin)"
    return found


def curl(buf: str, address: str, method: str, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    url = f"http://{address}/ndml.v1.{method}"
    command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", url, "-d", json.dumps(request)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_add_then_search_by_reflection(buf: str, suite: Any) -> None:
    memory = {"scope": {"user": USER}, "text": "The blue kayak is in the boathouse.", "speaker": "Ida", "kind": "TRACE_KIND_SEMANTIC"}
    added = curl(buf, suite.grpc_address, "MemoryService/AddMemory", {"requestId": "buf-1", "memory": memory})
    assert added.returncode == 0, added.stderr
    trace_id = json.loads(added.stdout)["traceId"]
    found = curl(buf, suite.grpc_address, "MemoryService/SearchMemories", {"scope": {"user": USER}, "text": "blue kayak", "k": 3})
    assert found.returncode == 0, found.stderr
    (hit,) = json.loads(found.stdout)["hits"]
    assert hit["trace"]["traceId"] == trace_id and hit["trace"]["speaker"] == "Ida" and hit["similarity"] > 0.5


def test_an_error_comes_with_its_details(buf: str, suite: Any) -> None:
    refused = curl(buf, suite.grpc_address, "MemoryService/SearchMemories", {"scope": {"user": USER}, "text": "x", "k": -1})
    assert refused.returncode != 0
    error = json.loads(refused.stderr)
    assert error["code"] == "invalid_argument"
    details = {detail["type"]: base64.b64decode(detail["value"] + "==") for detail in error["details"]}
    assert error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"]).reason == "FIELD_INVALID"
    assert error_details_pb2.BadRequest.FromString(details["google.rpc.BadRequest"]).field_violations[0].field == "k"
