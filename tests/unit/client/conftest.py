from __future__ import annotations

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
