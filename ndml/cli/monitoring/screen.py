"""The monitor as a terminal application: keys alone, sixteen colours, any size from 80x24."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from ndml.cli.monitoring.model import Frame
from ndml.cli.monitoring.panels import PANELS, Panel, headline, troubles

_LEFT = ("services", "calls", "nodes")
_HELP = """\
tab, shift+tab   next panel, the one before
up, down         scroll the panel
z                the panel alone, and back (or escape)
p                pause: the figures stand still; again: go on
r                read now
q                quit
?                this help

per s, p50, p99: over the last seconds, as the first line says.
p99 with > lies beyond the histogram's largest bucket.
cpu: share of one core. calls: RPCs under way in the process.
to take: updates that wait for the node at the consensus nodes.
behind: owners whose copies are known to differ.
- : not known (no metrics, or only one reading so far).
"""


class PanelView(VerticalScroll):
    """One panel; tab reaches it, the arrows scroll it."""

    ALLOW_MAXIMIZE = True

    def __init__(self, panel: Panel) -> None:
        super().__init__(id=panel.name, can_focus=True)
        self.border_title = panel.title
        self._panel = panel
        self._body = Static("reading ...")

    def compose(self) -> ComposeResult:
        yield self._body

    def show(self, frame: Frame) -> None:
        self._body.update(self._panel.render(frame))


class Help(ModalScreen[None]):
    """What the keys do and what the columns mean."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        yield Static(_HELP, id="help")


class MonitorApp(App[None]):
    """Shows a frame after another: `read` makes one, on a thread, each `interval_s` seconds and never two at once.

    What `read` raises ends the application; it is in `failure` then.
    """

    ENABLE_COMMAND_PALETTE = False
    ALLOW_IN_MAXIMIZED_VIEW = "Footer, #top, #troubles"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (140, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "quit"),
        Binding("p", "pause", "pause"),
        Binding("r", "read", "read now"),
        Binding("z", "zoom", "panel alone"),
        Binding("question_mark", "help", "help"),
    ]
    CSS = """
    #top { dock: top; height: 1; text-style: bold; }
    #troubles { height: auto; max-height: 4; display: none; }
    #body { height: 1fr; overflow-y: auto; layout: vertical; }
    .column { height: auto; }
    Screen.-wide #body { layout: horizontal; }
    Screen.-wide .column { width: 1fr; }
    PanelView { height: auto; max-height: 22; border: solid ansi_bright_black; padding: 0 1; }
    PanelView:focus { border: heavy ansi_cyan; }
    PanelView.-maximized { max-height: 100%; height: 100%; }
    Help { align: center middle; }
    #help { width: 72; height: auto; border: heavy ansi_cyan; padding: 0 1; }
    """

    class Fresh(Message):
        """A round has ended."""

        def __init__(self, outcome: Frame | Exception) -> None:
            super().__init__()
            self.outcome = outcome

    def __init__(self, read: Callable[[], Frame], interval_s: float, first: Frame | None = None) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.failure: Exception | None = None
        self.frame = first
        self.paused = False
        self.reads = 0
        self._read = read
        self._interval_s = interval_s
        self._reading = False

    def compose(self) -> ComposeResult:
        yield Static(id="top")
        yield Static(id="troubles")
        with Container(id="body"):
            for left in (True, False):
                with Vertical(classes="column"):
                    yield from (PanelView(panel) for panel in PANELS if (panel.name in _LEFT) is left)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#services").focus()
        self._show()
        self.set_interval(self._interval_s, self._tick)
        self._start()

    def action_pause(self) -> None:
        self.paused = not self.paused
        self._show()
        self._tick()

    def action_read(self) -> None:
        self._start()

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_zoom(self) -> None:
        if self.screen.maximized is not None:
            self.screen.minimize()
        elif isinstance(self.focused, PanelView):
            self.screen.maximize(self.focused)

    def on_monitor_app_fresh(self, message: Fresh) -> None:
        self._reading = False
        if isinstance(message.outcome, Exception):
            self.failure = message.outcome
            self.exit()
            return
        self.reads += 1
        self.frame = message.outcome
        self._show()

    def _tick(self) -> None:
        if not self.paused:
            self._start()

    def _start(self) -> None:
        """Begin a round unless one is under way. A daemon: quitting does not wait for a process that hangs."""
        if not self._reading:
            self._reading = True
            threading.Thread(target=self._round, name="monitor-read", daemon=True).start()

    def _round(self) -> None:
        try:
            outcome: Frame | Exception = self._read()
        except Exception as error:
            outcome = error
        # Gives False where the application has ended meanwhile.
        self.post_message(self.Fresh(outcome))

    def _show(self) -> None:
        # A round may end while the application closes: its widgets go before its messages do.
        main = self.screen_stack[0] if self.screen_stack else None
        if main is None or not all(main.query(name) for name in ("#top", "#troubles")):
            return
        top, trouble = main.query_one("#top", Static), main.query_one("#troubles", Static)
        if self.frame is None:
            top.update("reading ...")
            return
        line = headline(self.frame)
        # In a group, Textual leaves the terminal's own colours as they are; of a bare text it makes shades that few terminals have.
        top.update(Group(Text("PAUSED  ", style="reverse") + line if self.paused else line))
        trouble.update(Group(troubles(self.frame)))
        trouble.display = bool(self.frame.troubles)
        for view in main.query(PanelView):
            view.show(self.frame)
