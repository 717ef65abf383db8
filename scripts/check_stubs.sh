#!/usr/bin/env bash
# Fail when the committed stubs are not what protos/ gives; `make proto` repairs it.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/generate_stubs.sh "$fresh"
stubs() { (cd "$1" && find ndml/v1 ndml/internal/v1 protos/third_party/python -name '*_pb2*.py*' -not -path '*/__pycache__/*' | sort); }
if ! diff <(stubs "$fresh") <(stubs .); then
  echo "committed stubs and protos/ name other files (< protos, > committed): run make proto" >&2
  exit 1
fi
stubs . | while read -r file; do
  diff -u "$file" "$fresh/$file" || { echo "$file is not what protos/ gives: run make proto" >&2; exit 1; }
done
echo "stubs match protos/"
