"""Network namespaces on a bridge of their own: real processes whose links are cut and healed, one way too. Linux, root, iproute2.

The bridge stands in a namespace of its own: the machine's rules about what it forwards (a Docker daemon drops all else) are not about it.
Each place gets an address that the others reach. A cut is silent, as a lost cable is: packets go to a hardware address that nobody has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType

_BRIDGE = "ndmlbr"
_SWITCH = "ndml-switch"
_UPLINK = "ndmlup"
_NOBODY = "02:00:00:00:00:01"


def unavailable() -> str:
    """Why namespaces cannot be used here; empty: they can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root"
    probe = f"ndml-probe-{os.getpid()}"  # workers of one run ask at the same time
    tried = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no network namespaces here: {tried.stderr.strip()}"
    _ip("netns", "del", probe)
    return ""


class Fabric:
    """Use it in a `with` block. `names`: at most 200 places; this process itself is reached at `gateway`."""

    def __init__(self, names: Sequence[str], subnet: str = "10.77.0") -> None:
        self._subnet = subnet
        self.addresses = {name: f"{subnet}.{i + 2}" for i, name in enumerate(names)}
        self._spaces = {name: f"ndml-{i}" for i, name in enumerate(names)}

    @property
    def gateway(self) -> str:
        """Address of the process that made the fabric."""
        return f"{self._subnet}.1"

    def command(self, name: str) -> tuple[str, ...]:
        """What stands before a command that is to run at the place."""
        return ("ip", "netns", "exec", self._spaces[name])

    def cut(self, source: str, target: str) -> None:
        """What `source` sends to `target` is lost; the other way still works."""
        self._neighbour(source, target, _NOBODY)

    def part(self, side: Sequence[str], other: Sequence[str]) -> None:
        """Nothing passes between the two sides."""
        for one in side:
            for two in other:
                self.cut(one, two)
                self.cut(two, one)

    def heal(self) -> None:
        """Every cut ends."""
        for name, space in self._spaces.items():
            _ip("-n", space, "neigh", "flush", "dev", "eth0", "nud", "permanent", name=name)

    def _neighbour(self, source: str, target: str, hardware: str) -> None:
        where = self.addresses[target]
        _ip("-n", self._spaces[source], "neigh", "replace", where, "lladdr", hardware, "dev", "eth0", "nud", "permanent", name=source)

    def __enter__(self) -> Fabric:
        self._clear()
        _ip("netns", "add", _SWITCH)
        _ip("-n", _SWITCH, "link", "add", _BRIDGE, "type", "bridge")
        _ip("-n", _SWITCH, "link", "set", _BRIDGE, "up")
        _ip("link", "add", _UPLINK, "type", "veth", "peer", "name", "uplink", "netns", _SWITCH)
        _ip("-n", _SWITCH, "link", "set", "uplink", "master", _BRIDGE, "up")
        _ip("addr", "add", f"{self.gateway}/24", "dev", _UPLINK)
        _ip("link", "set", _UPLINK, "up")
        for i, (name, space) in enumerate(self._spaces.items()):
            _ip("netns", "add", space)
            _ip("-n", _SWITCH, "link", "add", f"ndmlv{i}", "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", _SWITCH, "link", "set", f"ndmlv{i}", "master", _BRIDGE, "up")
            _ip("-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", space, "link", "set", device, "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._clear()

    def _clear(self) -> None:
        # What a killed run left behind goes first; what is not there need not go.
        subprocess.run(["ip", "link", "del", _UPLINK], capture_output=True, check=False)
        for space in (*self._spaces.values(), _SWITCH):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def _ip(*arguments: str, name: str = "") -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)} failed at {name or 'the host'}: {done.stderr.strip()}")
