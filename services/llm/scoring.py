"""How much texts surprise a local model: mean negative log-probability of their tokens, after a context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from torch.nn.utils.rnn import pad_sequence

from services.llm.batching import pack
from services.llm.local_model import LocalModel
from services.llm.ports import Score

_LOGITS = 1 << 25  # of one pass: 128 MiB of float32, whatever the vocabulary
_PASS_TOKENS = 64  # what a pass costs beside its tokens, in tokens


@torch.inference_mode()
def score(local: LocalModel, texts: Sequence[str], context: str, most_tokens: int) -> list[Score]:
    """A score for each text, in order. What is read together is `most_tokens` at most: texts are cut behind, the context in front.

    Where nothing stands before a text, its first token counts only if the model has a token that begins texts.
    """
    before, own = local.ids(context) if context else [], [local.ids(text)[: most_tokens - 1] for text in texts]
    rows = [_Row(_head(before, most_tokens - len(ids), local.begin), ids) for ids in own]
    lengths = [len(row.ids) for row in rows]
    scores: dict[int, Score] = {}
    for batch in pack(lengths, max(_LOGITS // local.fusion.family.vocab, 1), _PASS_TOKENS):
        for place, found in zip(batch, _scores(local, [rows[place] for place in batch]), strict=True):
            scores[place] = found
    return [scores[place] for place in range(len(texts))]


class _Row:
    """Tokens to read; those from `start` on count."""

    def __init__(self, head: list[int], own: list[int]) -> None:
        self.ids = head + own
        self.start = max(len(head), 1)


def _head(before: list[int], room: int, begin: int | None) -> list[int]:
    """What stands before a text, its end kept: the token that begins texts first, where there is one."""
    first = [] if begin is None else [begin]
    room -= len(first)
    return first + (before[-room:] if room > 0 else [])


def _scores(local: LocalModel, rows: Sequence[_Row]) -> list[Score]:
    """One pass. Padding stands on the right, where a causal model does not look, so it takes no mask and no family is in its way."""
    device = local.fusion.decoder.device
    ids = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True).to(device)  # (B, T)
    if ids.shape[1] < 2:
        return [Score(0.0, 0) for _ in rows]
    logits: Tensor = local.network(input_ids=ids, use_cache=False).logits  # (B, T, V)
    found = []
    for place, row in enumerate(rows):
        counted = range(row.start, len(row.ids))
        if not counted:
            found.append(Score(0.0, 0))
            continue
        said = log_softmax(logits[place, row.start - 1 : len(row.ids) - 1].float(), dim=-1)  # (n, V)
        chosen = said.gather(1, ids[place, row.start : len(row.ids), None])
        found.append(Score(float(-chosen.mean()), len(counted)))
    return found
