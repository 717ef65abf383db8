"""A long run of atheris, guided by coverage, over one decoder or all: `python -m tests.fuzz [NAME …] --seconds 60`.

libFuzzer ends its process itself, so each decoder gets a fork of this one, whose modules are instrumented already. What broke a decoder
lies in build/fuzz/NAME afterwards, beside the inputs that reached new code, from which the next run goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from pathlib import Path

_LONGEST_INPUT = 4096
_MOST_MIB = 2048  # resident: what a decoder makes of 4 kB is far below
_SLOWEST_S = 20
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
    options = parser.parse_args()
    if options.list:
        from tests.fuzz.decoders import DECODERS

        print("\n".join(DECODERS))
        return 0
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: make fuzz does it, or: pip install -r tests/fuzz/requirements.in")
    import atheris

    with atheris.instrument_imports(include=["ndml", "services", "google.protobuf.json_format"], enable_loader_override=False):
        from tests.fuzz.decoders import DECODERS
    names = options.names or list(DECODERS)
    if unknown := [name for name in names if name not in DECODERS]:
        parser.error(f"no decoder {unknown[0]!r}; there are {', '.join(DECODERS)}")
    print(f"{'decoder':20} {'runs':>10} {'runs/s':>8} {'code':>6} {'paths':>6} {'inputs':>7} {'MiB':>5}  result", flush=True)
    return min(9, sum(not _run(name, options) for name in names))


def _run(name: str, options: argparse.Namespace) -> bool:
    """Fuzz one decoder in a fork and print its row; whether nothing broke."""
    from tests.fuzz.decoders import DECODERS

    home = options.work / name
    corpus, log = home / "corpus", home / "log"
    corpus.mkdir(parents=True, exist_ok=True)
    for place, sample in enumerate(DECODERS[name].samples):
        (corpus / f"sample-{place}").write_bytes(sample[:_LONGEST_INPUT])
    pid = os.fork()
    if pid == 0:
        _fuzz(name, options, corpus, log)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = log.read_text(errors="replace")
    stats = dict(_STATS.findall(said))
    covered, paths = (_COVERED.findall(said) or [("0", "0")])[-1]
    result = "well" if code == 0 else f"BROKE, see {home}"
    runs, rate = stats.get("number_of_executed_units", "0"), stats.get("average_exec_per_sec", "0")
    inputs, peak = sum(1 for _ in corpus.iterdir()), stats.get("peak_rss_mb", "0")
    print(f"{name:20} {runs:>10} {rate:>8} {covered:>6} {paths:>6} {inputs:>7} {peak:>5}  {result}", flush=True)
    return code == 0


def _fuzz(name: str, options: argparse.Namespace, corpus: Path, log: Path) -> None:
    """In the fork: libFuzzer takes over, writes into the log and ends the process."""
    import atheris

    from tests.fuzz.decoders import DECODERS

    decoder = DECODERS[name]

    def one(data: bytes) -> None:
        decoder.try_one(data)

    flags = {
        "max_total_time": options.seconds,
        "max_len": _LONGEST_INPUT,
        "rss_limit_mb": _MOST_MIB,
        "timeout": _SLOWEST_S,
        "seed": options.seed,
        "print_final_stats": 1,
        "artifact_prefix": f"{log.parent}/",
    }
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        atheris.Setup(["tests.fuzz", *(f"-{key}={value}" for key, value in flags.items()), str(corpus)], one)
        atheris.Fuzz()
    os._exit(1)  # not reached: a fork must not go on with its parent's work


if __name__ == "__main__":
    sys.exit(main())
