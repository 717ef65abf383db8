"""Two copies of different node profiles: each query is answered by the copy that suits it, and by the other when that is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ndml.client import NdmlClient, Query, SearchResult
from ndml.testing import Suite, SuiteOptions
from tests.integration.test_replication_seen import eventually

CODE_LIKE, PROSE = "What is http.max_retries set to?", "Where did I leave the ladder?"


@pytest.fixture
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    options = SuiteOptions(
        data_dir=tmp_path_factory.mktemp("profiles"),
        memory_nodes=2,
        consensus_nodes=1,
        replication_factor=2,
        write_copies=2,
        profiles=["general", "code"],
    )
    with Suite(options) as running:
        yield running


def answered(result: SearchResult) -> tuple[str, str]:
    """The node profile that answered, and the best hit."""
    return result.stats.node_profile, result[0].memory.text


def test_a_query_goes_to_the_copy_that_suits_it_and_to_the_other_when_that_is_gone(mixed: Suite) -> None:
    setting, ladder = "We raised http.maxRetries to 4 last week.", "The ladder stands behind the shed."
    with NdmlClient(mixed.grpc_address, timeout_s=60) as client:
        for user in ("ann", "bo", "cy", "di"):  # whoever is the first choice of an owner
            client.add_many([setting, ladder, "Lunch was late.", "The window is open."], user=user)
            assert answered(client.search(CODE_LIKE, user=user)) == ("code", setting)
            assert answered(client.search(PROSE, user=user)) == ("general", ladder)
            assert answered(client.search(PROSE, user=user, node_profile="code")) == ("code", ladder)
            both = client.search_many([Query(CODE_LIKE, user=user), Query(PROSE, user=user)])
            assert [answered(each) for each in both] == [("code", setting), ("general", ladder)]
        mixed.kill("memory-node-2")
        found = eventually(lambda: client.search(CODE_LIKE, user="ann"), "the other copy to answer")
        assert answered(found) == ("general", setting)
        mixed.restart("memory-node-2")
        eventually(lambda: client.search(CODE_LIKE, user="ann").stats.node_profile == "code", "the copy to be asked again")
