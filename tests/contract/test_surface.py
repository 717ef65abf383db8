"""The public surface as it was pinned (protos/baseline.binpb): what clients in the field rely on does not change under them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

from ndml.v1 import admin_pb2, chat_pb2, errors_pb2, memory_pb2, model_pb2, types_pb2

ROOT = Path(__file__).resolve().parents[2]
PUBLIC: list[FileDescriptor] = [m.DESCRIPTOR for m in (admin_pb2, chat_pb2, errors_pb2, memory_pb2, model_pb2, types_pb2)]
BUF = shutil.which("buf") or shutil.which("buf", path=str(Path(sys.executable).parent))
needs_buf = pytest.mark.skipif(BUF is None, reason="buf is not installed: pip install buf-bin")


def breaking(protos: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BUF), "breaking", "--path", "ndml", "--against", "baseline.binpb"]
    return subprocess.run(command, cwd=protos, capture_output=True, text=True, timeout=120, check=False)


@needs_buf
def test_no_public_promise_is_broken() -> None:
    """After an agreed break: scripts/pin_contract.sh, and a line in CHANGELOG.md."""
    done = breaking(ROOT / "protos")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_buf
@pytest.mark.parametrize(
    ("file", "before", "after", "breaks"),
    [
        ("v1/memory.proto", "string trace_id = 1;", "string trace_id = 99;", True),
        ("v1/types.proto", "string speaker = 5", "bytes speaker = 5", True),
        ("v1/admin.proto", "rpc CreateSnapshot(", "rpc TakeSnapshot(", True),
        ("v1/chat.proto", "ROLE_USER = 2;", "ROLE_USER = 4;", True),
        ("v1/admin.proto", "bool healthy = 3;", "bool healthy = 3;\n  // More.\n  string more = 4;", False),
        ("internal/v1/memory_node.proto", "string path = 1;", "string file = 1;", False),
    ],
)
def test_the_pin_sees_a_break_and_lets_additions_pass(tmp_path: Path, file: str, before: str, after: str, breaks: bool) -> None:
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    changed = tmp_path / "protos/ndml" / file
    text = changed.read_text()
    assert before in text
    changed.write_text(text.replace(before, after, 1))
    done = breaking(tmp_path / "protos")
    assert (done.returncode != 0) == breaks, done.stdout + done.stderr


def pinned() -> descriptor_pb2.FileDescriptorSet:
    # A buf image is a FileDescriptorSet with extensions of its own.
    return descriptor_pb2.FileDescriptorSet.FromString((ROOT / "protos/baseline.binpb").read_bytes())


def numbers(message: descriptor_pb2.DescriptorProto) -> dict[str, int]:
    return {field.name: field.number for field in message.field}


def test_the_committed_stubs_keep_every_pinned_field_number() -> None:
    """The same promise without buf, on what Python really loads."""
    messages = {f"{file.package}.{m.name}": numbers(m) for file in pinned().file for m in file.message_type if file.package == "ndml.v1"}
    assert len(messages) > 40
    loaded = {m.full_name: {f.name: f.number for f in m.fields} for file in PUBLIC for m in file.message_types_by_name.values()}
    for name, fields in messages.items():
        assert fields.items() <= loaded[name].items(), name
