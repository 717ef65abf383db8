"""What the servicer needs of a model: two protocols, and the plain values that cross them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
RoleName = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as the encoder reads it: vocabulary ids with special tokens, and whether the model's limit cut it."""

    ids: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Embedding:
    """vector (D,) of unit length; token_vectors (tokens, D), not normalised, or None when nobody asked for them."""

    vector: Floats
    token_vectors: Floats | None
    tokens: Tokens


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

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Cut at max_tokens, not padded."""

    def encode(self, batch: Sequence[Tokens], token_vectors: bool) -> list[Embedding]:
        """One forward pass over the batch, in its order."""


@dataclass(frozen=True, slots=True)
class Message:
    """A turn of the conversation."""

    role: RoleName
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. max_new_tokens None: the service's default; temperature 0: greedy; seed None: not fixed."""

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """How a generation ended, and its token counts (0 where an upstream does not tell)."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


class Generator(Protocol):
    """A chat model, wherever it runs. An adapter is all that another kind of model or upstream takes."""

    @property
    def model(self) -> str:
        """Id of the model, empty while none is configured."""

    def generate(self, messages: Sequence[Message], sampling: Sampling, remaining_s: float | None) -> AsyncGenerator[str | Finish, None]:
        """Text pieces as they come, then one Finish. Closing the generator ends the work within a token.

        Raises ModelNotConfigured, ModelUnavailable, Overloaded, DeadlinePassed, FieldInvalid (messages that cannot fit).
        """
