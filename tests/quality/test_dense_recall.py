"""Plain dense search through the API finds what an offline reference finds, and the suite's own ranking finds more."""

from __future__ import annotations

import pytest

from ndml.client import SearchMode
from ndml.testing import Suite
from tests.quality.dense_recall import offline, through_api
from tests.quality.locomo import DATA, load, recall_at


@pytest.mark.quality
@pytest.mark.skipif(not DATA.is_file(), reason=f"{DATA} is not there: LoCoMo is evaluation data and not part of the repository")
def test_dense_recall_equals_offline_reference(suite: Suite) -> None:
    conversation = load()[0]
    dense, ours = through_api(suite.grpc_address, conversation, "locomo-test", (SearchMode.DENSE, SearchMode.FULL))
    theirs = offline(conversation)
    for k in (5, 10, 20):
        assert abs(recall_at(dense, conversation.questions, k) - recall_at(theirs, conversation.questions, k)) <= 0.5
        assert recall_at(ours, conversation.questions, k) > recall_at(dense, conversation.questions, k)
    assert recall_at(dense, conversation.questions, 10) > 30
    assert recall_at(ours, conversation.questions, 10) > 85, "89.1 when it was written"
