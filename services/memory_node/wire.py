"""Results as wire bytes, put together from pieces that are serialised already. Pure.

A hit's trace is never parsed here: its bytes go from the store's row into the answer. This leans on two promises of the protobuf
encoding: a message is the concatenation of its fields in any order, and fields of a message that stand twice merge. So an embedding
is appended to a payload that was stored without one, the statistics follow the hits, and the gateway appends statistics of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ndml.v1.memory_pb2 import Episode, SignalShare
from ndml.v1.types_pb2 import Embedding, LifecycleState, TraceStrength

F32 = NDArray[np.float32]

# Tags: field number << 3 | wire type (0 varint, 2 length-delimited, 5 four bytes). A test parses what comes out.
_TRACE_EMBEDDING = b"\x6a"  # MemoryTrace.embedding = 13
_TRACE_STATE = b"\xa8\x01"  # MemoryTrace.state = 21
_TRACE_STRENGTH = b"\xb2\x01"  # MemoryTrace.strength = 22
_HIT_TRACE = b"\x0a"  # SearchHit.trace = 1
_HIT_SCORE = b"\x15"  # SearchHit.score = 2
_HIT_SIGNALS = b"\x1a"  # SearchHit.signals = 3
_HIT_SIMILARITY = b"\x25"  # SearchHit.similarity = 4
_HIT_BEFORE = b"\x2a"  # SearchHit.before = 5
_HIT_AFTER = b"\x32"  # SearchHit.after = 6
_HIT_ANCESTORS = b"\x3a"  # SearchHit.ancestors = 7
_HIT_EPISODE = b"\x42"  # SearchHit.episode = 8
_RESPONSE_HITS = b"\x0a"  # SearchMemoriesResponse.hits = 1
_RESPONSE_STATS = b"\x12"  # SearchMemoriesResponse.stats = 2
_RESULT_SEARCH = b"\x1a"  # OperationResult.search = 3
_RESULT_RESPONSES = b"\x0a"  # SearchResult.responses = 1
_RESULT_BUSY = b"\x45"  # OperationResult.busy_ms = 8
_BATCH_ID = b"\x08"  # ExecuteResponse.batch_id = 1
_BATCH_RESULTS = b"\x12"  # ExecuteResponse.results = 2
_REPLICA = b"\x19"  # ExecuteResponse.replica = 3, eight bytes
_SCORES = np.dtype([("score", "<f4"), ("tag", "u1"), ("similarity", "<f4")])
SCORES_BYTES = _SCORES.itemsize


def varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field."""
    return tag + varint(len(content)) + content


def hit_head(payload: bytes) -> bytes:
    """Everything of a hit, as a field of the response, up to its `scores`: what stays the same from search to search."""
    trace = field(_HIT_TRACE, payload)
    return _RESPONSE_HITS + varint(len(trace) + len(_HIT_SCORE) + SCORES_BYTES) + trace + _HIT_SCORE


def scores(score: F32, similarity: F32) -> bytes:
    """What follows the head of each hit [n, k], SCORES_BYTES a hit: its score and, as a field, its similarity."""
    made = np.empty(score.shape, _SCORES)
    made["score"], made["tag"], made["similarity"] = score, _HIT_SIMILARITY[0], similarity
    return made.tobytes()


def beside(before: Sequence[bytes], after: Sequence[bytes], ancestors: Sequence[bytes], episode: Episode | None = None) -> bytes:
    """Fields of a hit: payloads of what stands around it, and its episode."""
    sides = ((_HIT_BEFORE, before), (_HIT_AFTER, after), (_HIT_ANCESTORS, ancestors))
    around = b"".join([field(tag, payload) for tag, payloads in sides for payload in payloads])
    return around if episode is None else around + field(_HIT_EPISODE, episode.SerializeToString())


def full_hit(payload: bytes, score: float, similarity: float, shares: Mapping[str, float], around: bytes = b"") -> bytes:
    """A hit as a field of the response, with the shares of its score by signal where there are any, and what is `beside` it."""
    hit = field(_HIT_TRACE, payload) + _HIT_SCORE + struct.pack("<f", score) + _HIT_SIMILARITY + struct.pack("<f", similarity)
    for signal, share in shares.items():
        hit += field(_HIT_SIGNALS, SignalShare(signal=signal, share=share).SerializeToString())
    return field(_RESPONSE_HITS, hit + around)


def with_strength(payload: bytes, strength: TraceStrength, state: LifecycleState) -> bytes:
    """The trace with its strength, and where it stands in its life."""
    return payload + _TRACE_STATE + varint(state) + field(_TRACE_STRENGTH, strength.SerializeToString())


def with_embedding(payload: bytes, embedding: Embedding) -> bytes:
    """The trace with its vectors."""
    return payload + field(_TRACE_EMBEDDING, embedding.SerializeToString())


def search_response(hits: Sequence[bytes], stats: bytes) -> bytes:
    """SearchMemoriesResponse from its hits (pieces, in order) and its serialised SearchStats."""
    return b"".join((*hits, _RESPONSE_STATS, varint(len(stats)), stats))


def search_result(responses: Sequence[bytes], busy_ms: float = 0.0) -> bytes:
    """OperationResult of a search from the response to each of its queries and the milliseconds of work."""
    result = b"".join([field(_RESULT_RESPONSES, response) for response in responses])
    return field(_RESULT_SEARCH, result) + _RESULT_BUSY + struct.pack("<f", busy_ms)


def execute_response(batch_id: int, results: Sequence[bytes], replica: int = 0) -> bytes:
    """ExecuteResponse from serialised OperationResults and the number of the store."""
    parts = [_BATCH_ID, varint(batch_id)] if batch_id else []
    if replica:
        parts += (_REPLICA, struct.pack("<Q", replica))
    for result in results:
        parts += (_BATCH_RESULTS, varint(len(result)), result)
    return b"".join(parts)
