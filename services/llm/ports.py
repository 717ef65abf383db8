"""What the servicer needs of a model: two protocols, and the plain values that cross them. No torch here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt

from ndml.fusion.readout import MemoryReadout

Floats = npt.NDArray[np.float32]
Spans = npt.NDArray[np.int32]
RoleName = Literal["system", "user", "assistant", "tool"]
WayName = Literal["prompt", "prefix", "adapter", "state", "knn"]
FinishName = Literal["stop", "length", "tool_calls"]
WAYS: tuple[WayName, ...] = get_args(WayName)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as the encoder reads it: vocabulary ids with special tokens, and whether the model's limit cut it.

    words: (words, 2), first token and past the last one of each content word; None where nobody asked, or the tokenizer cannot tell.
    """

    ids: tuple[int, ...]
    truncated: bool
    words: Spans | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Embedding:
    """vector (D,) of unit length; token_vectors (tokens, D), not normalised, or None when nobody asked for them.

    word_vectors: as on the wire; None where the tokens have no words.
    """

    vector: Floats
    token_vectors: Floats | None
    tokens: Tokens
    word_vectors: bytes | None = None


class Encoder(Protocol):
    """An embedding model. Blocking and called from worker threads: both methods may run in several at once."""

    @property
    def model(self) -> str:
        """Id under which vectors of this space are known."""

    @property
    def dimension(self) -> int:
        """Components of a vector."""

    @property
    def max_tokens(self) -> int:
        """Tokens read of a text, special ones included."""

    @property
    def parallel(self) -> int:
        """Batches that it runs well side by side: the cores of a CPU, one on a GPU."""

    @property
    def pass_tokens(self) -> int:
        """What a forward pass costs beside its tokens, in tokens."""

    def tokenize(self, texts: Sequence[str], words: Collection[int] = ()) -> list[Tokens]:
        """Cut at max_tokens, not padded; with content words for the texts at the places `words`."""

    def encode(self, batch: Sequence[Tokens], token_vectors: bool) -> list[Embedding]:
        """One forward pass over the batch, in its order; word vectors where the tokens have words."""


class Media(NamedTuple):
    """Bytes and what they are, for example "image/png"."""

    media_type: str
    data: bytes


class Unreadable(Exception):
    """A media that the encoder cannot read; `place` is its position among those that it was given, the message says why."""

    def __init__(self, place: int, why: str) -> None:
        super().__init__(why)
        self.place = place


class JointEncoder(Protocol):
    """Puts texts and media into one space. Used by one thread at a time."""

    @property
    def dimension(self) -> int:
        """Components of its vectors."""

    @property
    def media(self) -> tuple[str, ...]:
        """Top-level media types that it reads."""

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors [n, dimension]; texts are cut where the encoder's reading ends."""

    def encode_media(self, media: Sequence[Media]) -> Floats:
        """Unit vectors [n, dimension]. Raises Unreadable."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's wish that the caller run a tool; arguments is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for; parameters is a JSON Schema as JSON, "" for none."""

    name: str
    description: str = ""
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A turn of the conversation. tool_calls: of an assistant's; tool_call_id: the call that a tool's message answers."""

    role: RoleName
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. max_new_tokens None: the service's default; temperature 0: greedy; seed None: not fixed."""

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One generation: the conversation, what was recalled for it, how the model is to read that.

    fusion       None: as the service is configured
    tools        offered; tool_choice: auto, none, required, or the name of one, "" for auto
    model        "" for the one that is served
    """

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    memory: MemoryReadout = field(default_factory=MemoryReadout)
    fusion: WayName | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """How a generation ended: token counts (0 where an upstream does not tell), tools asked for, the way in which memory was read and the
    numbers of the entries that were."""

    reason: FinishName
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tool_calls: tuple[ToolCall, ...] = ()
    fusion: WayName = "prompt"
    read: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Mean negative log-probability of a text's tokens, in nats, and how many counted."""

    surprise: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a chat model can do.

    refusals        for each way of fusion: "" where it can be asked for, else why not
    scores          it tells how likely a text is
    context_tokens  of prompt and answer at most, 0: no limit, or not known
    """

    refusals: Mapping[WayName, str]
    scores: bool
    context_tokens: int


class Generator(Protocol):
    """A chat model, wherever it runs. An adapter is all that another kind of model or upstream takes."""

    @property
    def model(self) -> str:
        """Id of the model, empty while none is configured."""

    @property
    def abilities(self) -> Abilities:
        """While it loads, each way is refused with that reason."""

    def generate(self, ask: Ask, remaining_s: float | None) -> AsyncGenerator[str | Finish, None]:
        """Text pieces as they come, then one Finish. Closing the generator ends the work within a token.

        Raises ModelNotConfigured, ModelUnavailable, ModelUnknown, FusionUnsupported, Overloaded, DeadlinePassed, FieldInvalid
        (messages that cannot fit, tools that the model does not know).
        """

    async def score(self, texts: Sequence[str], context: str, remaining_s: float | None) -> list[Score]:
        """How much each text surprises the model after `context`, in order.

        Raises ModelNotConfigured, ModelUnavailable, ScoresUnsupported, Overloaded, DeadlinePassed.
        """
