"""Who may pass: everybody, or whoever the roster of authors trusts and has signed what it says.

Records are checked against their signature by the memory nodes that join them; here the author, the signature, the clock and the place in
the author's chain are.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from ndml.crdt.audit import Auditor, Kind, Reason
from ndml.crdt.chain import MemoryChainStore, Row
from ndml.crdt.envelope import Envelope
from ndml.crdt.evidence import Proof
from ndml.crdt.roster import Roster
from ndml.errors import NdmlError, RequestMalformed
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.runtime import metrics
from ndml.runtime.files import write_durably
from ndml.runtime.log import get_logger

log = get_logger(__name__)


class OpenGuard:
    """Guard of a cluster whose nodes trust each other."""

    signs = False
    quarantined: Sequence[str] = ()
    proofs: Sequence[bytes] = ()

    async def learn(self, proofs: Sequence[bytes]) -> None:
        """Without a roster nobody's signature can be checked."""

    async def refusals(self, updates: Sequence[rpb.OwnerUpdate]) -> dict[int, str]:
        return {}


class SigningGuard:
    """Guard by a roster of authors.

    owners  of how many the newest signatures are remembered, to find who contradicts himself
    path    file of proofs, so that a restart frees nobody; None: they are forgotten with the process
    """

    signs = True

    def __init__(
        self, roster: Roster, owners: int, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, path: Path | None = None
    ) -> None:
        self._chains = _RecentChains(owners, path)
        self._auditor = Auditor(roster, now_ms, self._chains)
        self._turn = asyncio.Lock()
        metrics.QUARANTINED_AUTHORS.set(len(self._auditor.quarantined))

    @property
    def quarantined(self) -> Sequence[str]:
        return sorted(self._auditor.quarantined)

    async def refusals(self, updates: Sequence[rpb.OwnerUpdate]) -> dict[int, str]:
        """Off the event loop: a signature costs as much as a hundred messages."""
        async with self._turn:
            before = len(self._auditor.quarantined)
            found = await asyncio.to_thread(self._judge_all, updates)
            self._note(before)
        return found

    @property
    def proofs(self) -> Sequence[bytes]:
        """Against the quarantined, by name."""
        found = self._auditor.quarantined
        return [found[name].to_bytes() for name in sorted(found)]

    async def learn(self, proofs: Sequence[bytes]) -> None:
        """Raises RequestMalformed for what is no proof; one that does not hold says nothing."""
        parsed = [Proof.from_bytes(proof) for proof in proofs]
        async with self._turn:
            before = len(self._auditor.quarantined)
            await asyncio.to_thread(lambda: [self._auditor.learn(proof) for proof in parsed])
            self._note(before)

    def _note(self, before: int) -> None:
        if len(self._auditor.quarantined) != before:
            log.error("author_quarantined", authors=list(self.quarantined))
            metrics.QUARANTINED_AUTHORS.set(len(self._auditor.quarantined))

    def _judge_all(self, updates: Sequence[rpb.OwnerUpdate]) -> dict[int, str]:
        verdicts = {i: self._judge(update) for i, update in enumerate(updates)}
        # What waited for its past has been passed on already; the memory nodes wait for themselves.
        self._auditor.drain()
        return {i: why for i, why in verdicts.items() if why}

    def _judge(self, update: rpb.OwnerUpdate) -> str:
        """Why the update must not pass; empty where it may."""
        try:
            envelope = Envelope.parse(update.envelope, update.signature)
        except NdmlError as error:
            return error.message
        said = (update.tenant, update.user, update.node_id, update.replica, update.previous, update.counter)
        signed = (envelope.tenant, envelope.user, envelope.node_id, envelope.replica, envelope.previous, envelope.counter)
        if said != signed:
            return "what is signed is another update"
        verdict = self._auditor.admit(envelope)
        if verdict.kind is Kind.PARK:
            # The order of arrival here is not that of the authors' knowledge.
            self._auditor.adopt([envelope])
        if verdict.kind is not Kind.REJECT or verdict.reason is Reason.FORGOTTEN:
            return ""
        return verdict.reason.value if verdict.reason is not None else "refused"


def _read(path: Path | None) -> dict[str, bytes]:
    """Raises RequestMalformed for a file that is damaged, OSError."""
    if path is None or not path.exists():
        return {}
    try:
        return {str(name): bytes.fromhex(proof) for name, proof in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise RequestMalformed(f"{path} is damaged ({error}): move it away, the other nodes have the proofs", field="proofs") from error


class _RecentChains:
    """ChainStore of the owners written to last; what is forgotten here the memory nodes still know."""

    def __init__(self, owners: int, path: Path | None = None, keep: int = 16) -> None:
        self._path = path
        self._limit = owners
        self._keep = keep
        self._owners: OrderedDict[tuple[str, str], MemoryChainStore] = OrderedDict()
        self._proofs: dict[str, bytes] = _read(path)

    def has(self, tenant: str, user: str, replica: int, counter: int, hashed: bytes) -> bool:
        return self._find(tenant, user).has(tenant, user, replica, counter, hashed)

    def above(self, tenant: str, user: str, replica: int, counter: int) -> Row | None:
        return self._find(tenant, user).above(tenant, user, replica, counter)

    def floor(self, tenant: str, user: str, replica: int) -> int:
        return self._find(tenant, user).floor(tenant, user, replica)

    def heads(self, tenant: str, user: str) -> Sequence[Row]:
        return self._find(tenant, user).heads(tenant, user)

    def put(self, row: Row) -> None:
        self._make(row.tenant, row.user).put(row)

    def raise_floor(self, tenant: str, user: str, replica: int, counter: int) -> None:
        self._make(tenant, user).raise_floor(tenant, user, replica, counter)

    def proofs(self) -> Sequence[bytes]:
        return list(self._proofs.values())

    def put_proof(self, node_id: str, proof: bytes) -> None:
        self._proofs[node_id] = proof
        if self._path is None:
            return
        try:
            write_durably(self._path, json.dumps({name: one.hex() for name, one in self._proofs.items()}).encode())
        except OSError as error:
            # It holds all the same, and the others have it too.
            log.error("proof_not_written", path=str(self._path), error=str(error))

    def _find(self, tenant: str, user: str) -> MemoryChainStore:
        return self._owners.get((tenant, user)) or MemoryChainStore(self._keep)

    def _make(self, tenant: str, user: str) -> MemoryChainStore:
        owner = (tenant, user)
        chains = self._owners.setdefault(owner, MemoryChainStore(self._keep))
        self._owners.move_to_end(owner)
        if len(self._owners) > self._limit:
            self._owners.popitem(last=False)
        return chains
