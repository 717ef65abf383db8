"""Texts embedded offline by all-MiniLM-L6-v2. Kept in the system's temporary folder: what is derived from evaluation data stays outside."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndml.language.sentences import spoken
from services.llm.model_files import resolve
from tests.quality.locomo import Conversation, load

F32 = NDArray[np.float32]
MODEL = "all-MiniLM-L6-v2"
FOLDER = Path(tempfile.gettempdir()) / "ndml-quality"


@dataclass(frozen=True, slots=True)
class Embedded:
    """A conversation with the unit vectors of its turns [n, d] and questions [q, d]."""

    talk: Conversation
    turns: F32
    questions: F32

    @property
    def texts(self) -> list[str]:
        """The turns as they are embedded: speaker and words."""
        return [spoken(turn.speaker, turn.text) for turn in self.talk.turns]


def embed(texts: Sequence[str]) -> F32:
    """Unit vectors [n, d] of `texts`; the first time by the model (some 150 texts a second and core), then from FOLDER."""
    digest = hashlib.sha256("\x00".join([MODEL, *texts]).encode()).hexdigest()
    path = FOLDER / f"{digest[:24]}.npy"
    if not path.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{id(texts)}.part.npy")
        np.save(part, _model_vectors(texts))
        part.replace(path)
    vectors: F32 = np.load(path)
    return vectors


def _model_vectors(texts: Sequence[str]) -> F32:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(resolve(MODEL)[1], device="cpu")
    vectors = model.encode(list(texts), batch_size=64, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(vectors, np.float32)


@lru_cache(1)
def locomo() -> tuple[Embedded, ...]:
    """Every conversation of the LoCoMo file, embedded."""
    found = []
    for talk in load():
        turns = embed([spoken(turn.speaker, turn.text) for turn in talk.turns])
        found.append(Embedded(talk, turns, embed([question.text for question in talk.questions])))
    return tuple(found)
