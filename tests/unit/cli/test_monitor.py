"""`ndml monitor` against a real gateway's door over a dict and real /metrics on loopback: the page, the application, its keys."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from textual.pilot import Pilot
from textual.widgets import Static

from ndml.cli.monitoring import sources
from ndml.cli.monitoring.model import Frame
from ndml.cli.monitoring.panels import PANELS
from ndml.cli.monitoring.screen import Help, MonitorApp, PanelView
from ndml.cli.monitoring.sources import Sources, Target, fetch, named
from ndml.cli.monitoring.watch import Watch
from ndml.client import NdmlClient
from ndml.errors import TenantDenied
from ndml.runtime import semconv

Command = Callable[..., Any]
SEARCH = "/ndml.v1.MemoryService/SearchMemories"


class Exporter:
    """/metrics of a process that searches; `stop` ends it for good."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._calls = Histogram(semconv.METRIC_RPC_DURATION, "s", ["method"], buckets=(0.01, 0.1, 1.0), registry=registry)
        self._gate = Counter(semconv.METRIC_BTSP_UPDATES, "n", ["kind"], registry=registry)
        self._server, self._thread = start_http_server(0, addr="127.0.0.1", registry=registry)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def work(self) -> None:
        self._calls.labels(SEARCH).observe(0.05)
        self._gate.labels("novel").inc()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    started = Exporter()
    yield started
    if started._thread.is_alive():
        started.stop()


@pytest.fixture
def watch(server: Any, exporter: Exporter) -> Iterator[Watch]:
    with NdmlClient(server.address) as client:
        exporter.work()
        yield Watch(Sources(client, server.address, targets=named([f"dict={exporter.address}"])).read, 10.0)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def until(pilot: Pilot[None], reached: Callable[[], object]) -> None:
    """Goes on when it is so; the suite's own limit of time ends what never is."""
    while not reached():
        await pilot.pause(0.02)


def text(app: MonitorApp, name: str) -> str:
    """What a panel shows, as the terminal has it."""
    view = app.screen_stack[0].query_one(f"#{name}")
    lines = view.query_one(Static).render_lines if isinstance(view, PanelView) else view.render_lines
    content = view.query_one(Static) if isinstance(view, PanelView) else view
    return "\n".join("".join(part.text for part in strip) for strip in lines(content.size.region))


# The page


def test_a_page_for_people_and_a_document_for_programs(ndml: Command, exporter: Exporter) -> None:
    exporter.work()
    page = ndml("monitor", "--once", "--interval", "0.5", "--metrics", f"dict={exporter.address}")
    assert page.code == 0 and "\x1b" not in page.out
    assert page.out.startswith("healthy (placement epoch 7, 1 copy)") and "rates over" in page.out
    assert [panel.title in page.out for panel in PANELS] == [True] * len(PANELS)
    assert "gateway dict" in page.out and "SearchMemories" in page.out and "novel" in page.out
    shown = ndml("monitor", "--interval", "0.5", "--metrics", f"dict={exporter.address}", "-o", "json").json
    assert shown["healthy"] is True and shown["window_s"] >= 0.5 and shown["processes"][0]["instance"] == "dict"
    search = next(row for row in shown["calls"] if row["name"] == "SearchMemories")
    assert search["rate"] == 0.0 and search["p99_s"] is None
    assert next(row for row in shown["gate"] if row["name"] == "novel")["total"] == 1.0


def test_strengths_are_those_of_the_user(ndml: Command, server: Any) -> None:
    for number in range(3):
        ndml("add", f"memory number {number}")
    found = ndml("monitor", "--interval", "0.5", "-o", "json").json["strengths"]
    assert (found["user"], found["traces"], found["error"]) == ("ann", 3, "") and sum(found["counts"]) == found["read"]
    asked = server.world.calls("SearchMemories")
    assert len(asked) == 1 and asked[0].include_strength and asked[0].k == sources.MOST_STRENGTHS


def test_one_process_away_is_a_line_and_the_rest_goes_on(ndml: Command, exporter: Exporter) -> None:
    away = f"127.0.0.1:{free_port()}"
    found = ndml("monitor", "--once", "--interval", "0.5", "--metrics", f"dict={exporter.address}", "--metrics", f"memory-node-9={away}")
    assert found.code == 0 and f"memory-node-9: no metrics at {away}, nobody listens" in found.out and "novel" in found.out


def test_metrics_alone_are_shown_without_the_gateway(ndml: Command, exporter: Exporter) -> None:
    found = ndml("monitor", "--once", "--interval", "0.5", "--metrics", exporter.address, "-a", f"127.0.0.1:{free_port()}")
    assert found.code == 0 and "NO STATUS, the gateway does not answer" in found.out and exporter.address in found.out


def test_nothing_reachable_is_one_line(ndml: Command) -> None:
    gateway, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    found = ndml("monitor", "--once", "-a", gateway, "--metrics", metrics, "--timeout", "1")
    assert found.code == 4 and found.out == "" and found.err.count("\n") == 1
    assert f"nothing answers at {gateway}, nor any of 1 metrics addresses" in found.err and "fix:" in found.err


def test_bad_input_is_one_line(ndml: Command) -> None:
    wrong = ndml("monitor", "--once", "--metrics", "memory-node-1")
    assert wrong.code == 2 and "[instance=]host:port" in wrong.err and wrong.err.count("\n") == 1
    pipe = ndml("monitor")
    assert pipe.code == 2 and "this is no terminal: give --once" in pipe.err and pipe.err.count("\n") == 1
    assert ndml("monitor", "--once", "--interval", "0.1").code == 2


def test_a_gateway_that_refuses_says_why_itself(server: Any, ndml: Command) -> None:
    server.world.failures.append(("GetClusterStatus", TenantDenied("operators only")))
    found = ndml("monitor", "--once")
    assert found.code == 1 and "operators only" in found.err


# What may answer at a metrics address


class Odd(BaseHTTPRequestHandler):
    """What stands at a wrong port."""

    body, status = b"", 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Not to the test's terminal."""


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"", "HTTP 404"),
        (200, b"<html><p>hello {you</html>", "what answers there is not Prometheus text"),
        (200, b"# nothing\n" * 1_000_000, "too long an answer"),
    ],
)
def test_what_is_no_metrics_is_said_in_a_few_words(status: int, body: bytes, said: str) -> None:
    handler = type("Handler", (Odd,), {"status": status, "body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            found = fetch(Target("odd", "127.0.0.1", http.server_port))
        finally:
            http.shutdown()
    assert isinstance(found, str) and found.startswith(said)


def test_a_port_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FETCH_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert fetch(Target("silent", "127.0.0.1", silent.getsockname()[1])) == "no answer in time"


# The application


async def test_rows_rates_pause_and_quit(watch: Watch, exporter: Exporter) -> None:
    app = MonitorApp(watch.frame, 0.05)
    async with app.run_test(size=(120, 50)) as pilot:
        await until(pilot, lambda: app.reads >= 2)
        exporter.work()

        def rate() -> float:
            assert app.frame is not None
            return next(row.rate or 0.0 for row in app.frame.calls if row.name == "SearchMemories")

        await until(pilot, lambda: rate() > 0)
        await until(pilot, lambda: "50.0 ms" in text(app, "calls") or "55.0 ms" in text(app, "calls"))
        assert "gateway dict" in text(app, "services") and "n0" in text(app, "nodes") and "novel" in text(app, "gate")
        assert "healthy (placement epoch 7" in text(app, "top")
        await pilot.press("p")
        assert app.paused
        await until(pilot, lambda: not app._reading)
        before = app.reads
        assert text(app, "top").startswith("PAUSED")
        await pilot.pause(0.3)
        assert app.reads == before
        await pilot.press("r")
        await until(pilot, lambda: app.reads == before + 1)
        await pilot.press("p")
        await until(pilot, lambda: app.reads > before + 1)
        assert "PAUSED" not in text(app, "top")
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert app.failure is None and app.return_code == 0


async def test_keys_alone_reach_every_panel_also_on_a_small_screen(watch: Watch) -> None:
    app = MonitorApp(watch.frame, 0.05)
    async with app.run_test(size=(160, 50)) as pilot:
        await until(pilot, lambda: app.reads >= 1)
        assert app.screen.has_class("-wide")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.screen.has_class("-narrow") and not app.screen.has_class("-wide"))
        reached = []
        for _ in PANELS:
            assert app.focused is not None
            reached.append(app.focused.id)
            view = app.focused
            await until(pilot, lambda view=view: view.region.y >= 1 and view.region.y < 24)
            assert view.region.x >= 0 and view.region.right <= 80
            await pilot.press("tab")
        assert sorted(map(str, reached)) == sorted(panel.name for panel in PANELS)
        assert app.focused is not None and app.focused.id == reached[0], "and round to the first"
        await pilot.press("z")
        await until(pilot, lambda: app.screen.maximized is app.focused)
        await pilot.press("z")
        await until(pilot, lambda: app.screen.maximized is None)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        # Figures go on below it.
        seen = app.reads
        await until(pilot, lambda: app.reads > seen)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Help))


async def test_a_process_that_dies_says_so_and_the_rest_goes_on(watch: Watch, exporter: Exporter, server: Any) -> None:
    app = MonitorApp(watch.frame, 0.05)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.reads >= 2)
        await asyncio.to_thread(exporter.stop)
        await until(pilot, lambda: "nobody listens" in text(app, "troubles"))
        assert "healthy" in text(app, "top") and "gateway dict" in text(app, "services")
        await asyncio.to_thread(server.stop)
        await until(pilot, lambda: "NO STATUS" in text(app, "top"))
        assert "no answer" in text(app, "services") and "unknown" in text(app, "nodes")
        await asyncio.to_thread(server.start)
        await until(pilot, lambda: "healthy" in text(app, "top"))


async def test_what_nobody_expected_ends_the_application_and_is_not_lost() -> None:
    def broken() -> Frame:
        raise ZeroDivisionError("a bug")

    app = MonitorApp(broken, 0.05)
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.failure is not None)
    assert isinstance(app.failure, ZeroDivisionError)


async def test_a_reading_that_hangs_is_not_begun_twice_and_quitting_does_not_wait_for_it() -> None:
    asked, let_go = [0], threading.Event()

    def hanging() -> Frame:
        asked[0] += 1
        let_go.wait()
        raise ZeroDivisionError("never shown")

    app = MonitorApp(hanging, 0.02)
    async with app.run_test() as pilot:
        await until(pilot, lambda: asked[0] == 1)
        await pilot.pause(0.2)
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert asked[0] == 1 and app.failure is None
    let_go.set()


def test_the_application_is_loaded_when_the_command_runs_and_not_before() -> None:
    script = "import sys, ndml.cli.app; print(*{'textual', 'prometheus_client'} & {n.partition('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
