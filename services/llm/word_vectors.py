"""Token vectors to what late interaction compares: one vector of signed bytes for each content word of a text.

Which word a vector belongs to is not written: whoever reads them takes `content_words` of the same text, as here. A vector is the mean of
the token vectors of the word's pieces, its largest component 127. A word that no token covers has a zero vector; words that the model did
not read to their end have none, so there may be fewer vectors than words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ndml.language.terms import content_words
from services.llm.ports import Spans

MOST_WORDS = 128
"""Words of one text that get a vector."""

_LARGEST = 127.0


def compress(hidden: torch.Tensor, spans: Sequence[Spans | None]) -> list[bytes | None]:
    """Word vectors (words, D) of each text of a batch, as bytes: its token vectors are hidden[i] (B, T, D), its words spans[i].

    None where spans[i] is None. A mean counts by its direction alone, which is the sum's.
    """
    wanted = [(i, each) for i, each in enumerate(spans) if each is not None and len(each)]
    if not wanted:
        return [None if each is None else b"" for each in spans]
    width = hidden.shape[1]
    ranges = np.concatenate([each.astype(np.int64) + i * width for i, each in wanted])  # (W, 2) into the rows of all texts
    lengths = ranges[:, 1] - ranges[:, 0]
    word = np.repeat(np.arange(len(ranges)), lengths)  # (N,) of each piece, its word
    piece = np.arange(len(word)) + np.repeat(ranges[:, 0] - (np.cumsum(lengths) - lengths), lengths)  # (N,) and its row
    rows = hidden.reshape(-1, hidden.shape[2])
    sums = rows.new_zeros(len(ranges), rows.shape[1])
    sums.index_add_(0, torch.from_numpy(word).to(hidden.device), rows[torch.from_numpy(piece).to(hidden.device)])
    scale = _LARGEST / sums.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    vectors = (sums * scale).round().to(torch.int8).cpu().numpy()  # (W, D)
    found: list[bytes | None] = [None if each is None else b"" for each in spans]
    start = 0
    for i, each in wanted:
        found[i] = vectors[start : start + len(each)].tobytes()
        start += len(each)
    return found


def word_spans(text: str, read: str, offsets: Sequence[tuple[int, int]], kept: int) -> Spans:
    """(words, 2): first token and past the last one of each content word that the model reads to its end, MOST_WORDS at most.

    read     what was tokenised: `text`, or `text.lower()`
    offsets  of each token, where it stands in `read`; special ones are empty
    kept     tokens before the cut
    """
    places = np.array([word[:2] for word in content_words(text)[:MOST_WORDS]], np.int64).reshape(-1, 2)
    if len(read) != len(text):
        places = _moved(text)[places]
    cut = next((start for start, end in offsets[kept:] if end > start), None)
    if cut is not None:
        places = places[places[:, 1] <= cut]
    where = np.array(offsets[:kept], np.int64).reshape(-1, 2)
    real = np.flatnonzero(where[:, 1] > where[:, 0])
    first = np.searchsorted(where[real, 1], places[:, 0], side="right")
    after = np.searchsorted(where[real, 0], places[:, 1], side="left")
    spans = np.zeros((len(places), 2), np.int32)
    covered = after > first
    spans[covered, 0] = real[first[covered]]
    spans[covered, 1] = real[after[covered] - 1] + 1
    return spans


def _moved(text: str) -> npt.NDArray[np.int64]:
    """Where each place of `text` is in `text.lower()`: a dotted capital I becomes two characters."""
    return np.concatenate(([0], np.cumsum([len(each.lower()) for each in text])))
