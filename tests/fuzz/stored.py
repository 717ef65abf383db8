"""Readers of what other nodes, files and backups hold."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from ndml.btsp import calibration, record
from ndml.btsp.capture import Protein
from ndml.cli import archive, records
from ndml.crdt.causal import CausalContext, Dot
from ndml.crdt.envelope import Envelope, replica_number
from ndml.crdt.evidence import Proof, Vouch, vouch
from ndml.crdt.iblt import ITEM_BYTES, SYMBOL_BYTES, Encoder
from ndml.crdt.iblt import Decoder as DifferenceDecoder
from ndml.crdt.roster import Roster
from ndml.errors import NdmlError
from ndml.internal.v1 import memory_node_pb2 as node_pb2
from ndml.internal.v1 import replication_pb2 as rpb
from ndml.placement.roster import NodeRecord, check_record
from ndml.runtime.interceptors import parse
from ndml.v1 import types_pb2
from services.consensus.deltas.entries import Via, delta_of, positions_of
from services.memory_node import joins
from services.memory_node.records import Owner
from services.memory_node.replication import signing
from services.memory_node.replication.ledger import item
from services.memory_node.versions import parse_sibling_id
from tests.fuzz.table import Decoder
from tests.unit.crdt.signed_world import envelope_by, key_of, roster_of

_OWNER = Owner("acme", "anna")
_DIMENSION = 8
_ITEMS = b"".join(bytes([number]) * ITEM_BYTES for number in range(1, 9))


def _context() -> bytes:
    return CausalContext.from_dots([Dot(1, 1), Dot(1, 2), Dot(7, 3), Dot(9, 1)]).to_bytes()


def _state() -> bytes:
    rows = np.zeros(1, record.RECORD)
    rows["stability"], rows["difficulty"] = 1.0, 5.0
    return record.encoded(rows)[0]


def _states(data: bytes) -> None:
    record.decoded([data])
    record.decoded([data[at : at + record.RECORD_BYTES] for at in range(0, len(data), record.RECORD_BYTES)])


def _profile() -> bytes:
    known = json.loads(calibration.shipped("all-MiniLM-L6-v2").to_json())
    return json.dumps(known | {"mean": b64encode(bytes(8)).decode(), "dimension": 2}).encode()


def _protein() -> bytes:
    protein = Protein()
    protein.add(10.0, 1.0)
    protein.add(1e6, 1.0)
    return protein.pack()


def _proof() -> bytes:
    return Proof(envelope_by("liar", text=b"one"), envelope_by("liar", text=b"other")).to_bytes()


def _node() -> bytes:
    return json.dumps(NodeRecord("memory-node-1", "127.0.0.1:7710", incarnation=1).to_json()).encode()


def _read_node(data: bytes) -> None:
    """As the files of consensus and memory nodes are read."""
    check_record(NodeRecord.from_json(json.loads(data)))


def _difference(data: bytes) -> None:
    """Symbols in batches whose length the first byte says, so that its state is met too."""
    decoder = DifferenceDecoder(_ITEMS, b"key", limit=200)
    step = SYMBOL_BYTES * (1 + data[0] % 8) if data else SYMBOL_BYTES
    for start in range(1, len(data), step):
        decoder.add(data[start : start + step])
    decoder.missing_here()
    decoder.missing_there()


def _reframed(data: bytes) -> bytes:
    """What stands between zero bytes as the frames of a backup, each with its right hash: damage that no hash shows."""
    header, *middle, trailer = (data if b"\0" in data else data + b"\0").split(b"\0", 7)
    frames, chain = b"", sha256()
    for kind, content in ((b"H", header), *((b"P", part) for part in middle), (b"T", trailer)):
        content = content.replace(b"CHAIN", chain.hexdigest().encode())
        digest = sha256(kind + content).digest()
        chain.update(digest)
        frames += kind + len(content).to_bytes(4, "little") + digest + content
    return frames


def _backup() -> bytes:
    sink = io.BytesIO()
    writer = archive.Writer(sink, "2026-05-01T00:00:00+00:00")
    writer.part(b"a part")
    writer.close(1)
    return sink.getvalue()


def _jsonl(data: bytes) -> None:
    """The first byte says which of the three forms the lines have."""
    lines = data[1:].decode("utf-8", "replace").splitlines()
    read: Any = (records.new_memories, records.memories, records.feedback)[data[0] % 3 if data else 0]
    for each in read(lines):
        repr(each)


def _update() -> rpb.OwnerUpdate:
    store = replica_number("node-a", 7)
    trace = types_pb2.MemoryTrace(trace_id="01" * 16, text="hello", kind=1, version=1)
    trace.scope.tenant, trace.scope.user = _OWNER
    version = rpb.TraceVersion(dot=rpb.Dot(replica=store, counter=1), content=trace.SerializeToString(), content_hash=bytes(16))
    version.vector = np.eye(1, _DIMENSION, dtype="<f4").tobytes()
    states = [rpb.StateContribution(replica=store, counter=1, state=_state())]
    made = rpb.TraceRecord(trace_id=bytes([1]) * 16, length=1, versions=[version], states=states)
    made.context = CausalContext.from_dots([Dot(store, 1)]).to_bytes()
    made.requests.append(b"request")
    signed = envelope_by("node-a", text=item(made))
    return rpb.OwnerUpdate(
        tenant=_OWNER.tenant,
        user=_OWNER.user,
        replica=signed.replica,
        previous=signed.previous,
        counter=signed.counter,
        records=[made],
        envelope=signed.canonical,
        signature=signed.signature,
        node_id=signed.node_id,
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )


def _read_update(data: bytes) -> None:
    """As the delta log and a signed suite's inspection take it."""
    update: Any = parse(rpb.OwnerUpdate, data)
    positions_of([rpb.Head(replica=update.replica, counter=update.counter)], 9, "heads")
    delta_of(update, 0.0, Via.AUTHOR, 1 << 20)
    signing._envelope_of(update)


def _join(data: bytes) -> None:
    """As the writer of a memory node takes it, up to where the tables are asked."""
    action: Any = parse(node_pb2.MergeAction, data)
    clock = SimpleNamespace(observe=lambda _clock: None)
    joins._parse(cast(Any, SimpleNamespace(author=SimpleNamespace(clock=clock))), _OWNER, action, _DIMENSION)


_LINES = (
    {"text": "hi", "said_at": "2026-05-01T18:30:00Z", "metadata": {"a": "b"}, "embedding": [0.5], "ttl_s": 3, "id": 7},
    {
        "trace_id": "01" * 16,
        "scope": {"user": "ann"},
        "text": "hi",
        "embedding": {"vector": "AACAPw==", "model": "m"},
        "links": [{"type": "derived_from", "trace_id": "01" * 16, "weight": 0.5}],
        "provenance": {"source": "s", "trust": 0.5},
    },
    {"query": "who?", "helpful": ["01" * 16], "scope": {"user": "ann"}, "at": "2026-05-01"},
)
_FRAMES = b'{"backup_format": 1, "created_at": "2026"}\0one\0two\0{"chain": "CHAIN", "parts": 2, "owners": 1}'
_ODD_FRAMES = tuple(_FRAMES.replace(b'"owners": 1', b'"owners": ' + odd) for odd in (b"1e999", b'"x"', b"null"))
_FILE = (ValueError, TypeError, AttributeError, RecursionError, NdmlError)
"""What the readers of these files catch, to put a damaged one aside."""

DECODERS = (
    Decoder("causal-context", CausalContext.from_bytes, (_context(), CausalContext().to_bytes())),
    Decoder("envelope", Envelope.from_bytes, (envelope_by("node-a").to_bytes(),)),
    Decoder("proof", Proof.from_bytes, (_proof(),)),
    Decoder("vouch", Vouch.from_bytes, (vouch(key_of("node-a"), "node-a", bytes(32)).to_bytes(),)),
    Decoder("authors", Roster.from_json, (roster_of("node-a", "node-b").sign(key_of("operator")).to_json(),)),
    Decoder("node-record", _read_node, (_node(),), _FILE),
    Decoder("trace-states", _states, (_state(), _state() * 3)),
    Decoder("protein", Protein.unpack, (_protein(),)),
    Decoder("gate-profile", lambda data: calibration.from_json(data.decode("utf-8", "replace")), (_profile(),)),
    Decoder("difference", _difference, (b"\x01" + Encoder(_ITEMS[:64], b"key").symbols(0, 20),)),
    Decoder("backup", lambda data: archive.verified(io.BytesIO(data)), (_backup(),)),
    Decoder("backup-frames", lambda data: archive.verified(io.BytesIO(_reframed(data))), (_FRAMES, *_ODD_FRAMES)),
    Decoder("jsonl", _jsonl, tuple(bytes([form]) + json.dumps(line).encode() for form, line in enumerate(_LINES))),
    Decoder("owner-update", _read_update, (_update().SerializeToString(),)),
    Decoder("merge", _join, (node_pb2.MergeAction(records=_update().records).SerializeToString(),)),
    Decoder("sibling-id", lambda data: parse_sibling_id(data.decode("utf-8", "replace")), (b"00000000000000ff-7",)),
)
