"""A long run of atheris, guided by coverage, over one decoder or all: `python -m tests.fuzz [NAME …] --seconds 60`.

libFuzzer ends its process itself, so each decoder gets one of its own. What broke a decoder lies in build/fuzz/NAME afterwards, beside the
inputs that reached new code, from which the next run goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

_LONGEST_INPUT = 4096
_MOST_MIB = 2048  # resident: what a decoder makes of 4 kB is far below, the interpreter with torch is most of it
_SLOWEST_S = 20
_STARTUP_S = 300  # instrumenting every module that a decoder imports takes a minute on a busy core
_STATS = re.compile(r"stat::(\w+):\s+(\d+)")
_COVERED = re.compile(r"cov: (\d+) ft: (\d+)")


def main() -> int:
    """Exit code: how many decoders failed, 9 at most; 2 as argparse does where atheris is not installed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="decoders; none: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each decoder")
    parser.add_argument("--work", type=Path, default=Path("build/fuzz"), help="corpora and findings")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="name the decoders and stop")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if importlib.util.find_spec("atheris") is None and not options.list:
        parser.error("atheris is not installed: make fuzz does it, or: pip install -r tests/fuzz/requirements.in")
    if options.inside:
        return _inside(options.inside, [*rest, *options.names])  # to argparse the corpus looks like a decoder's name
    from tests.fuzz.decoders import DECODERS

    if unknown := [name for name in options.names if name not in DECODERS]:
        parser.error(f"no decoder {unknown[0]!r}; there are {', '.join(DECODERS)}")
    names = options.names or list(DECODERS)
    if options.list:
        print("\n".join(names))
        return 0
    print(f"{'decoder':20} {'runs':>10} {'runs/s':>8} {'code':>6} {'paths':>6} {'inputs':>7} {'MiB':>5}  result")
    return min(9, sum(not _run(name, options) for name in names))


def _run(name: str, options: argparse.Namespace) -> bool:
    """Fuzz one decoder in a process of its own and print its row; whether nothing broke."""
    from tests.fuzz.decoders import DECODERS

    corpus = options.work / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for place, sample in enumerate(DECODERS[name].samples):
        (corpus / f"sample-{place}").write_bytes(sample[:_LONGEST_INPUT])
    flags = {
        "max_total_time": options.seconds,
        "max_len": _LONGEST_INPUT,
        "rss_limit_mb": _MOST_MIB,
        "timeout": _SLOWEST_S,
        "seed": options.seed,
        "print_final_stats": 1,
        "artifact_prefix": f"{options.work / name}/",
    }
    command = [sys.executable, "-m", "tests.fuzz", "--inside", name, *(f"-{key}={value}" for key, value in flags.items()), str(corpus)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=options.seconds + _STARTUP_S, check=False)
        said, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        said, code = (error.stderr or b"").decode("utf-8", "replace"), 1
    (options.work / name / "log").write_text(said)
    stats = dict(_STATS.findall(said))
    covered, paths = (_COVERED.findall(said) or [("0", "0")])[-1]
    result = "well" if code == 0 else f"BROKE, see {options.work / name}"
    runs, rate = stats.get("number_of_executed_units", "0"), stats.get("average_exec_per_sec", "0")
    inputs, peak = sum(1 for _ in corpus.iterdir()), stats.get("peak_rss_mb", "0")
    print(f"{name:20} {runs:>10} {rate:>8} {covered:>6} {paths:>6} {inputs:>7} {peak:>5}  {result}", flush=True)
    return code == 0


def _inside(name: str, arguments: list[str]) -> int:
    """In the process of one decoder: libFuzzer takes over and does not come back."""
    import atheris

    with atheris.instrument_imports(include=["ndml", "services", "google.protobuf.json_format"], enable_loader_override=False):
        from tests.fuzz.decoders import DECODERS
    decoder = DECODERS[name]

    def one(data: bytes) -> None:
        decoder.try_one(data)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
