"""The Python client: `NdmlClient` for threads, `AsyncNdmlClient` for asyncio. Needs grpcio and protobuf, nothing else of NDML's.

from ndml.client import NdmlClient

with NdmlClient("127.0.0.1:7700", user="ann") as memory:
    memory.add("I moved to Lisbon in May.", speaker="Ann")
    for hit in memory.search("Where does Ann live?"):
        print(hit.score, hit.memory.text)
"""

from ndml.client._async import AsyncNdmlClient
from ndml.client._models import (
    Added,
    ChatMessage,
    Citation,
    ClusterStatus,
    Embedding,
    Filter,
    Hit,
    ImportFailure,
    ImportResult,
    Kind,
    Memory,
    MemoryStats,
    NewMemory,
    Placement,
    PlacementMember,
    Provenance,
    Query,
    Range,
    Sampling,
    Scope,
    SearchResult,
    SearchStats,
    ServiceStatus,
    Snapshot,
)
from ndml.client._options import DEFAULT_ADDRESS, CallOptions, ClientOptions, Retry, Tls
from ndml.client._streams import AsyncChatStream, AsyncExportStream, ChatStream, ExportStream
from ndml.client._sync import NdmlClient

__all__ = [
    "DEFAULT_ADDRESS",
    "Added",
    "AsyncChatStream",
    "AsyncExportStream",
    "AsyncNdmlClient",
    "CallOptions",
    "ChatMessage",
    "ChatStream",
    "Citation",
    "ClientOptions",
    "ClusterStatus",
    "Embedding",
    "ExportStream",
    "Filter",
    "Hit",
    "ImportFailure",
    "ImportResult",
    "Kind",
    "Memory",
    "MemoryStats",
    "NdmlClient",
    "NewMemory",
    "Placement",
    "PlacementMember",
    "Provenance",
    "Query",
    "Range",
    "Retry",
    "Sampling",
    "Scope",
    "SearchResult",
    "SearchStats",
    "ServiceStatus",
    "Snapshot",
    "Tls",
]
