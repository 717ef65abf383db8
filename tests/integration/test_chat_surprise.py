"""How far a statement surprises a real chat model reaches the salience under which it is stored; models that give no scores give none."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from ndml.errors import ScoresUnsupported
from ndml.internal.v1 import llm_pb2, llm_pb2_grpc
from ndml.testing import Suite, SuiteOptions
from ndml.wire import rpc_error_to_ndml
from services.gateway.surprise import bounded
from tests.integration.test_chat import BOUND_S, client, said, until
from tests.unit.llm.tiny_models import CHATML, save_causal

FACT = "My sister is called Maja."


def stored(directory: Path, model: str, weight: float) -> tuple[float, float | None]:
    """Salience of FACT after a chat that taught it, and how much it surprises the model; None: the model does not say."""
    llm, gateway = {"CHAT__MODEL": model}, {"LEARNING__SURPRISE_WEIGHT": str(weight), "LEARNING__SCORE_TIMEOUT_S": str(BOUND_S)}
    # Learned in the background, where nobody's deadline leaves the score too little time.
    options = SuiteOptions(data_dir=directory, memory_nodes=1, consensus_nodes=1, settings={"llm": llm, "gateway": gateway})
    with Suite(options) as suite, client(suite, "ann") as memory:
        said(memory, FACT, recall_k=0, max_new_tokens=2)
        [trace] = until(memory, 1)
        assert trace.text == FACT
        with grpc.insecure_channel(suite.layout.of_role("llm")[0].address) as channel:
            try:
                scored = llm_pb2_grpc.LlmServiceStub(channel).Score(llm_pb2.ScoreRequest(texts=[FACT]), timeout=BOUND_S)
            except grpc.RpcError as error:
                assert isinstance(rpc_error_to_ndml(error), ScoresUnsupported), error
                return trace.salience, None
        return trace.salience, bounded(scored.scores[0].surprise_nats)


def test_what_surprises_the_model_is_stored_as_more_salient(tmp_path: Path) -> None:
    model = str(save_causal(tmp_path / "tiny-llama", "llama", CHATML, context=2048))
    plain, surprise = stored(tmp_path / "without", model, 0.0)
    raised, same = stored(tmp_path / "with", model, 1.0)
    assert surprise is not None and surprise == same and 0.1 < surprise < 1
    assert raised > plain + 0.05
    assert raised == pytest.approx(1 - (1 - plain) * (1 - surprise), abs=1e-3)


def test_the_model_in_the_box_gives_no_surprise_and_salience_is_the_rules(tmp_path: Path) -> None:
    assert stored(tmp_path / "without", "ndml-tiny", 0.0) == (stored(tmp_path / "with", "ndml-tiny", 1.0)[0], None)
