"""What traces hold beside their text: found in the space of its vectors, and gone from all spaces with its trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndml.errors import CapacityReached, FieldInvalid
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.memory_pb2 import SearchMemoriesResponse
from ndml.v1.types_pb2 import Content, Embedding, Filter, MemoryTrace
from services.memory_node.records import timestamp
from services.memory_node.spaces import MOST_SPACES, Spaces
from tests.unit.memory_node import node_harness as harness

IMAGE, SOUND = "clip", "clap"


def at(degrees: float) -> bytes:
    """A vector of two components; its length is not 1, as nobody said that it were."""
    return (3 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])).astype("<f4").tobytes()


def image(degrees: float, caption: str = "", data: bytes = b"pixels", **others: float) -> Content:
    """With a vector in IMAGE, and in other spaces."""
    embeddings = [Embedding(vector=at(angle), model=model) for model, angle in {IMAGE: degrees, **others}.items()]
    return Content(media_type="image/png", data=data, text=caption, embeddings=embeddings)


def shot(name: str, *contents: Content, **fields: Any) -> MemoryTrace:
    """A trace without a word of its own."""
    made = harness.trace(name, name, contents=contents, **fields)
    made.metadata["name"] = name
    made.ClearField("text")
    return made


async def seen(node: harness.Driver, degrees: float, k: int = 10, space: str = IMAGE, **fields: Any) -> SearchMemoriesResponse:
    return await node.search("ann", at(degrees), k, space=space, dimension=2, **fields)


async def names(node: harness.Driver, degrees: float, k: int = 10, **fields: Any) -> list[str]:
    return [hit.trace.metadata["name"] for hit in (await seen(node, degrees, k, **fields)).hits]


async def delete(node: harness.Driver, name: str) -> None:
    await node.one(harness.operation("ann", delete=pb.DeleteAction(trace_id=harness.trace_id(name))))


async def test_a_trace_is_found_in_each_space_of_its_contents_by_the_nearest_of_them(tmp_path: Path) -> None:
    config = harness.settings(tmp_path)
    async with harness.running(config) as node:
        await node.put("ann", harness.trace("words alone"))
        await node.put("ann", shot("east", image(0, **{SOUND: 90})))
        await node.put("ann", shot("north", image(90)), shot("both", image(170), image(100)))
        await node.put("bob", shot("bob's", image(80)))
        assert await names(node, 85) == ["north", "both", "east"], "each once, and nobody else's"
        assert await names(node, 85, 1) == ["north"]
        assert await names(node, 0, space=SOUND) == ["east"]
        assert await names(node, 0, space="unheard of") == []
        both = (await seen(node, 100, explain=True)).hits[0]
        assert [(each.signal, round(each.share, 5)) for each in both.signals] == [(IMAGE, 1.0)]
        assert (round(both.score, 5), round(both.similarity, 5)) == (1.0, 1.0)
    async with harness.running(config) as node:
        assert await names(node, 85) == ["north", "both", "east"], "after a restart"


async def test_a_space_is_narrowed_as_any_search_is(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", shot("east", image(0), agent="a1"), shot("north", image(90), session="s1", kind="TRACE_KIND_SEMANTIC"))
        await node.put("ann", shot("past", image(45), expires_at=timestamp(1_000_000)))
        assert await names(node, 45) in (["east", "north"], ["north", "east"]), "what has expired is not found"
        assert await names(node, 45, agent="a1") == ["east"]
        assert await names(node, 45, session="s1") == ["north"]
        assert await names(node, 0, filter=Filter(kinds=["TRACE_KIND_SEMANTIC"])) == ["north"]
        assert await names(node, 0, min_score=0.5) == ["east"]


async def test_what_is_deleted_or_changed_leaves_every_space_at_once(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path, index={"tombstone_share": 0.3})) as node:
        await node.put("ann", *(shot(f"{angle}", image(angle, **{SOUND: angle})) for angle in range(0, 90, 10)))
        for gone in ("0", "20", "40", "60"):  # past the share of dead rows: the partition is compacted
            await delete(node, gone)
        left = ["10", "30", "50", "70", "80"]
        assert await names(node, 0) == left and await names(node, 0, space=SOUND) == left
        change = MemoryTrace(trace_id=harness.trace_id("80"), contents=[image(5)], embedding=Embedding(vector=harness.vector("80")))
        await node.one(harness.operation("ann", update={"trace": change, "fields": ["contents", "embedding"]}))
        assert await names(node, 0) == ["80", "10", "30", "50", "70"]
        assert await names(node, 0, space=SOUND) == left[:-1]
        for gone in ("10", "30", "50", "70", "80"):
            await delete(node, gone)
        assert await names(node, 0) == []


async def test_data_is_left_out_of_answers_unless_they_are_asked_for_it(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path, engine={"result_bytes": 1 << 16})) as node:
        big = bytes(100_000)
        await node.put("ann", shot("east", image(0, "an apple", big), agent="a1"))
        for fields in ({}, {"explain": True}, {"include_strength": True}, {"neighbours": 1}):
            [content] = (await seen(node, 0, **fields)).hits[0].trace.contents
            assert (content.data, content.data_bytes, content.text, list(content.embeddings)) == (b"", len(big), "an apple", [])
        with pytest.raises(FieldInvalid, match="smaller k"):
            await seen(node, 0, include_data=True)

        async def read(**fields: Any) -> Content:
            action = pb.GetAction(trace_id=harness.trace_id("east"), **fields)
            [content] = (await node.one(harness.operation("ann", get=action))).trace.trace.contents
            return content

        assert (await read()).data == b"" and (await read(include_data=True)).data == big
        [kept] = (await read(include_embedding=True)).embeddings
        assert (kept.model, kept.vector) == (IMAGE, at(0))
        for page in (await node.page("ann"), await node.page("ann", agent="a1")):
            assert page.traces[0].contents[0].data_bytes == len(big)


async def test_small_data_comes_with_a_hit_that_is_asked_for_it(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", shot("east", image(0)))
        [hit] = (await seen(node, 0, include_data=True)).hits
        assert hit.trace.contents[0].data == b"pixels" and not hit.trace.contents[0].embeddings
        [hit] = (await seen(node, 0, include_data=True, include_embedding=True)).hits
        assert hit.trace.contents[0].embeddings[0].model == IMAGE


async def test_a_caption_is_evidence_and_no_caption_is_no_reason_to_be_lost(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", shot("captioned", image(0, "a walrus on the ice")), shot("mute", image(90)), harness.trace("other"))
        text = pb.QueryText(text="walrus")
        found = await node.search("ann", "unlike any", 3, texts=[text], explain=True)
        assert found.hits[0].trace.metadata["name"] == "captioned"
        assert "lexical" in {each.signal for each in found.hits[0].signals}
        assert {trace.metadata["name"] for trace in await node.every("ann")} == {"captioned", "mute", ""}


async def test_vectors_of_another_size_and_too_many_spaces_are_refused(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", shot("east", image(0)))
        three = Content(media_type="image/png", embeddings=[Embedding(vector=bytes(range(12)), model=IMAGE)])
        with pytest.raises(FieldInvalid, match="3 components, the owner's others of 'clip' have 2") as refused:
            await node.put("ann", shot("odd", three))
        assert refused.value.violations[0].field == "contents.embeddings.vector"
        with pytest.raises(FieldInvalid, match="have 2"):
            await node.search("ann", bytes(range(12)), space=IMAGE, dimension=3)
        with pytest.raises(FieldInvalid, match="dimension"):
            await node.search("ann", at(0), space=IMAGE)
        await node.put("bob", shot("odd", three))
        for number in range(MOST_SPACES - 1):
            await node.put("ann", shot(f"of {number}", image(0, **{f"model {number}": 0})))
        with pytest.raises(FieldInvalid, match=f"vectors of {MOST_SPACES} models"):
            await node.put("ann", shot("one more", image(0, more=0)))
        assert await names(node, 0, 1) != [], "and the others are as they were"


def test_vectors_that_do_not_fit_into_memory_are_refused() -> None:
    with pytest.raises(CapacityReached, match="index_memory_limit"):
        Spaces().check([shot("east", image(0))], 4)
    Spaces().check([shot("east", image(0))], 8)


async def test_a_request_is_the_same_whatever_the_last_bits_of_its_vectors(tmp_path: Path) -> None:
    async with harness.running(harness.settings(tmp_path)) as node:
        await node.put("ann", shot("east", image(0)))
        again = await node.put("ann", shot("east", image(0.001)))
        assert again.outcomes[0].existed and not again.outcomes[0].HasField("error")


def test_rows_keep_their_vectors_under_new_numbers() -> None:
    spaces = Spaces()
    spaces.append(0, [shot("a", image(0)), harness.trace("words"), shot("b", image(40), image(90))])
    spaces.append(3, [shot("broken", Content(media_type="a/b", embeddings=[Embedding(model=IMAGE, vector=bytes(8))]))])
    query = np.frombuffer(at(90), "<f4").reshape(1, 2) / 3
    assert spaces.search(IMAGE, query, 9, 4, None)[1].tolist() == [[2, 0, -1, -1]]
    spaces.renumber(np.array([1, -1, 0, 2]))
    cosines, rows = spaces.search(IMAGE, query, 2, 3, np.array([True, True, True]))
    assert rows.tolist() == [[0, 1]] and np.allclose(cosines, [[1, 0]], atol=1e-6)
    assert spaces.search(IMAGE, query, 2, 3, np.array([False, True, True]))[1].tolist() == [[1, -1]]
    assert spaces.nbytes > 0 and np.allclose(spaces.reconstruct(IMAGE, np.array([0, 2]), 2)[1], 0)
    spaces.remove(np.array([0, 1]))
    assert spaces.search(IMAGE, query, 2, 3, None)[1].tolist() == [[-1, -1]]
