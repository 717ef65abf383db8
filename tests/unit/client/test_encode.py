"""Models to messages and back, without a server."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndml.client
from ndml.client import (
    ClientOptions,
    Content,
    Embedding,
    Filter,
    Kind,
    LifecycleState,
    Link,
    LinkType,
    Memory,
    NewMemory,
    Provenance,
    Range,
    Retry,
    Scope,
    Tls,
    WriteDecision,
)
from ndml.client import _decode as decode
from ndml.client import _encode as encode
from ndml.client._channel import credentials, target
from ndml.client._chunks import Chunks
from ndml.client._session import Tokens
from ndml.errors import FieldInvalid
from ndml.v1 import types_pb2

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.none() | st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))
UNIT = st.floats(0, 1, width=32)
MEMORIES = st.builds(
    Memory,
    trace_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    scope=st.builds(Scope, user=WORDS, agent=WORDS, session=WORDS, tenant=WORDS),
    text=WORDS,
    kind=st.sampled_from(Kind),
    speaker=WORDS,
    said_at=TIMES,
    learned_at=TIMES,
    updated_at=TIMES,
    metadata=st.dictionaries(WORDS, WORDS, max_size=3),
    salience=UNIT,
    provenance=st.none() | st.builds(Provenance, source=WORDS, trust=UNIT),
    version=st.integers(0, 2**64 - 1),
    embedding=st.none() | st.builds(Embedding, vector=st.binary(min_size=4, max_size=8), model=WORDS, word_vectors=st.binary(max_size=8)),
    protected=st.booleans(),
    expires_at=TIMES,
    contents=st.lists(
        st.builds(
            Content,
            media_type=WORDS,
            data=st.binary(max_size=8),
            uri=WORDS,
            text=WORDS,
            embeddings=st.lists(st.builds(Embedding, vector=st.binary(min_size=4, max_size=8), model=WORDS), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    links=st.lists(st.builds(Link, type=st.sampled_from(LinkType), trace_id=WORDS, weight=UNIT), max_size=2).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(MEMORIES)
def test_a_memory_survives_the_wire(memory: Memory) -> None:
    sent = encode.trace(memory, memory.scope).SerializeToString()
    assert decode.memory(types_pb2.MemoryTrace.FromString(sent)) == memory


@pytest.mark.parametrize(
    "given_vector",
    [
        [0.5, -1.0, 2.0],
        (0.5, -1, 2),
        array("f", [0.5, -1.0, 2.0]),
        array("d", [0.5, -1.0, 2.0]),
        np.array([0.5, -1.0, 2.0]),
        np.array([[0.5, -1.0, 2.0]], dtype=np.float16)[0],
        np.arange(6, dtype=np.float32)[::2] * 0 + np.array([0.5, -1, 2], dtype=">f4"),
        memoryview(array("f", [0.5, -1.0, 2.0])),
        memoryview(np.array([0.5, -1.0, 2.0], dtype="<f4").tobytes()),
        np.array([0.5, -1.0, 2.0], dtype="<f4").tobytes(),
        Embedding(np.array([0.5, -1.0, 2.0], dtype="<f4").tobytes()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_form_of_vector_is_the_same_on_the_wire(given_vector: object) -> None:
    message = encode.embedding("embedding", given_vector)
    assert message is not None and message.vector == bytes.fromhex("0000003f000080bf00000040")
    assert list(Embedding(message.vector).floats()) == [0.5, -1.0, 2.0]


@pytest.mark.parametrize("wrong", ["text", 3, [[1.0], [2.0]], np.zeros((2, 3)), ["a"], object()])
def test_what_is_not_a_vector_is_named(wrong: object) -> None:
    with pytest.raises(FieldInvalid) as caught:
        encode.embedding("memory.embedding", wrong)
    assert caught.value.violations[0].field == "memory.embedding.vector"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (NewMemory("a\ud800b"), "memory.text"),
        (NewMemory(b"bytes"), "memory.text"),  # type: ignore[arg-type]
        (NewMemory("a", said_at=datetime(2026, 1, 1)), "memory.said_at"),
        (NewMemory("a", said_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))), "memory.said_at"),
        (NewMemory("a", kind="dream"), "memory.kind"),
        (NewMemory("a", metadata={"stars": 3}), "memory.metadata[stars]"),  # type: ignore[dict-item]
        (NewMemory("a", salience="high"), "memory.salience"),  # type: ignore[arg-type]
        (NewMemory("a", provenance=Provenance(trust=True)), "provenance.trust"),
        (NewMemory("a", user=7), "scope.user"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_sent_is_refused_by_field(wrong: NewMemory, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        encode.new_memory(wrong, Scope())
    assert caught.value.violations[0].field == field


def test_filter_has_every_condition() -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    message = encode.filter_(
        Filter(
            metadata={"topic": "work", "lang": ["en", "de"], "draft": False, "stars": Range(at_least=3)},
            said_from=noon,
            learned_until=noon,
            kinds=["semantic", Kind.EPISODIC],
            speakers=["Ann"],
        )
    )
    assert message is not None
    rules = {rule.key: rule for rule in message.metadata}
    assert rules["topic"].equals == "work" and list(rules["lang"].any_of.values) == ["en", "de"]
    assert rules["draft"].WhichOneof("condition") == "exists" and not rules["draft"].exists
    assert rules["stars"].range.at_least == 3 and not rules["stars"].range.HasField("less_than")
    assert getattr(message.said_at, "from").ToJsonString() == "2026-05-01T10:00:00Z" and not message.said_at.HasField("until")
    assert message.learned_at.until.ToJsonString() == "2026-05-01T10:00:00Z"
    assert list(message.kinds) == [types_pb2.TRACE_KIND_SEMANTIC, types_pb2.TRACE_KIND_EPISODIC] and list(message.speakers) == ["Ann"]


def test_a_kind_of_a_newer_server_reads_as_episodic() -> None:
    assert decode.memory(types_pb2.MemoryTrace(kind=77)).kind is Kind.EPISODIC  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 40)), st.integers(1, 5), st.integers(1, 60))
def test_chunks_keep_order_and_bounds(sizes: list[int], max_items: int, max_bytes: int) -> None:
    chunks: Chunks[int, types_pb2.Scope, tuple[int, list[int]]] = Chunks(
        lambda size: types_pb2.Scope(user="x" * size),
        lambda parts, first: (first, [part.ByteSize() for part in parts]),
        max_items=max_items,
        max_bytes=max_bytes,
    )
    sent = [done for size in sizes if (done := chunks.push(size))]
    sent += [done for done in (chunks.finish(),) if done]
    assert [size for _, part in sent for size in part] == [types_pb2.Scope(user="x" * size).ByteSize() for size in sizes]
    assert [first for first, _ in sent] == [sum(len(part) for _, part in sent[:i]) for i in range(len(sent))]
    assert all(len(part) <= max_items and (len(part) == 1 or sum(part) <= max_bytes) for _, part in sent)
    assert chunks.finish() is None


def test_tokens_forget_the_least_recently_used_owner() -> None:
    tokens = Tokens(2)
    tokens.remember(("", "a"), "1")
    tokens.remember(("", "b"), "2")
    assert tokens.newest(("", "a")) == "1"
    tokens.remember(("", "c"), "3")
    tokens.remember(("", "a"), "")
    assert [tokens.newest(("", user)) for user in "abc"] == ["1", "", "3"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("gateway:7700", "gateway:7700"),
        ("dns:///gateway.ndml:7700", "dns:///gateway.ndml:7700"),
        ("127.0.0.1:7700, localhost:7701", "ipv4:127.0.0.1:7700,127.0.0.1:7701"),
        ("[::1]:1,[::1]:2", "ipv6:[::1]:1,[::1]:2"),
    ],
)
def test_target(address: str, expected: str) -> None:
    assert target(address) == expected


@pytest.mark.parametrize(
    "address", ["a:1,", "gateway:1,127.0.0.1:2", "127.0.0.1:1,[::1]:2", "127.0.0.1,127.0.0.2", "", "127.0.0.1:x,127.0.0.2:1"]
)
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        target(address)
    assert caught.value.violations[0].field == "address"


def test_options_hold_their_rules(tmp_path: Path) -> None:
    for wrong in (
        lambda: Retry(attempts=0),
        lambda: Retry(first_delay_s=3, max_delay_s=2),
        lambda: ClientOptions(chunk_items=257),
        lambda: ClientOptions(keepalive_s=0),
        lambda: Tls(key=tmp_path),
        lambda: credentials(Tls(roots=tmp_path / "absent.pem")),
    ):
        with pytest.raises(FieldInvalid):
            wrong()


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (WriteDecision, types_pb2.WriteDecision, "WRITE_DECISION_"),
        (LifecycleState, types_pb2.LifecycleState, "LIFECYCLE_STATE_"),
        (LinkType, types_pb2.LinkType, "LINK_TYPE_"),
    ],
)
def test_a_word_for_every_value_and_for_those_of_a_newer_server(ours: Any, theirs: Any, prefix: str) -> None:
    assert [decode.word(theirs, prefix, number) for number in theirs.values()] == list(ours)
    assert decode.word(theirs, prefix, 99) == ours.UNSPECIFIED


def test_what_is_exported_is_what_was_promised() -> None:
    """A name that leaves this list is a break; one that enters it is a promise."""
    streams = {"BackupStream", "ChatStream", "ConsolidationStream", "DrainStream", "ExportStream", "ForgetStream"}
    assert set(ndml.client.__all__) == {
        *("NdmlClient", "AsyncNdmlClient", "DEFAULT_ADDRESS", "CallOptions", "ClientOptions", "Retry", "Tls"),
        *streams, *(f"Async{name}" for name in streams),
        *("Added", "ChatMessage", "Citation", "ClusterStatus", "ConsolidationProgress", "CreditClock", "CreditSpread", "Embedding"),
        *("DrainProgress", "Episode", "Profile", "ProfileProperty", "RestoreResult", "Sibling"),
        *("Feedback", "Filter", "GateDecision", "Graded", "Hit", "ImportFailure", "ImportResult", "Kind", "LifecycleState", "Link"),
        *("LinkType", "Memory", "MemoryStats", "NewMemory", "Placement", "PlacementMember", "Provenance", "Query", "Range"),
        *("RankingWeights", "Reinforced", "Sampling", "Scope", "SearchResult", "SearchStats", "ServiceStatus", "Snapshot", "Strength"),
        "SearchMode",
        *("TraceEvent", "WriteDecision", "ModelInfo", "Tool", "ToolCall", "Content"),
    }  # fmt: skip
    assert all(hasattr(ndml.client, name) for name in ndml.client.__all__)
