"""Evidence recall through the public API: plain dense search beside sentence-transformers offline, and the suite's own ranking.

python -m tests.quality.dense_recall [--conversations N]        # starts its own suite; `make recall`
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ndml.client import NdmlClient, NewMemory, Query, RankingWeights, SearchMode
from ndml.language.sentences import spoken
from ndml.testing import Suite, SuiteOptions
from services.llm.model_files import resolve
from tests.quality.locomo import DATA, Conversation, load, recall_at

CUTS = (5, 10, 20)


# A chunk is hundreds of texts to embed: seconds of a free core, more of a shared one.
_CHUNK_S = 120.0

DENSE = RankingWeights(salience=0.0, strength=0.0)


def through_api(address: str, conversation: Conversation, user: str, modes: Sequence[SearchMode]) -> list[list[list[int]]]:
    """For each mode (dense: by the cosine alone): positions of the turns that SearchMemories returns for each question, best first."""
    with NdmlClient(address, user=user, timeout_s=_CHUNK_S) as client:
        memories = [NewMemory(t.text, speaker=t.speaker, said_at=t.said_at, session=t.session) for t in conversation.turns]
        at = {added.trace_id: i for i, added in enumerate(client.add_many(memories))}
        found = []
        for mode in modes:
            results = client.search_many(
                [Query(q.text, k=max(CUTS), mode=mode, weights=DENSE if mode is SearchMode.DENSE else None) for q in conversation.questions]
            )
            found.append([[at[hit.memory.trace_id] for hit in result] for result in results])
        return found


def offline(conversation: Conversation) -> list[list[int]]:
    """The same ranking by sentence-transformers and numpy, exact."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(resolve("all-MiniLM-L6-v2")[1], device="cpu")

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:  # [n, d]
        vectors: NDArray[np.float32] = model.encode(list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        return vectors

    turns = encode([spoken(t.speaker, t.text) for t in conversation.turns])  # [n, d]
    scores = encode([q.text for q in conversation.questions]) @ turns.T  # [q, n]
    return [list(map(int, row[: max(CUTS)])) for row in np.argsort(-scores, axis=1, kind="stable")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=1, help="how many of the file's conversations")
    options = parser.parse_args()
    if not DATA.is_file():
        raise SystemExit(f"{DATA} is not there: set NDML_LOCOMO to a LoCoMo file (it is not part of this repository)")
    chosen = load()[: options.conversations]
    table = Table("conversation", "questions", *(f"R@{k} dense / offline / ours" for k in CUTS), title="Evidence recall, percent")
    with tempfile.TemporaryDirectory() as folder, Suite(SuiteOptions(data_dir=Path(folder))) as suite:
        for conversation in chosen:
            dense, ours = through_api(
                suite.grpc_address, conversation, f"locomo-{conversation.sample_id}", (SearchMode.DENSE, SearchMode.FULL)
            )
            ways = (dense, offline(conversation), ours)
            cells = [" / ".join(f"{recall_at(way, conversation.questions, k):.2f}" for way in ways) for k in CUTS]
            table.add_row(conversation.sample_id, str(len(conversation.questions)), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
