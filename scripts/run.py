"""Keep NDML up in the foreground on its usual ports; Ctrl-C drains it. `make run` runs this. Memories stay in --data."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ndml.testing import Suite, SuiteError, SuiteOptions, TraceDoor, TraceSink
from ndml.testing.layout import Role

_LOOK_S = 0.5
_TRACES_PORT = 7790
_ALIASES = "REST__MODEL_ALIASES"

CALLS = """
[bold]Three calls to copy[/] (from the repository's root)

[dim]# gRPC; the server tells its own schema[/]
.venv/bin/buf curl --protocol grpc --http2-prior-knowledge http://{grpc}/ndml.v1.MemoryService/AddMemory \\
  -d '{{"memory": {{"scope": {{"user": "ann"}}, "text": "I moved to Lisbon in May."}}}}'

[dim]# REST; every route is listed at {rest}/docs[/]
curl -s {rest}/v1/memories:search -H 'content-type: application/json' \\
  -d '{{"scope": {{"user": "ann"}}, "text": "Where does Ann live?", "k": 3}}'

[dim]# Python[/]
.venv/bin/python - <<'EOS'
from ndml.client import NdmlClient
with NdmlClient("{grpc}", user="ann") as memory:
    for hit in memory.search("Where does Ann live?"):
        print(f"{{hit.score:.2f}} {{hit.memory.text}}")
EOS
"""


def describe(console: Console, suite: Suite, traces: str) -> None:
    table = Table("process", "gRPC", "REST", "metrics", "log")
    for spec in suite.layout.processes:
        rest = f"http://{spec.host}:{spec.rest_port}" if spec.rest_port else ""
        log = suite.process(spec.name).log_path
        table.add_row(spec.name, spec.address, rest, f"http://{spec.host}:{spec.metrics_port}/metrics", short(log))
    console.print(table)
    console.print(CALLS.format(grpc=suite.grpc_address, rest=suite.rest_url), highlight=False, soft_wrap=True)
    if traces:
        console.print(f"Traces of the last calls are kept here: ndml trace TRACE_ID --store {traces}", highlight=False, soft_wrap=True)
    console.print(f"Memories lie in [bold]{short(suite.layout.data_dir)}[/] and survive a restart. Ctrl-C drains and stops.")


def short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def watch(console: Console, suite: Suite) -> int:
    """Until Ctrl-C or SIGTERM. A process that dies is started again; one that cannot start ends the watch with exit code 1."""
    while True:
        time.sleep(_LOOK_S)
        for name in suite.names:
            process = suite.process(name)
            if process.running:
                continue
            console.print(
                f"[yellow]{name} ended with exit code {process.returncode}; starting it again[/] (log: {short(process.log_path)})"
            )
            try:
                suite.restart(name)
            except SuiteError as error:
                console.print(str(error), style="red", markup=False, highlight=False)
                return 1


def run(console: Console, options: SuiteOptions, traces: str = "") -> int:
    suite = Suite(options)
    try:
        with console.status("starting") as status:
            suite.start(on_ready=lambda name: status.update(f"{name} is ready"))
        describe(console, suite, traces)
        return watch(console, suite)
    except KeyboardInterrupt:
        console.print("\nDraining; once more Ctrl-C ends at once.")
        return 0
    except SuiteError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    finally:
        codes = suite.stop()
        console.print("Stopped: " + ", ".join(f"{name} {code}" for name, code in codes.items()), highlight=False)


def for_trying_out() -> dict[Role, dict[str, str]]:
    """Settings of this set-up alone: a client of OpenAI's API that names a model of theirs is answered by the one that is here."""
    return {"gateway": {_ALIASES: os.environ.get(f"NDML_GATEWAY__{_ALIASES}", '{"*": ""}')}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="directory of memories and logs (default: ./data)")
    parser.add_argument("--gateways", type=int, default=1, help="gateways to start (default: 1)")
    parser.add_argument("--memory-nodes", type=int, default=2, help="memory nodes; keep it for one --data (default: 2)")
    parser.add_argument("--free-ports", action="store_true", help="any free ports instead of the usual ones, for a second suite")
    parser.add_argument("--otlp-endpoint", default="", help="host:port that takes traces, for example Jaeger's 127.0.0.1:4317")
    parser.add_argument("--keep-spans", type=int, default=20_000, help="spans to keep here where no --otlp-endpoint is given; 0: none")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = SuiteOptions(
        data_dir=given.data,
        gateways=given.gateways,
        memory_nodes=given.memory_nodes,
        usual_ports=not given.free_ports,
        otlp_endpoint=given.otlp_endpoint,
        settings=for_trying_out(),
    )
    if given.otlp_endpoint or given.keep_spans <= 0:
        return run(Console(), options)
    return keep_traces(Console(), options, given.keep_spans, 0 if given.free_ports else _TRACES_PORT)


def keep_traces(console: Console, options: SuiteOptions, spans: int, port: int) -> int:
    """Run with a trace store of our own, so that `ndml trace` works where there is no Jaeger."""
    with TraceSink(spans) as sink:
        try:
            door = TraceDoor(sink, port).start()
        except OSError as error:
            console.print(f"cannot show traces on 127.0.0.1:{port} ({error.strerror}): is a suite up already? --free-ports takes others")
            return 1
        try:
            return run(console, replace(options, otlp_endpoint=sink.endpoint), door.url)
        finally:
            door.stop()


if __name__ == "__main__":
    sys.exit(main())
