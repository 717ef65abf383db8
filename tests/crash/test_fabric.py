"""The fabric cuts what it says, in the direction that it says, and heals it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.crash import fabric

_PORT = 7999
_LISTEN = f"""
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", {_PORT})); s.settimeout(0.7)
print("listening", flush=True)
try: s.recv(9); print("heard")
except TimeoutError: print("silence")
"""
_SEND = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], {port}))"


def reaches(net: fabric.Fabric, source: str, target: str) -> bool:
    """One datagram, one way."""
    listening = subprocess.Popen([*net.command(target), sys.executable, "-c", _LISTEN], stdout=subprocess.PIPE, text=True)
    assert listening.stdout is not None
    assert listening.stdout.readline() == "listening\n"
    send = _SEND.format(port=_PORT)
    subprocess.run([*net.command(source), sys.executable, "-c", send, net.addresses[target]], check=True)
    return listening.communicate()[0] == "heard\n"


@pytest.mark.xdist_group("crash")  # with the other tests that use the names of its spaces
@pytest.mark.skipif(bool(why := fabric.unavailable()), reason=why)
def test_cuts_are_one_way_and_heal() -> None:
    with fabric.Fabric(["a", "b", "c"]) as net:
        assert reaches(net, "a", "b") and reaches(net, "b", "a")
        net.cut("a", "b")
        assert not reaches(net, "a", "b") and reaches(net, "b", "a")
        net.part(["c"], ["a", "b"])
        assert not reaches(net, "c", "b") and not reaches(net, "a", "c")
        net.heal()
        assert all(reaches(net, one, two) for one in "abc" for two in "abc" if one != two)
