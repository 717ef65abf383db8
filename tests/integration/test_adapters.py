"""The adapters of examples/ against a running suite, beside what they stand in for: LangGraph's store in memory, Anthropic's on disk."""

from __future__ import annotations

import importlib.util
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from anthropic.lib.tools import ToolError
from anthropic.tools.memory import BetaLocalFilesystemMemoryTool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from ndml.client import NdmlClient
from ndml.errors import FieldInvalid
from ndml.testing import Suite


def example(name: str) -> Any:
    """The module examples/NAME.py, as somebody has it who copied it."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NdmlMemoryTool = example("anthropic_memory").NdmlMemoryTool
NdmlStore = example("langgraph_store").NdmlStore


def client_of(suite: Suite) -> NdmlClient:
    """A user that nobody else is."""
    return NdmlClient(suite.grpc_address, user=f"user-{uuid.uuid4().hex[:8]}", timeout_s=30)


# LangGraph

NAMESPACES = st.sampled_from([("notes",), ("notes", "work"), ("notes", "home"), ("prefs",)])
VALUES = st.fixed_dictionaries(
    {"text": st.sampled_from(["tea", "coffee", "rain"]), "n": st.integers(0, 3)}, optional={"deep": st.just({"a": 1})}
)
PUTS = st.lists(st.builds(PutOp, NAMESPACES, st.sampled_from(["a", "b"]), st.none() | VALUES), min_size=1, max_size=8)
FILTERS = st.sampled_from([None, {"text": "tea"}, {"n": {"$gte": 2}}, {"n": {"$ne": 0, "$lt": 3}}, {"deep": {"a": 1}}])
SLOW_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def seen(store: BaseStore, prefix: tuple[str, ...], wanted: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    """What a search without words gives, in an order of its own: stores need not agree on theirs."""
    return sorted(
        (item.namespace, item.key, sorted(item.value.items(), key=str)) for item in store.search(prefix, filter=wanted, limit=100)
    )


@settings(max_examples=12, deadline=None, suppress_health_check=SLOW_FIXTURES)
@given(puts=PUTS, prefix=st.sampled_from([(), ("notes",), ("notes", "work")]), wanted=FILTERS)
def test_the_store_does_what_langgraphs_own_does(
    doors: Suite, puts: list[PutOp], prefix: tuple[str, ...], wanted: dict[str, Any] | None
) -> None:
    with client_of(doors) as client:
        ours, theirs = NdmlStore(client), InMemoryStore()
        for put in puts:
            ours.batch([put])
            theirs.batch([put])
        assert seen(ours, prefix, wanted) == seen(theirs, prefix, wanted)
        for put in puts:
            mine, other = ours.get(put.namespace, put.key), theirs.get(put.namespace, put.key)
            assert (mine and (mine.value, mine.namespace, mine.key)) == (other and (other.value, other.namespace, other.key))
        filled = {item.namespace for item in theirs.search((), limit=100)}
        assert set(ours.list_namespaces()) == filled
        matched = [MatchCondition("prefix", ("notes", "*")), MatchCondition("suffix", ("work",))]
        assert set(ours.list_namespaces(prefix=matched[0].path, suffix=matched[1].path)) == filled & {("notes", "work")}
        assert ours.list_namespaces(max_depth=1) == sorted({namespace[:1] for namespace in filled})


async def test_the_store_finds_by_meaning_what_may_be_found(doors: Suite) -> None:
    with client_of(doors) as client:
        store = NdmlStore(client, fields=["text"])
        await store.aput(("facts",), "food", {"text": "Ann is allergic to walnuts.", "sure": True})
        await store.aput(("facts",), "home", {"text": "Ann lives in Lisbon."})
        await store.aput(("secret",), "pin", {"text": "Ann eats walnuts in secret."}, index=False)
        hits = await store.asearch(("facts",), query="Which food is dangerous for Ann?", limit=1)
        everywhere = await store.asearch((), query="Ann and walnuts", limit=10)
        assert [(hit.key, hit.value) for hit in hits] == [("food", {"text": "Ann is allergic to walnuts.", "sure": True})]
        assert hits[0].score is not None and hits[0].score > 0.2
        assert {hit.key for hit in everywhere} == {"food", "home"} and await store.aget(("secret",), "pin") is not None
        assert "Ann is allergic to walnuts." in [hit.memory.text for hit in client.search("walnuts", k=3)], "words, for every other door"
        page = [item.key for at in range(3) for item in store.batch([SearchOp(("facts",), limit=1, offset=at)])[0] or []]
        assert sorted(page) == ["food", "home"]
        large = {"text": "x", "more": "y" * 20_000}
        await store.aput(("facts",), "large", large)
        found = await store.aget(("facts",), "large")
        assert found is not None and found.value == large and found.created_at <= found.updated_at
        with pytest.raises(FieldInvalid, match="split it over several keys"):
            await store.aput(("facts",), "huge", {"more": "y" * 40_000})


class Talk(TypedDict):
    said: str
    answer: str


def test_a_graph_remembers_over_two_runs(doors: Suite) -> None:
    def remember(state: Talk, *, store: BaseStore) -> dict[str, str]:
        known = store.search(("facts",), query=state["said"], limit=1)
        store.put(("facts",), state["said"][:20], {"text": state["said"]})
        return {"answer": known[0].value["text"] if known else "nothing"}

    with client_of(doors) as client:
        builder = StateGraph(Talk)
        builder.add_node("remember", remember)
        builder.add_edge(START, "remember")
        builder.add_edge("remember", END)
        graph: Any = builder.compile(store=NdmlStore(client, fields=["text"]))
        first = graph.invoke({"said": "Ann lives in Lisbon.", "answer": ""})
        second = graph.invoke({"said": "Where does Ann live?", "answer": ""})
    assert (first["answer"], second["answer"]) == ("nothing", "Ann lives in Lisbon.")


# Anthropic

HEADS = ("Here're the files and directories",)


def without_sizes(answer: str) -> str:
    """A directory on disk has a size of its own."""
    return "\n".join(line.partition("\t")[2] or line for line in answer.split("\n")) if answer.startswith(HEADS) else answer


def told(tool: Any, command: dict[str, Any]) -> str:
    try:
        return without_sizes(str(tool.call(command)))
    except ToolError as error:
        return f"ToolError: {error}"


def create(path: str, text: str) -> dict[str, Any]:
    return {"command": "create", "path": path, "file_text": text}


def view(path: str, *view_range: int) -> dict[str, Any]:
    return {"command": "view", "path": path} | ({"view_range": list(view_range)} if view_range else {})


def replace(path: str, old: str, new: str) -> dict[str, Any]:
    return {"command": "str_replace", "path": path, "old_str": old, "new_str": new}


def insert(path: str, line: int, text: str) -> dict[str, Any]:
    return {"command": "insert", "path": path, "insert_line": line, "insert_text": text}


def delete(path: str) -> dict[str, Any]:
    return {"command": "delete", "path": path}


def rename(old: str, new: str) -> dict[str, Any]:
    return {"command": "rename", "old_path": old, "new_path": new}


SESSION = [
    view("/memories"),
    view("/memories/none"),
    create("/memories/ann.md", "likes tea\nhates rain\nlikes tea twice\n"),
    create("/memories/ann.md", "again"),
    create("/memories/work/plan.md", "step one"),
    create("/memories/work/old/2025.md", "past\n"),
    create("/memories/work/old/deep/down.md", "far"),
    create("/memories/.hidden", "x"),
    create("/memories/empty.md", ""),
    create("/memories/ñandú 🙂.md", "größe\n"),
    view("/memories"),
    view("/memories/work"),
    view("/memories/ann.md"),
    view("/memories/ann.md", 2, 3),
    view("/memories/ann.md", 2, -1),
    view("/memories/empty.md"),
    replace("/memories/ann.md", "hates rain", "loves rain\nand snow"),
    replace("/memories/ann.md", "likes tea", "x"),
    replace("/memories/ann.md", "coffee", "x"),
    replace("/memories/none.md", "a", "b"),
    replace("/memories/work", "a", "b"),
    insert("/memories/ann.md", 0, "top\n"),
    insert("/memories/ann.md", 5, "bottom"),
    insert("/memories/ann.md", 99, "no"),
    insert("/memories/empty.md", 0, "first"),
    view("/memories/ann.md"),
    view("/memories/empty.md"),
    rename("/memories/work/old", "/memories/past"),
    rename("/memories/none", "/memories/some"),
    rename("/memories/ann.md", "/memories/work/plan.md"),
    rename("/memories/ann.md", "/memories/people/ann.md"),
    view("/memories"),
    view("/memories/people/ann.md"),
    delete("/memories/past"),
    delete("/memories/past"),
    delete("/memories"),
    view("/memories/../etc/passwd"),
    view("/etc/passwd"),
    delete("/memories/work/plan.md"),
    view("/memories"),
]


def on_disk(directory: Path) -> tuple[Any, Callable[[], None]]:
    """The SDK's own backend, and what takes away directories without files: ours has none."""
    tool = BetaLocalFilesystemMemoryTool(str(directory))

    def tidy() -> None:
        for folder in sorted((directory / "memories").rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    return tool, tidy


def test_the_memory_tool_answers_as_anthropics_own_does(doors: Suite, tmp_path: Path) -> None:
    theirs, tidy = on_disk(tmp_path)
    with client_of(doors) as client:
        ours = NdmlMemoryTool(client)
        for command in SESSION:
            answer = told(theirs, command)
            tidy()
            escapes = ".." in str(command) or "/etc" in str(command)
            assert told(ours, command) == answer or (escapes and "must start with /memories" in told(ours, command)), command
        assert ours.to_dict() == theirs.to_dict() == {"type": "memory_20250818", "name": "memory"}
        assert ours.clear_all_memory() == theirs.clear_all_memory()
        assert told(ours, view("/memories")) == told(theirs, view("/memories"))


PATHS = st.sampled_from(["/memories/a", "/memories/b.md", "/memories/d/a", "/memories/d/b", "/memories/d/e/c", "/memories/d"])
TEXTS = st.text(st.sampled_from("ab\n é"), max_size=6)
COMMANDS = st.one_of(
    st.builds(create, PATHS, TEXTS),
    st.builds(view, PATHS | st.just("/memories")),
    st.builds(replace, PATHS, TEXTS.filter(bool), TEXTS),
    st.builds(insert, PATHS, st.integers(0, 4), TEXTS),
    st.builds(delete, PATHS),
    st.builds(rename, PATHS, PATHS),
)


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW_FIXTURES)
@given(commands=st.lists(COMMANDS, min_size=2, max_size=10))
def test_any_session_leaves_the_same_files(doors: Suite, tmp_path: Path, commands: list[dict[str, Any]]) -> None:
    theirs, tidy = on_disk(tmp_path / uuid.uuid4().hex)
    with client_of(doors) as client:
        ours = NdmlMemoryTool(client)
        for command in commands:
            try:
                answer = told(theirs, command)
            except OSError:
                answer = "ToolError"  # a file where a directory should be: the SDK's own backend lets the system's error through
            tidy()
            mine = told(ours, command)
            assert mine == answer or (mine.startswith("ToolError") and answer == "ToolError"), command
        for command in (view("/memories"), view("/memories/d"), view("/memories/a"), view("/memories/d/a")):
            assert told(ours, command) == told(theirs, command)
    shutil.rmtree(theirs.base_path)


def test_two_who_edit_the_same_file_do_not_lose_each_others_words(doors: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(doors) as client:
        one, two = NdmlMemoryTool(client), NdmlMemoryTool(client)
        told(one, create("/memories/list", "milk\n"))
        stale = one._file("/memories/list")
        told(two, insert("/memories/list", 1, "bread"))
        monkeypatch.setattr(one, "_file", lambda path: stale)
        assert "VERSION_CONFLICT" in told(one, insert("/memories/list", 0, "eggs"))
        assert "bread" in told(two, view("/memories/list"))
        assert "FIELD_INVALID" in told(two, create("/memories/huge", "x" * 70_000))
