"""Tokens of questions and answers, and where an answer stands in memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid
from ndml.training import base
from ndml.training.data import Ask
from ndml.training.examples import IGNORED, Spoken, Writer, pieces, rows, standing
from tests.unit.fusion.tiny import tokenizer

_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '' }}{% endif %}"


def test_the_answer_is_what_the_template_makes_of_it() -> None:
    fast = tokenizer("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}" + _PROMPT)
    spoken = Writer(fast, 200, 50).spoken(Ask("Where?", "Oslo"))
    assert fast.decode(spoken.prompt) == "<|im_start|>user\nWhere?<|im_end|><|im_start|>assistant\n"
    assert fast.decode(spoken.answer) == "Oslo<|im_end|>"
    plain = Writer(tokenizer(None), 200, 50).spoken(Ask("Where?", "Oslo"))
    assert fast.decode(plain.prompt) == "user: Where?\nassistant:" and fast.decode(plain.answer) == " Oslo<|end|>"
    words = base.tokenizer()
    assert words.decode(Writer(words, 9, 9).spoken(Ask("ba be bi city ->", "amberton")).answer) == "amberton"


def test_what_would_be_cut_is_refused_with_its_line() -> None:
    fast = tokenizer()
    for writer, said in (
        (Writer(fast, 10, 50), "line 7: the prompt has"),
        (Writer(fast, 100, 5), "line 7: the answer has"),
        (Writer(fast, 200, 50, context=30), "of the model's 30"),
    ):
        with pytest.raises(FieldInvalid, match=said):
            writer.spoken(Ask("Where is it?", "under the bed"), 7)


def test_rows_predict_answers_and_nothing_else() -> None:
    batch = rows([Spoken((1, 2, 3), (4, 5)), Spoken((6,), (7,))], base.torch.device("cpu"))
    assert batch.ids.tolist() == [[1, 2, 3, 4], [6, 0, 0, 0]]
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 4, 5], [7, IGNORED, IGNORED, IGNORED]]


@pytest.mark.parametrize(
    ("answer", "entries", "wanted"),
    [
        ("b c", [(0, "a b c")], [(1,), (2,)]),
        ("b c", [(0, "c b"), (2, "a b c")], [(1, 3), (4,)]),  # the second "c" follows "b": the first does not
        ("x", [(0, "a b")], [()]),
        ("a x b", [(0, "a b")], [(0,), (), (1,)]),
        ("a b", [(0, "a"), (1, "b")], [(0,), (1,)]),  # no run goes from one entry into the next
        ("a b", [(0, "z a"), (2, "b"), (9, "a b")], [(1, 9), (10,)]),
    ],
)
def test_where_an_answer_stands(answer: str, entries: list[tuple[int, str]], wanted: list[tuple[int, ...]]) -> None:
    assert standing(answer.split(), [(first, said.split()) for first, said in entries]) == wanted


@settings(max_examples=60, deadline=None)
@given(st.text("ab", max_size=7), st.lists(st.text("ab", max_size=6), max_size=4))
def test_every_place_says_the_piece_and_ends_the_longest_run(answer: str, texts: list[str]) -> None:
    entries, first = [], 0
    for text in texts:
        entries.append((first, list(text)))
        first += len(text)
    at = {begin + i: (text, i) for (begin, _), text in zip(entries, texts, strict=True) for i in range(len(text))}

    def run(end: int, place: int) -> int:
        text, i = at[place]
        return max((n for n in range(1, min(end + 1, i + 1) + 1) if answer[end + 1 - n : end + 1] == text[i + 1 - n : i + 1]), default=0)

    for end, places in enumerate(standing(list(answer), entries)):
        runs = {place: run(end, place) for place in at}
        longest = max(runs.values(), default=0)
        assert set(places) == {place for place, length in runs.items() if length == longest > 0}


def test_a_word_is_itself_at_the_beginning_and_inside() -> None:
    fast = tokenizer()
    inside, alone = (pieces(fast, fast(text, add_special_tokens=False)["input_ids"]) for text in (" Miso", "Miso"))
    assert [p for p in inside if p] == alone
