"""The suite under signals: what was acknowledged stays, and a drain fails no call."""

from __future__ import annotations

import asyncio
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import psutil
import pytest

from ndml.client import AsyncNdmlClient, NdmlClient, NewMemory
from ndml.errors import NdmlError
from ndml.testing import Suite, SuiteError, SuiteOptions

USERS = [f"user-{number}" for number in range(8)]
DIMENSION = 384


def vector(rng: random.Random) -> list[float]:
    return [rng.gauss(0, 1) for _ in range(DIMENSION)]


class Load:
    """Callers that write and search until told to stop. Counts what went well, keeps what failed, and what was acknowledged."""

    def __init__(self, client: AsyncNdmlClient, name: str) -> None:
        self.client = client
        self.name = name
        self.acknowledged: dict[str, set[str]] = defaultdict(set)
        self.failures: list[NdmlError] = []
        self.calls = 0
        self._progress = asyncio.Condition()

    async def caller(self, number: int) -> None:
        rng = random.Random(f"{self.name}/{number}")
        user = USERS[number % len(USERS)]
        for turn in range(100_000):
            try:
                await self._write(user, f"{self.name} caller {number} turn {turn}", rng)
                await self.client.search(embedding=vector(rng), user=user, k=3)
            except NdmlError as error:
                self.failures.append(error)
                await asyncio.sleep(0.05)
                continue
            async with self._progress:
                self.calls += 2
                self._progress.notify_all()

    async def _write(self, user: str, text: str, rng: random.Random) -> None:
        batch = [NewMemory(f"{text} part {part}", embedding=vector(rng)) for part in range(4)]
        added = await self.client.add_many(batch, user=user)
        self.acknowledged[user].update(result.trace_id for result in added)

    async def more(self, calls: int) -> None:
        """Wait until so many further calls went well."""
        target = self.calls + calls
        async with self._progress:
            await asyncio.wait_for(self._progress.wait_for(lambda: self.calls >= target), 60)


@asynccontextmanager
async def load(client: AsyncNdmlClient, name: str) -> AsyncIterator[Load]:
    running = Load(client, name)
    callers = [asyncio.create_task(running.caller(number)) for number in range(2 * len(USERS))]
    yield running
    for task in callers:
        task.cancel()
    ended = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def stored(client: AsyncNdmlClient, user: str) -> set[str]:
    return {memory.trace_id async for memory in client.list(user=user, page_size=1000)}


async def test_every_acknowledged_write_survives_kill_9_of_its_node(spare_suite: Suite) -> None:
    async with AsyncNdmlClient(spare_suite.grpc_address, timeout_s=5.0) as client:
        owners = {user: (await client.placement(user=user)).owners[0] for user in USERS}
        assert set(owners.values()) == {"memory-node-1", "memory-node-2"}
        async with load(client, "kill") as running:
            for victim in ("memory-node-1", "memory-node-2", "memory-node-1"):
                await running.more(100)
                await asyncio.to_thread(spare_suite.kill, victim)
                await asyncio.to_thread(spare_suite.restart, victim)
            await running.more(100)
        await asyncio.to_thread(spare_suite.wait_healthy)
        for user in USERS:
            acknowledged = running.acknowledged[user]
            assert acknowledged, f"nothing was written for {user}, owner {owners[user]}"
            assert not acknowledged - await stored(client, user)


async def test_a_rolling_drain_of_two_gateways_fails_no_call(spare_suite: Suite) -> None:
    async with AsyncNdmlClient(",".join(spare_suite.grpc_addresses), timeout_s=20.0) as client, load(client, "drain") as running:
        for gateway in ("gateway-1", "gateway-2"):
            await running.more(100)
            spare_suite.terminate(gateway)
            code = await asyncio.to_thread(spare_suite.process(gateway).wait, 30)
            assert code == 0, f"{gateway} did not drain; {spare_suite.process(gateway).log_tail()}"
            await running.more(100)
            await asyncio.to_thread(spare_suite.restart, gateway)
        await running.more(100)
        assert running.failures == []


def test_memories_survive_a_restart_of_everything(spare_suite: Suite) -> None:
    rng = random.Random("restart")
    vectors = {user: vector(rng) for user in USERS}
    with NdmlClient(spare_suite.grpc_address) as client:
        added = {user: client.add(f"{user} was here", embedding=vectors[user], user=user).trace_id for user in USERS}
    assert set(spare_suite.stop().values()) == {0}
    spare_suite.start()
    with NdmlClient(spare_suite.grpc_address) as client:
        for user, trace_id in added.items():
            assert client.get(trace_id, user=user).text == f"{user} was here"
            (nearest,) = client.search(embedding=vectors[user], user=user, k=1)
            assert nearest.memory.trace_id == trace_id


def test_a_process_that_cannot_start_says_why_and_takes_the_others_down(tmp_path: Path) -> None:
    options = SuiteOptions(data_dir=tmp_path, memory_nodes=1, consensus_nodes=1, llm=False, settings={"gateway": {"NO_SUCH__KNOB": "1"}})
    broken = Suite(options)
    with pytest.raises(SuiteError, match=r"gateway-1 ended with exit code 2[\s\S]*NO_SUCH__KNOB"):
        broken.start()
    assert not [name for name in broken.names if broken.process(name).running]


def _kept(trace_id: str, store: str) -> str:
    """What `ndml trace` shows, as soon as the store has the gateway's span: spans come after the answer."""
    command = [sys.executable, "-m", "ndml.cli", "trace", trace_id, "--store", store]
    until = time.monotonic() + 60
    while True:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0 and "ndml-gateway" in done.stdout:
            return done.stdout
        assert done.returncode in (0, 3) and time.monotonic() < until, done.stderr


def _answers_to_any_name(printed: str) -> None:
    """A client of OpenAI's API with its base URL changed and nothing else; the answer says which model gave it."""
    rest = re.search(r"curl -s (http://[\d.:]+)/v1/", printed)
    assert rest is not None, printed
    with openai.OpenAI(base_url=f"{rest[1]}/v1", api_key="any", timeout=60) as door:
        answer = door.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello!"}], max_tokens=4)
        assert answer.model == "ndml-tiny" and answer.choices[0].message.content
        vectors = door.embeddings.create(model="text-embedding-3-small", input="Hello!", encoding_format="float")
        assert vectors.model == "all-MiniLM-L6-v2" and len(vectors.data[0].embedding) == 384


@pytest.mark.xdist_group("suite")
def test_ctrl_c_of_make_run_drains_every_process(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/run.py", "--free-ports", "--data", str(tmp_path / "data")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout is not None
    shown = []
    for line in running.stdout:
        shown.append(line)
        if "Ctrl-C drains" in line:
            break
    children = psutil.Process(running.pid).children()
    assert len(children) == 7, "".join(shown)
    printed = "".join(shown)
    store, address = re.search(r"--store (http://[\d.:]+)", printed), re.search(r'NdmlClient\("([\d.:]+)"', printed)
    assert store is not None and address is not None, printed
    trace_id = secrets.token_hex(16)
    with NdmlClient(address[1], user="ann") as client:
        client.stats(headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"})
    assert "ndml-gateway" in _kept(trace_id, store[1])
    _answers_to_any_name(printed)
    # To the whole foreground group, as the terminal does.
    os.killpg(running.pid, signal.SIGINT)
    rest, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert all(f"{name} 0" in rest for name in ("gateway-1", "memory-node-1", "memory-node-2", "consensus-1", "llm")), rest
    assert not [child for child in children if child.is_running()]
