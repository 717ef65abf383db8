"""`NDMLIntegratedLLM`: any causal language model in this process, with a memory suite beside it."""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from ndml import tiny
from ndml.client import CallOptions, Hit, Memory, NdmlClient, NewMemory
from ndml.errors import FieldInvalid
from ndml.fusion import checkpoints
from ndml.fusion.adapter import Adapter
from ndml.fusion.checkpoints import Trained
from ndml.fusion.families import Family, study
from ndml.fusion.prefix import Projector
from ndml.fusion.prompt import Message, PromptLimits
from ndml.fusion.readout import MemoryReadout
from ndml.fusion.ways import Fusion, FusionOptions, Way
from ndml.integrated.config import MemoryConfig
from ndml.integrated.forward import Forward
from ndml.integrated.gateway import Context, MemoryGateway
from ndml.integrated.generation import Generation
from ndml.integrated.learning import Learner, new_words, now, statements
from ndml.integrated.recall import readout
from ndml.integrated.suite import OwnSuite
from ndml.training.models import loaded, pick_device

_CITED = re.compile(r"\[(\d{1,3})\]")
_VECTORED: tuple[str, ...] = ("prefix", "adapter")  # ways that look at sentence vectors


class Answer(str):
    """The text of an answer. citations: memories that it names as [n], else all that the model read; used: all that it read, by number;
    way: how it read them; prompt_tokens, completion_tokens."""

    citations: tuple[Memory, ...] = ()
    used: Mapping[int, Memory] = {}
    way: str = "prompt"
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class MemoryOutput:
    """Of a forward pass: logits (B, T, V), with the gradient where torch records one; for each row the memories that were read, with
    their scores; how. Fields by name too, as in a mapping."""

    logits: Tensor
    retrieved_memories: tuple[tuple[tuple[Memory, float], ...], ...]
    way: str

    def __getitem__(self, name: str) -> Any:
        if name not in self.__slots__:
            raise KeyError(name)
        return getattr(self, name)


class NDMLIntegratedLLM:
    """A model that remembers. `async with`, `with`, or `close()` when done; what is left open ends with the interpreter.

    model = NDMLIntegratedLLM("ndml-tiny", memory_config={"user": "ann"})
    print(await model.chat_completion([{"role": "user", "content": "My cat is called Miso."}]))
    """

    def __init__(
        self,
        model_name_or_path: str = tiny.NAME,
        memory_dimension: int | None = None,
        memory_config: Mapping[str, Any] | MemoryConfig | None = None,
    ) -> None:
        """Blocks while the model loads and, without an address, a suite of our own starts.

        memory_dimension: components of vectors at this API (see `projection`); None: the embedder's.
        Raises FieldUnknown, FieldInvalid, ModelUnavailable, ModelNotConfigured.
        """
        self.config = MemoryConfig.of(memory_config)
        source = str(tiny.path()) if model_name_or_path == tiny.NAME else model_name_or_path
        self.base_model, self.tokenizer = loaded(source, pick_device(self.config.device))
        adapter, projector = self._trained(family := study(self.base_model))
        options = FusionOptions(prompt=PromptLimits(self.config.prompt_tokens))
        self.fusion = Fusion(self.base_model, self.tokenizer, adapter=adapter, projector=projector, options=options, family=family)
        self._forward = Forward(self.fusion, self.base_model, self.tokenizer, adapter, projector, self.config.prompt_tokens)
        self._generation = Generation(self.fusion, self.base_model, self.tokenizer)
        ends = ExitStack()
        ends.callback(self.fusion.close)
        self._end = weakref.finalize(self, ends.close)
        try:
            self._remember(memory_dimension, ends)
        except BaseException:
            self.close()
            raise

    def _remember(self, memory_dimension: int | None, ends: ExitStack) -> None:
        """What ends last is made first."""
        config = self.config
        suite = None if config.address else OwnSuite(config)
        if suite:
            ends.callback(suite.stop)
        self.address = suite.address if suite else config.address
        client = NdmlClient(self.address, token=config.token, timeout_s=config.timeout_s)
        ends.callback(client.close)
        self._learner = Learner(client, config.backlog)
        ends.callback(self._learner.close)
        self._executor = ThreadPoolExecutor(config.workers, "ndml-integrated")
        ends.callback(self._executor.shutdown)
        self.memory_gateway = MemoryGateway(client, config, memory_dimension, self._executor)
        self.memory_dimension = self.memory_gateway.projection.dimension

    async def chat_completion(
        self,
        messages: Sequence[Mapping[str, str]],
        context: Context = None,
        max_new_tokens: int = 256,
        *,
        temperature: float = 0.0,
        seed: int | None = None,
        fusion: str = "",
    ) -> Answer:
        """Recall, let the model read, answer, learn what was said. temperature 0: greedy; fusion: over the config's.

        Raises FieldInvalid, FusionUnsupported, LearningBacklog, and what the suite raises.
        """
        act = lambda: self._chat(messages, context, max_new_tokens, temperature, seed, fusion)  # noqa: E731
        return await asyncio.get_running_loop().run_in_executor(self._executor, act)

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, context: Context = None, update_memory: bool = True
    ) -> MemoryOutput:
        """`forward`."""
        return self.forward(input_ids, attention_mask, context, update_memory)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, context: Context = None, update_memory: bool = True
    ) -> MemoryOutput:
        """One pass over ids (B, T) in which each row reads the memories that its own text recalls; bit for bit the model's own where
        there is none, or no user. update_memory: statements in the rows' texts are learned, as in a chat.

        By an adapter where one is trained; otherwise the quoted block is read before the row, whose positions move on by its length.
        """
        scope = self.config.scope(context)
        texts = self._forward.texts(input_ids, attention_mask)
        vectors = self._reads_vectors(self.config.fusion)
        with self._learning(texts if update_memory else (), context, scope):
            recalled = [self._recalled(text, scope, vectors) for text in texts]
            logits, way = self._forward.logits(input_ids, attention_mask, [read for read, _ in recalled], self.config.fusion)
        rows = tuple(tuple((hit.memory, hit.score) for hit in hits.values()) for _, hits in recalled)
        return MemoryOutput(logits, rows, way)

    def get_memory_stats(self, context: Context = None) -> dict[str, Any]:
        """Counts of the user's memory, what this object has learned, which ways of reading the model has."""
        learner = self._learner
        learned = {"written": learner.written, "known": learner.known, "failed": learner.failed}
        return {**self.memory_gateway.stats(context), "learned": learned, "ways": list(self.fusion.ways())}

    def save_memory_checkpoint(self, path: str | Path, context: Context = None) -> int:
        """Write a user's memories, vectors included, to a file; gives how many. What still waits to be learned is written first."""
        self._learner.flush()
        return self.memory_gateway.save(Path(path), context)

    def load_memory_checkpoint(self, path: str | Path, context: Context = None) -> int:
        """Take in what `save_memory_checkpoint` wrote, ids and times included; gives how many were not there before."""
        return self.memory_gateway.load(Path(path), context)

    def flush(self) -> None:
        """Until all that was said so far is written."""
        self._learner.flush()

    def close(self) -> None:
        """Write what waits to be learned, end our own suite, take the hooks out of the model; again: nothing."""
        self._end()

    async def aclose(self) -> None:
        """`close`, off the event loop."""
        await asyncio.to_thread(self.close)

    def _trained(self, family: Family) -> tuple[Trained[Adapter] | None, Trained[Projector] | None]:
        """What the config's folder holds. Raises FieldInvalid, ModelUnavailable, ModelNotConfigured."""
        if not self.config.trained:
            return None, None
        folder = Path(self.config.trained).expanduser()
        adapter = checkpoints.load_adapter(folder, family) if (folder / "adapter.json").exists() else None
        projector = checkpoints.load_projector(folder, family) if (folder / "projector.json").exists() else None
        if not (adapter or projector):
            raise FieldInvalid(
                f"{folder} holds neither adapter.json nor projector.json: train one with `ndml train`", field="memory_config.trained"
            )
        return adapter, projector

    def _chat(
        self, given: Sequence[Mapping[str, str]], context: Context, new_tokens: int, temperature: float, seed: int | None, fusion: str
    ) -> Answer:
        messages = turns(given)
        scope = self.config.scope(context)
        with self._learning(new_words(messages), context, scope):
            return self._answered(messages, scope, new_tokens, temperature, seed, fusion or self.config.fusion)

    def _answered(
        self, messages: Sequence[Message], scope: CallOptions, new_tokens: int, temperature: float, seed: int | None, fusion: str
    ) -> Answer:
        question = next((m.content for m in reversed(messages) if m.role == "user"), messages[-1].content)
        read, hits = self._recalled(question, scope, self._reads_vectors(fusion))
        made = self._generation.answer(messages, read, fusion, new_tokens, temperature, seed)
        answer = Answer(made.text)
        answer.used = {number: hits[number].memory for number in made.used}
        named = {int(number) for number in _CITED.findall(made.text)} & set(answer.used)
        answer.citations = tuple(memory for number, memory in answer.used.items() if not named or number in named)
        answer.way, answer.prompt_tokens, answer.completion_tokens = made.way, made.prompt_tokens, made.completion_tokens
        return answer

    def _recalled(self, text: str, scope: CallOptions, vectors: bool) -> tuple[MemoryReadout, dict[int, Hit]]:
        if not (scope["user"] and text.strip()):
            return MemoryReadout(), {}
        config = self.config
        found = self.memory_gateway.search(text, scope, max(config.candidates, config.retrieval_k), vectors=vectors)
        return readout(found.hits, config.retrieval_k, text)

    @contextmanager
    def _learning(self, texts: Sequence[str], context: Context, scope: CallOptions) -> Iterator[None]:
        """What the texts state is learned once the block is done, in room that is reserved before it. Raises LearningBacklog."""
        heard = statements(texts, context, now()) if scope["user"] and self.config.learning != "off" else []
        self._learner.reserve(len(heard))
        try:
            yield
        except BaseException:
            self._learner.release(len(heard))
            raise
        self._keep(heard, scope)

    def _keep(self, heard: list[NewMemory], scope: CallOptions) -> None:
        """What is reserved for them is given back when they are written."""
        if not heard:
            return
        if self.config.learning == "wait":
            try:
                self._learner.write(heard, scope)
            finally:
                self._learner.release(len(heard))
        else:
            self._learner.put(heard, scope)

    def _reads_vectors(self, fusion: str) -> bool:
        ways: tuple[Way, ...] = self.fusion.ways()
        return fusion in _VECTORED or (fusion == "auto" and any(way in _VECTORED for way in ways))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()


def turns(given: Sequence[Mapping[str, str]]) -> list[Message]:
    """Messages as the seed's callers write them: {"role": …, "content": …}. Raises FieldInvalid with the position."""
    made = []
    for at, message in enumerate(given):
        role, content = message.get("role", "user"), message.get("content")
        if role not in ("system", "user", "assistant") or not isinstance(content, str) or not content:
            raise FieldInvalid(
                f"messages[{at}] is {dict(message)!r:.120}: give role (system, user, assistant) and content", field=f"messages[{at}]"
            )
        made.append(Message(role, content))
    if not made:
        raise FieldInvalid("there is no message to answer", field="messages")
    return made
