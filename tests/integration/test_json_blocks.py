"""JSON that the docs show goes where its page says: to the REST door, to an assistant's MCP client, into files that our commands read."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from mcp import Client, StdioServerParameters

from ndml.cli import records
from ndml.client import Content, NdmlClient
from ndml.testing import Suite, SuiteOptions
from tests.contract.doc_blocks import PAGES, ROOT, Block, blocks
from tests.unit.llm.tiny_joint import DIMENSION, picture, tiny_joint

SPACE = "clip"  # as the page calls it
BLOCKS = [block for page in PAGES for block in blocks(page) if block.language == "json"]


def of(page: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.page == ROOT / page]


def parsed(block: Block) -> Any:
    # An ellipsis after a comma stands for more of the same.
    return json.loads(re.sub(r",\s*…", "", block.text))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """With a joint encoder under the name that the page gives its space."""
    folder: Path = tiny_joint(tmp_path_factory.mktemp("joint"))
    settings = {"llm": {"JOINT__MODELS": json.dumps({SPACE: str(folder)})}}
    options = SuiteOptions(data_dir=tmp_path_factory.mktemp("suite"), memory_nodes=1, consensus_nodes=1, settings=settings)  # type: ignore[arg-type]
    with Suite(options) as running:
        yield running


def test_every_block_is_for_somebody_here() -> None:
    known = {"docs/recall.md", "docs/reference/rest.md", "docs/reference/mcp.md", "docs/reference/training.md"}
    assert {block.page.relative_to(ROOT).as_posix() for block in BLOCKS} == known
    told_apart = ["query" in parsed(block) for block in BLOCKS if block.page == ROOT / "docs/recall.md"]
    assert told_apart == [True, False, False, False], "one line of feedback, three searches"


@pytest.fixture(scope="module")
def red(suite: Suite) -> str:
    """Trace of the only image there is, red as the page's boat."""
    with NdmlClient(suite.grpc_address, user="ann") as ann:
        return ann.add(contents=[Content("image/png", picture("red", 50))]).trace_id


@pytest.mark.parametrize("block", [each for each in of("docs/recall.md") if "query" not in parsed(each.values[0])])
def test_a_search_by_rest_finds(block: Block, suite: Suite, red: str) -> None:
    vector = base64.b64encode(np.ones(DIMENSION, "<f4").tobytes()).decode()
    image = base64.b64encode(picture("red", 77)).decode()
    body = block.text.replace("<base64 of little-endian float32>", vector).replace("<base64>", image)
    answer = httpx.post(f"{suite.rest_url}/v1/memories:search", content=body, headers={"content-type": "application/json"}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert [hit["trace"]["trace_id"] for hit in answer.json()["hits"]] == [red]


@pytest.mark.parametrize("block", of("docs/reference/rest.md"))
def test_a_refusal_by_rest_is_the_pages(block: Block, suite: Suite) -> None:
    body = {"scope": {"user": "ann"}, "text": "boat", "k": "ten"}
    answer = httpx.post(f"{suite.rest_url}/v1/memories:search", json=body, timeout=60)
    assert answer.headers["content-type"].startswith("application/problem+json")
    told = answer.json()
    told.pop("trace_id", None)  # there where the call is traced, as the page says
    assert told == parsed(block)


@pytest.mark.parametrize("block", of("docs/reference/mcp.md"))
async def test_an_assistants_entry_starts_a_server_with_the_users_memory(block: Block, suite: Suite) -> None:
    [entry] = parsed(block)["mcpServers"].values()
    assert entry["command"] == "ndml" and entry["env"]["NDML_USER"] == "ann"
    environment = {**entry["env"], "NDML_ADDRESS": suite.grpc_address}
    assert environment.keys() == entry["env"].keys()
    server = StdioServerParameters(command=sys.executable, args=["-m", "ndml.cli", *entry["args"]], env=environment, cwd=ROOT)
    with NdmlClient(suite.grpc_address, user="ann") as ann:
        trace_id = ann.add("The ladder stands behind the shed.").trace_id
    async with Client(server, read_timeout_seconds=90.0) as client:
        found = await client.call_tool("search_memories", {"query": "Where is the ladder?"})
    assert trace_id in str(found.structured_content)


@pytest.mark.parametrize("block", of("docs/reference/training.md"))
def test_an_example_is_read_as_training_data(block: Block, tmp_path: Path) -> None:
    from ndml.training.data import read  # imports torch

    file = tmp_path / "facts.jsonl"
    file.write_text(json.dumps(parsed(block)) + "\n")
    [episode] = read(file, 10)
    [asked] = episode.asks
    assert asked.used == (2,) and asked.answer == "Your cat is called Miso. [2]"
    assert [entry.text for entry in episode.readout.entries] == ["I moved to Lisbon.", "My cat is called Miso."]


@pytest.mark.parametrize("block", [each for each in of("docs/recall.md") if "query" in parsed(each.values[0])])
def test_a_line_of_feedback_is_read(block: Block) -> None:
    [judged] = records.feedback([block.text])
    assert judged.scope.user == "ann" and judged.helpful == frozenset(parsed(block)["helpful"])
    assert judged.at is not None and judged.at.isoformat() == "2026-05-01T18:30:00+00:00"
