"""What an owner's rows hold beside their sentence vectors: words, word vectors, what stands around them. One object, kept in step with the
partition's columns, row by row. Derived from the store; belongs to the engine's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ndml.language.sentences import spoken
from ndml.language.subjects import about_another, is_assistant
from services.memory_node.columns import Columns, order_of
from services.memory_node.signals.arrays import grown
from services.memory_node.signals.late import WordPool
from services.memory_node.signals.lexical import LexicalOptions, Postings
from services.memory_node.signals.sessions import Sessions
from services.memory_node.vectors import word_bytes

I64 = NDArray[np.int64]

_ASKS, _ASSISTANT, _OF_ANOTHER = 1, 2, 4
_QUESTION_MARKS = ("?", "？", "؟", "¿")
_USUAL_WORDS, _USUAL_TERMS_BYTES = 16, 140


def evidence_bytes(dimension: int) -> int:
    """Bytes that a usual turn, of some sixteen content words, takes here."""
    return _USUAL_WORDS * word_bytes(dimension) + _USUAL_TERMS_BYTES


class Said(NamedTuple):
    """Of one row: who said what; its word vectors as Embedding.word_vectors has them."""

    speaker: str
    text: str
    words: bytes


class Evidence:
    """Postings, word vectors, sessions and form of an owner's rows."""

    def __init__(self, dimension: int, lexical: LexicalOptions | None = None) -> None:
        self.postings = Postings(lexical)
        self.words = WordPool(dimension)
        self.sessions = Sessions()
        self._form: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._rows = 0

    @property
    def nbytes(self) -> int:
        return self.postings.nbytes + self.words.nbytes + self.sessions.nbytes + self._form.nbytes

    def append(self, said: Sequence[Said], columns: Columns) -> None:
        """Rows that `columns` has at its end already."""
        self.postings.append([spoken(each.speaker, each.text) for each in said])
        self.words.append([each.words for each in said])
        self.sessions.append(columns)
        end = self._rows + len(said)
        self._form = grown(self._form, self._rows, end)
        self._form[self._rows : end] = [_form(each) for each in said]
        self._rows = end

    def remove(self, rows: I64, columns: Columns) -> None:
        """Rows that end."""
        self.postings.remove(rows)
        self.sessions.remove(rows, columns)

    def renumber(self, new_rows: I64) -> None:
        """Row i becomes new_rows[i]; dropped where that is negative."""
        self.postings.renumber(new_rows)
        self.words.renumber(new_rows)
        self.sessions.renumber()
        self._form = self._form[order_of(new_rows)]
        self._rows = len(self._form)

    def asks(self, rows: I64) -> NDArray[np.bool_]:
        """[n] True where the row holds a question."""
        asks: NDArray[np.bool_] = (self._form[rows] & _ASKS) > 0
        return asks

    def assistant(self, rows: I64) -> NDArray[np.bool_]:
        """[n] True where no person said it."""
        assistant: NDArray[np.bool_] = (self._form[rows] & _ASSISTANT) > 0
        return assistant

    def of_another(self, rows: I64) -> NDArray[np.bool_]:
        """[n] True where the row tells of somebody who is not its speaker."""
        another: NDArray[np.bool_] = (self._form[rows] & _OF_ANOTHER) > 0
        return another


def _form(said: Said) -> int:
    asks = _ASKS if any(mark in said.text for mark in _QUESTION_MARKS) else 0
    assistant = _ASSISTANT if is_assistant(said.speaker) else 0
    return asks | assistant | (_OF_ANOTHER if about_another(said.text) else 0)
