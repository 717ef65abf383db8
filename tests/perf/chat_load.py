"""Users with something to remember, questions about it, and load on methods that stream answers."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from ndml.client import NdmlClient
from ndml.internal.v1 import llm_pb2
from ndml.v1 import chat_pb2, memory_pb2
from tests.perf.bench_suite import BATCH_ADD, _each

CHAT, GENERATE = "/ndml.v1.ChatService/Chat", "/ndml.internal.v1.LlmService/Generate"
NEW_TOKENS = 16
SYLLABLES = "ba ri to mel an sul ko fi ne dor lu vi sa pe ti gor".split()  # noqa: SIM905
TOLD = (
    ("My cat is called {}.", "What is my cat called"),
    ("I live in {}.", "Where do I live"),
    ("My sister is called {}.", "What is my sister called"),
    ("I work at {}.", "Where do I work"),
    ("My favourite dish is {}.", "What is my favourite dish"),
    ("My brother is called {}.", "What is my brother called"),
    ("My boss is called {}.", "What is my boss called"),
    ("I am allergic to {}.", "What am I allergic to"),
    ("My dentist is called {}.", "What is my dentist called"),
    ("My favourite city is {}.", "What is my favourite city"),
    ("My dog is called {}.", "What is my dog called"),
    ("I grew up in {}.", "Where did I grow up"),
)
_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_CHANNEL = [("grpc.use_local_subchannel_pool", 1)]


def name(seed: int) -> str:
    return "".join(random.Random(seed).choices(SYLLABLES, k=3)).capitalize()


@dataclass(frozen=True, slots=True)
class People:
    """So many users; user u told TOLD, each with a value of their own, a fact a day."""

    count: int

    def user(self, n: int) -> str:
        return f"talker-{n % self.count}"

    def fact(self, n: int, place: int) -> str:
        return TOLD[place][0].format(name(n % self.count * len(TOLD) + place))

    def question(self, n: int) -> str:
        """No two alike, so that none was embedded or read before; nothing in it is news."""
        return f"{TOLD[n % len(TOLD)][1]}, {name(n)} {n}?"

    def entries(self, n: int, places: Sequence[int]) -> list[llm_pb2.MemoryEntry]:
        """What a recall of these facts hands to the model."""
        made = []
        for number, place in enumerate(places, 1):
            entry = llm_pb2.MemoryEntry(number=number, text=self.fact(n, place), speaker="user", strength=1.0)
            entry.said_at.FromDatetime(_FIRST_DAY + timedelta(days=place))
            made.append(entry)
        return made

    def tell(self, address: str) -> None:
        """Have all of it remembered."""
        payloads = []
        for n in range(self.count):
            request = memory_pb2.BatchAddMemoriesRequest()
            for place in range(len(TOLD)):
                memory = request.memories.add(text=self.fact(n, place), speaker="user")
                memory.scope.user = self.user(n)
                memory.said_at.FromDatetime(_FIRST_DAY + timedelta(days=place))
            payloads.append(request.SerializeToString())
        asyncio.run(_each(address, BATCH_ADD, payloads, 8))

    def recalled(self, address: str, k: int) -> list[list[int]]:
        """For each user the places of k facts that a search for their question brings, best first."""
        found = []
        for n in range(self.count):
            with NdmlClient(address, user=self.user(n), timeout_s=60) as client:
                texts = [hit.memory.text for hit in client.search(self.question(n), k=k)]
            places = {self.fact(n, place): place for place in range(len(TOLD))}
            found.append([places[text] for text in texts])
        return found


@dataclass(frozen=True, slots=True)
class Door:
    """What answers: a method of a server, its n-th request, and the type of its answer's parts."""

    name: str
    address: str
    method: str
    request: Callable[[int], bytes]
    part: type[chat_pb2.ChatResponse] | type[llm_pb2.GenerateResponse]


@dataclass(slots=True)
class Talked:
    """Answers of one door: when each had its first token and when its last, in ms; tokens of prompts; seconds that it took."""

    first_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.whole_ms) / self.seconds

    def add(self, began: float, first: float, ended: float, last: Any) -> None:
        """Raises RuntimeError for an answer that is not as long as was asked for."""
        if last.usage.completion_tokens != NEW_TOKENS:
            raise RuntimeError(f"an answer has {last.usage.completion_tokens} tokens, not {NEW_TOKENS}: {last}")
        self.first_ms.append((first - began) * 1e3)
        self.whole_ms.append((ended - began) * 1e3)
        self.prompt_tokens.append(last.usage.prompt_tokens)


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


async def _answer(channel: grpc.aio.Channel, door: Door, n: int, into: Talked) -> None:
    payload = door.request(n)
    began = time.perf_counter()
    first, last = 0.0, b""
    async for part in channel.unary_stream(door.method)(payload):
        first, last = first or time.perf_counter(), part
    into.add(began, first, time.perf_counter(), door.part.FromString(last))


async def by_turns(doors: Sequence[Door], turns: int, first_number: int) -> list[Talked]:
    """One caller asks each door in turn: what slows the machine slows all of them."""
    found = [Talked() for _ in doors]
    channels = [grpc.aio.insecure_channel(door.address, options=_CHANNEL) for door in doors]
    for n in range(first_number, first_number + turns):
        for door, channel, talked in zip(doors, channels, found, strict=True):
            await _answer(channel, door, n, talked)
    for channel, talked in zip(channels, found, strict=True):
        talked.seconds = sum(talked.whole_ms) / 1e3
        await channel.close()
    return found


async def together(door: Door, callers: int, seconds: float, first_number: int) -> Talked:
    """`callers` tasks on one channel ask again as soon as they are answered. A failed call raises."""
    talked, number = Talked(), first_number
    async with grpc.aio.insecure_channel(door.address, options=_CHANNEL) as channel:
        began = time.perf_counter()

        async def caller() -> None:
            nonlocal number
            while time.perf_counter() < began + seconds:
                number += 1
                await _answer(channel, door, number, talked)

        await asyncio.gather(*(caller() for _ in range(callers)))
        talked.seconds = time.perf_counter() - began
    return talked


def chat_request(user: str, text: str, recall_k: int) -> bytes:
    request = chat_pb2.ChatRequest(recall_k=recall_k, sampling=chat_pb2.SamplingOptions(max_new_tokens=NEW_TOKENS))
    request.scope.user = user
    request.messages.add(role=chat_pb2.ROLE_USER, content=text)
    return request.SerializeToString()


def generate_request(text: str, memory: Sequence[llm_pb2.MemoryEntry]) -> bytes:
    request = llm_pb2.GenerateRequest(memory=memory, sampling=chat_pb2.SamplingOptions(max_new_tokens=NEW_TOKENS))
    request.messages.add(role=chat_pb2.ROLE_USER, content=text)
    return request.SerializeToString()
