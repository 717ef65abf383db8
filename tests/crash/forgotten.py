"""A user is forgotten while a copy is away and the suite is written to; then that copy comes back, and an older backup is restored.

The backup is restored into suites of other sizes as well, where it is the user's whole memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ndml.client import NdmlClient, NewMemory
from ndml.testing.layout import SuiteOptions
from ndml.testing.suite import Suite
from tests.crash.clients import vector_of
from tests.crash.copies import standing
from tests.crash.load import Load, Row, first, options, under_load

GONE, KEPT = "forgotten-user", "kept-user"
_LONGEST_S = 120.0
_GRACE_S = 5.0
"""Of the consensus nodes' logs, in which a copy that is there takes what is erased; 60 s by default."""


def forgotten(memories: int = 200) -> Row:
    """R=3 under load; the file goes into suites of one and of two nodes afterwards."""
    wrong: list[str] = []
    asked = options(copies=3)
    asked = replace(asked, settings={**asked.settings, "consensus": {"DELTAS__GRACE_S": str(_GRACE_S)}})
    with under_load(asked) as load, NdmlClient(load.suite.grpc_address, timeout_s=_LONGEST_S) as client:
        for user in (GONE, KEPT):
            _write(client, user, memories)
        parts = list(client.backup(timeout_s=_LONGEST_S))
        assert _files(load), "what is looked for afterwards can be found"
        load.suite.kill("memory-node-3")
        _write(client, GONE, memories, from_=memories)  # what the copy that is away lacks lies in logs of updates
        erased = _forget(client)
        _write(client, KEPT, 1)
        cleaned_s = _cleaned(load, but=load.directory("memory-node-3"))
        load.start_again("memory-node-3")
        load.end()
        load.converged(3)
        wrong += [] if _cleaned(load) is not None else [f"the words of {GONE} are in {', '.join(_files(load))}"]
        wrong += _stands(load, "the copy that was away came back", memories + 1)
        again = client.restore(parts, timeout_s=_LONGEST_S)
        load.converged(3)
        wrong += _stands(load, "the older backup was restored", memories + 1)
        if count := sum(1 for _ in client.list(user=GONE, consistency="all")):
            wrong.append(f"{count} of {GONE} are listed")
        wrong += load.violations()
        failed = load.failures
    sizes = (1, 2)
    for nodes in sizes:
        wrong += _restored(parts, nodes, memories)
    found = (
        f"{erased} of {2 * memories} erased with a copy away, their words in no file of the others {_seconds(cleaned_s)},"
        f" {again.records:,} records restored over it, {len(failed)} calls failed;"
        f" restored whole into {' and '.join(map(str, sizes))} nodes; {len(wrong)} wrong"
    )
    done = "ForgetScope and Backup under load, R=3 W=2; a copy comes back, the older backup is restored"
    held = erased == 2 * memories and cleaned_s is not None and not wrong and not failed
    return Row(
        "forget means forgotten; a backup fits a suite of any size", done, "never returns, 0 lost", found + first(failed or wrong), held
    )


def _files(load: Load, but: Path | None = None) -> list[str]:
    """Those with a sentence of the user who was forgotten, stores and logs of updates alike."""
    words = f"{GONE} said sentence".encode()
    every = (path for path in load.suite.layout.data_dir.rglob("*") if path.is_file() and but not in path.parents)
    return [str(path.relative_to(load.suite.layout.data_dir)) for path in every if words in path.read_bytes()]


def _cleaned(load: Load, but: Path | None = None) -> float | None:
    """Seconds until there are none; None: there still are after a minute."""
    began = time.monotonic()
    while _files(load, but):
        if time.monotonic() - began > _LONGEST_S / 2:
            return None
        time.sleep(0.5)
    return time.monotonic() - began


def _seconds(after: float | None) -> str:
    return "not even after a minute" if after is None else f"after {after:.0f} s"


def _texts(user: str, memories: int, from_: int = 0) -> list[str]:
    return [f"{user} said sentence {i}" for i in range(from_, from_ + memories)]


def _write(client: NdmlClient, user: str, memories: int, from_: int = 0) -> None:
    texts = _texts(user, memories, from_) if memories > 1 else [f"{user} goes on"]
    client.add_many((NewMemory(text, embedding=vector_of(text)) for text in texts), user=user)


def _forget(client: NdmlClient) -> int:
    with client.forget(user=GONE, timeout_s=_LONGEST_S) as steps:
        for _ in steps:
            pass
    assert steps.done, "the stream ended before it said so"
    return steps.erased


def _stands(load: Load, when: str, kept: int) -> list[str]:
    """What is wrong on the nodes' disks."""
    gone, there = standing(load.nodes, GONE), standing(load.nodes, KEPT)
    return [
        *(f"{when}: {count} of {GONE} stand at {node}" for node, count in gone.items() if count),
        *(f"{when}: {count} of {kept} of {KEPT} stand at {node}" for node, count in there.items() if count != kept),
    ]


def _restored(parts: Sequence[bytes], nodes: int, memories: int) -> Iterable[str]:
    """What is wrong in a new suite of so many nodes."""
    with tempfile.TemporaryDirectory() as made:
        small = SuiteOptions(Path(made), memory_nodes=nodes, replication_factor=1, llm=False)
        with Suite(small) as suite, NdmlClient(suite.grpc_address, timeout_s=_LONGEST_S) as client:
            client.restore(parts, timeout_s=_LONGEST_S)
            for user in (GONE, KEPT):
                texts = sorted(memory.text for memory in client.list(user=user))
                if texts != sorted(_texts(user, memories)):
                    yield f"restored into {nodes} nodes: {len(texts)} of {memories} of {user}"
