"""Tokenizer of the model: byte-level BPE, so that any text can be spelled, with its chat template. Imports tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, START, MEMORY, USER, ASSISTANT, END = SPECIALS = ("<|pad|>", "<|start|>", "<|memory|>", "<|user|>", "<|assistant|>", "<|end|>")
_BLANK = "\u0120"
"""As byte-level BPE writes the blank before a word."""
VOCABULARY = 2048
"""Enough for every word of the phrasings to be one token; names are spelled in two to four."""

# A citation and a date are pieces of their own, and digits go two at a time: copying a number is a few steps whatever it is.
_PIECES = (
    r"\[\d{1,3}\]| (?=\[\d{1,3}\])| ?\(?(?:19|20)\d\d(?=-\d\d-\d\d)|-\d\d(?!\d)|'(?:s|m|re|ve|d|ll|t)(?!\p{L})"
    r"| ?\p{L}+| ?\d{1,2}|\n| ?[^\s\p{L}\d]|\s"
)

TEMPLATE = """\
{{- '<|start|>' -}}
{%- for message in messages -%}
  {%- set content = message['content'] | replace('<|', '< |') -%}
  {%- if message['role'] == 'system' -%}
    {%- if '<memory>' in content -%}
      {{- '<|memory|>' + content.split('<memory>')[1].split('</memory>')[0] -}}
    {%- endif -%}
  {%- elif message['role'] == 'user' -%}
    {{- '<|user|> ' + (content | trim) + '<|end|>' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- '<|assistant|> ' + (content | trim) + '<|end|>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """A tokenizer of exactly the vocabulary's size, where the texts are varied enough for it."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    # Words carry the blank before them; the one before an answer's first word is not part of the answer.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def word_pieces(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """The vocabulary's pieces of letters, sorted: those that begin a word, and those that go on with one."""
    names = sorted(tokenizer.get_vocab())
    begins = [name[1:] for name in names if name[0] == _BLANK and name[1:].isascii() and name[1:].isalpha()]
    return begins, [name for name in names if name.isascii() and name.isalpha() and name.islower()]


def special(tokenizer: Tokenizer, token: str) -> int:
    """Number of a control token. Raises ValueError where the tokenizer is not one of ours."""
    number: int | None = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no {token}: train it with `train_tokenizer`")
    return number


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The files that `AutoTokenizer.from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [MEMORY, USER, ASSISTANT],
        "model_max_length": 2048,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n")
