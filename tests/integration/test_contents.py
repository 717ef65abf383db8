"""Images on a real suite with a small joint encoder: found by words and by image, over gRPC and REST, from add to delete."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from ndml.client import Content as GivenContent
from ndml.client import NdmlClient
from ndml.testing import Suite, SuiteOptions
from ndml.v1 import memory_pb2, memory_pb2_grpc
from ndml.v1.types_pb2 import Content, Embedding, Scope
from tests.unit.llm.tiny_joint import COLOURS, picture, tiny_joint

ANN = Scope(user="ann")
SPACE = "colours"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> SuiteOptions:
    folder: Path = tiny_joint(tmp_path_factory.mktemp("joint"))
    settings = {"llm": {"JOINT__MODELS": json.dumps({SPACE: str(folder)})}}
    return SuiteOptions(data_dir=tmp_path_factory.mktemp("suite"), gateways=1, memory_nodes=1, consensus_nodes=1, settings=settings)


@pytest.fixture(scope="module")
def suite(options: SuiteOptions) -> Iterator[Suite]:
    with Suite(options) as running:
        memory = stub(running)
        for colour in COLOURS:
            # The caption of one image alone says what it shows.
            content = Content(media_type="image/png", data=picture(colour, 50), text="a ferry" if colour == "blue" else "")
            add(memory, content, colour)
        words = memory_pb2.NewMemory(scope=ANN, text="The harbour was closed on Sunday.")
        memory.AddMemory(memory_pb2.AddMemoryRequest(memory=words))
        yield running


def stub(suite: Suite) -> memory_pb2_grpc.MemoryServiceStub:
    return memory_pb2_grpc.MemoryServiceStub(grpc.insecure_channel(suite.grpc_address))


def add(memory: memory_pb2_grpc.MemoryServiceStub, content: Content, colour: str) -> str:
    new = memory_pb2.NewMemory(scope=ANN, contents=[content], metadata={"colour": colour})
    return memory.AddMemory(memory_pb2.AddMemoryRequest(memory=new)).trace_id


def colours(response: memory_pb2.SearchMemoriesResponse) -> list[str]:
    return [hit.trace.metadata["colour"] for hit in response.hits]


def search(suite: Suite, **fields: object) -> memory_pb2.SearchMemoriesResponse:
    return stub(suite).SearchMemories(memory_pb2.SearchMemoriesRequest(scope=ANN, **fields))  # type: ignore[arg-type]


def test_images_are_found_by_words_that_nobody_wrote_beside_them_and_by_images(suite: Suite) -> None:
    for colour in COLOURS:
        assert colours(search(suite, text=f"the {colour} boat", space=SPACE, k=1)) == [colour]
        assert colours(search(suite, content=Content(media_type="image/png", data=picture(colour, 77)), k=1)) == [colour]
    assert colours(search(suite, text="ferry", k=1)) == ["blue"], "a caption is evidence"
    assert search(suite, text="When was the harbour closed?", k=1).hits[0].trace.text.startswith("The harbour")


def test_the_client_and_the_command_line_look_for_images_too(suite: Suite, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    shot.write_bytes(picture("red", 21))
    with NdmlClient(suite.grpc_address, user="cli") as client:
        command = [sys.executable, "-m", "ndml.cli", "--address", suite.grpc_address, "--user", "cli"]
        trace_id = subprocess.run([*command, "add", "--content", str(shot)], check=True, capture_output=True, text=True).stdout.strip()
        client.add("a boat", contents=[GivenContent("image/png", picture("green", 22))])
        assert client.get(trace_id, include_data=True).contents[0].data == shot.read_bytes()
        assert client.get(trace_id).contents[0].data_bytes == shot.stat().st_size
        by_image = client.search(content=GivenContent("image/png", picture("red", 23)), k=1, include_data=True)
        by_words = client.search("the red boat", space=SPACE, k=1)
        assert [hit.memory.trace_id for result in (by_image, by_words) for hit in result] == [trace_id] * 2
        assert by_image[0].memory.contents[0].data == shot.read_bytes() and not by_words[0].memory.contents[0].data
    found = subprocess.run(
        [*command, "-o", "json", "search", "--content", str(shot), "-k", "1"], check=True, capture_output=True, text=True
    )
    assert trace_id in found.stdout


def test_the_json_door_takes_and_gives_bytes_as_base64(suite: Suite) -> None:
    image = {"media_type": "image/png", "data": base64.b64encode(picture("green", 5)).decode()}
    with httpx.Client(base_url=suite.rest_url, timeout=60) as rest:
        added = rest.post("/v1/memories", json={"memory": {"scope": {"user": "rest"}, "contents": [image]}})
        assert added.status_code == 200, added.text
        body = {"scope": {"user": "rest"}, "content": image, "k": 1, "include_data": True}
        found = rest.post("/v1/memories:search", json=body).json()["hits"][0]
        assert found["trace"]["contents"][0]["data"] == image["data"]
        broken = {"scope": {"user": "rest"}, "content": {"media_type": "image/png", "data": "AAAA"}}
        refused = rest.post("/v1/memories:search", json=broken)
        assert refused.status_code == 400 and "content.data" in refused.text, refused.text


def test_vectors_of_the_caller_go_through_export_import_and_restart(suite: Suite) -> None:
    memory = stub(suite)
    vector = np.array([0, 3, 4], "<f4").tobytes()
    sound = Content(media_type="audio/wav", data=b"RIFF", embeddings=[Embedding(model="own", vector=vector)])
    trace_id = add(memory, sound, "sound")
    wanted = memory_pb2.ExportMemoriesRequest(scope=ANN, include_embedding=True)
    exported = [trace for part in memory.ExportMemories(wanted) for trace in part.traces]
    [kept] = [trace for trace in exported if trace.trace_id == trace_id]
    assert kept.contents[0].data == b"RIFF"
    assert np.allclose(np.frombuffer(kept.contents[0].embeddings[0].vector, "<f4"), [0, 0.6, 0.8])
    for trace in exported:
        trace.scope.user = "moved"
    imported = memory.ImportMemories(iter([memory_pb2.ImportMemoriesRequest(traces=exported)]))
    assert (imported.imported, imported.failed) == (len(exported), 0)
    suite.restart("memory-node-1")
    for user in ("ann", "moved"):
        query = memory_pb2.SearchMemoriesRequest(scope=Scope(user=user), space="own", embedding=Embedding(vector=vector))
        assert colours(memory.SearchMemories(query)) == ["sound"]
        query = memory_pb2.SearchMemoriesRequest(scope=Scope(user=user), space=SPACE, text="the yellow boat", k=1)
        assert colours(memory.SearchMemories(query)) == ["yellow"]
    for part in memory.ForgetScope(memory_pb2.ForgetScopeRequest(scope=Scope(user="moved"))):
        last = part
    assert last.done and last.erased == len(exported)
    query = memory_pb2.SearchMemoriesRequest(scope=Scope(user="moved"), space=SPACE, text="the yellow boat")
    assert colours(memory.SearchMemories(query)) == []
