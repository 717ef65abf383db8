"""What an application gets into its process with the client: gRPC and protobuf, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = [
    "numpy",
    "torch",
    "faiss",
    "transformers",
    "opentelemetry",
    "pydantic",
    "structlog",
    "prometheus_client",
    "kubernetes",
    "rich",
    "typer",
    "yaml",
]
SCRIPT = """
import sys
before = set(sys.modules)
from ndml.client import AsyncNdmlClient, NdmlClient
NdmlClient("127.0.0.1:1", user="a").close()
roots = {name.partition(".")[0] for name in sys.modules}
print(*sorted(roots & set(%r)), sep=",")
print(*sorted(name for name in sys.modules if name.startswith(("ndml.", "services"))), sep=",")
"""


def test_the_client_imports_grpc_and_protobuf_only() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT % HEAVY], capture_output=True, text=True, timeout=60, check=True)
    heavy, own = done.stdout.splitlines()
    assert heavy == ""
    assert not [name for name in own.split(",") if name.startswith(("ndml.runtime", "ndml.placement", "ndml.cli.", "services"))]
    assert "ndml.v1.memory_pb2" in own
