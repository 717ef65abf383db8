"""Write the protos' comments to services/gateway/rest/comments.json: Python descriptors carry none, and /openapi.json needs them.

Run after `generate_stubs.sh`: `.venv/bin/python scripts/generate_openapi_comments.py [OUTPUT]`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "services/gateway/rest/comments.json"
INDENT = 1  # one line a comment: a change shows as a small diff


def compile_protos() -> FileDescriptorSet:
    """Descriptors of protos/ndml/v1 with their comments."""
    files = [str(path.relative_to(ROOT / "protos")) for path in sorted((ROOT / "protos/ndml/v1").glob("*.proto"))]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "image.binpb"
        options = [f"-I{ROOT}/protos", f"-I{ROOT}/protos/third_party", "--include_source_info", f"--descriptor_set_out={target}"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *files], check=True)
        return FileDescriptorSet.FromString(target.read_bytes())


def comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """(full name, comment) of everything in the file that has one."""
    for location in file.source_code_info.location:
        text = " ".join(location.leading_comments.split())
        name = _name(file, list(location.path))
        if text and name:
            yield name, text


def _name(file: FileDescriptorProto, path: list[int]) -> str:
    """Full name of what a source path points at; empty for options and other things without a name."""
    names, node = [file.package], file
    while path:
        if len(path) < 2:
            return ""
        number, index, *path = path
        member: Any = next(field.name for field in node.DESCRIPTOR.fields if field.number == number)
        children = getattr(node, member)
        if not hasattr(children, "__len__") or isinstance(children, str) or index >= len(children) or not hasattr(children[index], "name"):
            return ""
        node = children[index]
        names.append(node.name)
    return ".".join(names) if len(names) > 1 else ""


def render() -> str:
    """The file's text."""
    found = dict(pair for file in compile_protos().file for pair in comments_of(file))
    return json.dumps(found, indent=INDENT, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else OUTPUT).write_text(render(), encoding="utf-8")
