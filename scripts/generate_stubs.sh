#!/usr/bin/env bash
# Generate ndml/v1, ndml/internal/v1 and the vendored rule stubs from protos/. Output is committed; `make lint` diffs it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export PATH="$PWD/.venv/bin:$PATH"
out=${1:-.}
mkdir -p "$out/protos/third_party/python"
"$python" -m grpc_tools.protoc -Iprotos/third_party --python_out="$out/protos/third_party/python" protos/third_party/buf/validate/validate.proto
files=$(find protos/ndml -name '*.proto' | sort)
# shellcheck disable=SC2086
"$python" -m grpc_tools.protoc -Iprotos -Iprotos/third_party --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" --mypy_grpc_out="$out" $files
# Files without a service get an empty _grpc module from protoc: drop them, there is nothing to import.
rm -f "$out"/ndml/v1/{types,errors}_pb2_grpc.py*
# The REST door's OpenAPI takes its descriptions from the comments, which descriptors lack.
mkdir -p "$out/services/gateway/rest"
"$python" scripts/generate_openapi_comments.py "$out/services/gateway/rest/comments.json"
