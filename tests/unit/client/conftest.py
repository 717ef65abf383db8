from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ndml.client import AsyncNdmlClient, ClientOptions, NdmlClient, Retry

_SPEC = importlib.util.spec_from_file_location("memory_server", Path(__file__).with_name("memory_server.py"))
assert _SPEC is not None and _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

QUICK = ClientOptions(retry=Retry(attempts=4, first_delay_s=0.001, max_delay_s=0.6))


class Threaded:
    """The asyncio client's face on the threaded one, so that one scenario tests both."""

    def __init__(self, client: NdmlClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "scoped":
                return Threaded(method(*args, **kwargs))
            if name in ("list", "export", "chat", "consolidate", "forget", "drain", "backup"):
                return Iterating(method(*args, **kwargs))
            return asyncio.to_thread(method, *args, **kwargs)

        return call


class Iterating:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._stream:
            yield item

    async def aclose(self) -> None:
        self._stream.close()


@pytest.fixture
def server() -> Iterator[Any]:
    started = _MODULE.MemoryServer()
    yield started
    started.stop()


@pytest.fixture
def client(server: Any) -> Iterator[NdmlClient]:
    with NdmlClient(server.address, user="ann", options=QUICK) as opened:
        yield opened


@pytest.fixture
async def aclient(server: Any) -> AsyncIterator[AsyncNdmlClient]:
    async with AsyncNdmlClient(server.address, user="ann", options=QUICK) as opened:
        yield opened


@pytest.fixture(params=["threads", "asyncio"])
def memory(request: pytest.FixtureRequest, client: NdmlClient, aclient: AsyncNdmlClient) -> Any:
    return Threaded(client) if request.param == "threads" else aclient
