"""What the memory node's tests share: traces, vectors, and a Node driven without gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ndml.errors import NdmlError
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.memory_pb2 import SearchMemoriesResponse
from ndml.v1.types_pb2 import Embedding, MemoryTrace
from ndml.wire import status_to_error
from services.memory_node import schema
from services.memory_node.node import Node
from services.memory_node.ports import OwnsAll, PlacementView
from services.memory_node.records import timestamp
from services.memory_node.schema import Identity
from services.memory_node.settings import EngineSection, IndexSection, NodeSection, NodeSettings, StoreSection

DIMENSION = 16
MODEL = "test-model"
T0_US = 1_700_000_000_000_000


def vector(seed: int | str, dimension: int = DIMENSION) -> bytes:
    """A unit vector that depends on `seed` only."""
    number = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "little")
    values = np.random.default_rng(number).standard_normal(dimension).astype(np.float32)
    return (values / np.linalg.norm(values)).astype("<f4").tobytes()


def trace_id(seed: int | str) -> str:
    return hashlib.blake2b(str(seed).encode(), digest_size=16).hexdigest()


def trace(seed: int | str, text: str = "", *, dimension: int = DIMENSION, **fields: Any) -> MemoryTrace:
    """A trace with id, text and vector from `seed`, learned at T0, plus as many microseconds as a number says; `fields` override."""
    made = MemoryTrace(trace_id=trace_id(seed), text=text or f"text {seed}", embedding=Embedding(vector=vector(seed, dimension)))
    learned = timestamp(T0_US + (seed if isinstance(seed, int) else 0))
    made.learned_at.CopyFrom(learned)
    made.said_at.CopyFrom(learned)
    for scoped in {"agent", "session"} & fields.keys():
        setattr(made.scope, scoped, fields.pop(scoped))
    for name in {"said_at_us", "learned_at_us"} & fields.keys():
        getattr(made, name.removesuffix("_us")).CopyFrom(timestamp(fields.pop(name)))
    made.MergeFrom(MemoryTrace(**fields))
    return made


def put(user: str, *traces: MemoryTrace, skip_existing: bool = False) -> pb.Operation:
    return pb.Operation(tenant="t", user=user, put=pb.PutAction(traces=traces, skip_existing=skip_existing))


def search(user: str, query: int | str | bytes, k: int = 10, **fields: Any) -> pb.Operation:
    wanted = query if isinstance(query, bytes) else vector(query)
    return pb.Operation(tenant="t", user=user, search=pb.SearchAction(vectors=wanted, k=k, **fields))


def operation(user: str, **action: Any) -> pb.Operation:
    return pb.Operation(tenant="t", user=user, **action)


def settings(data_dir: Path, *, dimension: int = DIMENSION, **sections: dict[str, Any]) -> NodeSettings:
    """Settings with small bounds; `store={...}` and so on override."""
    return NodeSettings(
        node=NodeSection(**{"node_id": "n0", "dimension": dimension, "embedding_model": MODEL} | sections.get("node", {})),
        store=StoreSection(**{"data_dir": data_dir, "checkpoint_interval_s": 0.05} | sections.get("store", {})),
        index=IndexSection(**sections.get("index", {})),
        engine=EngineSection(**sections.get("engine", {})),
    )


def identity(dimension: int = DIMENSION) -> Identity:
    return Identity("n0", dimension, MODEL)


class Driver:
    """A running Node as its gateway sees it."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def batch(self, operations: Sequence[pb.Operation], epoch: int = 0) -> list[pb.OperationResult]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self.node.engine.submit(pb.ExecuteRequest(batch_id=7, epoch=epoch, operations=operations), answer.set_result)
        response = pb.ExecuteResponse.FromString(await asyncio.wait_for(answer, 60))
        assert response.batch_id == 7
        assert len(response.results) == len(operations)
        return list(response.results)

    async def one(self, op: pb.Operation, epoch: int = 0) -> pb.OperationResult:
        """Raises the operation's error."""
        result = (await self.batch([op], epoch))[0]
        if result.WhichOneof("result") == "error":
            raise status_to_error(result.error)
        return result

    async def put(self, user: str, *traces: MemoryTrace, skip_existing: bool = False) -> pb.PutResult:
        return (await self.one(put(user, *traces, skip_existing=skip_existing))).put

    async def search(self, user: str, query: int | str | bytes, k: int = 10, **fields: Any) -> SearchMemoriesResponse:
        return SearchMemoriesResponse.FromString((await self.one(search(user, query, k, **fields))).search.responses[0])

    async def found(self, user: str, query: int | str | bytes, k: int = 10, **fields: Any) -> list[str]:
        return [hit.trace.text for hit in (await self.search(user, query, k, **fields)).hits]

    async def page(self, user: str, **fields: Any) -> pb.ListResult:
        return (await self.one(operation(user, list=pb.ListAction(**{"limit": 100} | fields)))).list

    async def every(self, user: str, **fields: Any) -> list[MemoryTrace]:
        """All pages."""
        traces: list[MemoryTrace] = []
        place: dict[str, Any] = {}
        while True:
            page = await self.page(user, **place, **fields)
            traces += page.traces
            if not page.HasField("next"):
                return traces
            place = {"before": page.next}


@asynccontextmanager
async def running(config: NodeSettings, placement: PlacementView | None = None) -> AsyncIterator[Driver]:
    node = Node(config, placement or OwnsAll())
    await node.start()
    try:
        yield Driver(node)
    finally:
        await node.stop()


def unseal(store: Path) -> None:
    """The test itself changes the file."""
    store.with_name(store.name + ".seal").unlink(missing_ok=True)


def without_peaks(raw: sqlite3.Connection) -> None:
    """Take a store of this release back to version 3 of its schema."""
    raw.execute("DROP INDEX heads_unsettled")
    raw.execute("ALTER TABLE heads DROP COLUMN peak")
    raw.execute("PRAGMA user_version = 3")
    unseal(Path(raw.execute("PRAGMA database_list").fetchone()[2]))


def without_replication(raw: sqlite3.Connection) -> None:
    """Take a store of this release back to version 2 of its schema, which had no replication."""
    for index in ("traces_list", "traces_versions"):
        raw.execute(f"DROP INDEX {index}")
    for table in ("contexts", "siblings", "contributions", "heads", "journal", "authors", "awaited"):
        raw.execute(f"DROP TABLE {table}")
    for table, column in schema.REPLICATION_COLUMNS:
        raw.execute(f"ALTER TABLE {table} DROP COLUMN {column.split()[0]}")
    raw.execute("CREATE UNIQUE INDEX traces_order ON traces (owner_id, first_sequence)")
    raw.execute("DELETE FROM meta WHERE key IN ('replica', 'clock')")
    raw.execute("PRAGMA user_version = 2")
    unseal(Path(raw.execute("PRAGMA database_list").fetchone()[2]))


def errors_of(result: pb.PutResult) -> list[NdmlError | None]:
    return [status_to_error(o.error) if o.HasField("error") else None for o in result.outcomes]


def texts(traces: Iterable[MemoryTrace]) -> list[str]:
    return [each.text for each in traces]
