#!/usr/bin/env bash
# Pin the public surface of protos/ as it stands: protos/baseline.binpb, against which the tests run `buf breaking`.
# Run it at a release, or after a break that everybody agreed to; never to make a red test green.
set -euo pipefail
cd "$(dirname "$0")/../protos"
PATH="$PWD/../.venv/bin:$PATH" buf build --path ndml --exclude-source-info -o baseline.binpb
