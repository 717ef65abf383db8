"""Both clients against a real server: the same scenarios run through the threaded and the asyncio client."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from ndml.client import (
    AsyncNdmlClient,
    ClientOptions,
    Embedding,
    Kind,
    NdmlClient,
    NewMemory,
    Provenance,
    Query,
    Retry,
    Scope,
    Tls,
)
from ndml.client._session import Tokens
from ndml.errors import (
    CapacityReached,
    DeadlinePassed,
    FailedPrecondition,
    FieldInvalid,
    InternalFault,
    Overloaded,
    OwnerUnavailable,
    RequestIdReused,
    TraceNotFound,
    VersionConflict,
)
from ndml.seen import user_key, write_seen
from ndml.v1 import types_pb2


async def test_a_memory_goes_in_and_comes_out_whole(memory: Any) -> None:
    said = datetime(2026, 3, 1, 18, 30, tzinfo=UTC)
    added = await memory.add(
        "the dog is called Pixel", speaker="Ann", said_at=said, kind="semantic", metadata={"topic": "pets"}, salience=0.5,
        provenance=Provenance("chat", 0.25), embedding=[1.0, 0.0], session="s1",
    )  # fmt: skip
    got = await memory.get(added.trace_id, include_embedding=True)
    assert (got.text, got.speaker, got.said_at, got.kind, got.metadata) == (
        "the dog is called Pixel",
        "Ann",
        said,
        Kind.SEMANTIC,
        {"topic": "pets"},
    )
    assert (got.salience, got.provenance, got.version, got.learned_at) == (0.5, Provenance("chat", 0.25), 1, added.learned_at)
    assert got.scope == Scope("ann", "", "s1") and got.embedding is not None and list(got.embedding.floats()) == [1.0, 0.0]
    found = await memory.search("dog called", k=1, explain=True)
    assert len(found) == 1 and found[0].memory.trace_id == added.trace_id and found[0].signals == {"dense": 1.0} and found[0].score == 1.0
    assert found.stats.index == "words" and [hit.score for hit in found] == [1.0]
    assert not await memory.search("dog", session="s2") and not await memory.search("dog", user="bob")


async def test_update_changes_what_is_given_only(memory: Any, server: Any) -> None:
    added = await memory.add("old", speaker="Ann", metadata={"a": "1"})
    now = await memory.update(added.trace_id, text="new", metadata={}, expected_version=1)
    assert (now.text, now.speaker, now.metadata, now.version) == ("new", "Ann", {}, 2)
    assert sorted(server.world.calls("UpdateMemory")[0].update_mask.paths) == ["metadata", "text"]
    with pytest.raises(VersionConflict, match="version 2") as conflict:
        await memory.update(added.trace_id, text="newer", expected_version=1)
    assert conflict.value.violations[0].field == "expected_version"
    with pytest.raises(FieldInvalid):
        await memory.update(added.trace_id)


async def test_delete(memory: Any) -> None:
    added = await memory.add("gone soon")
    assert await memory.delete(added.trace_id) is True
    assert await memory.delete(added.trace_id, allow_missing=True) is False
    with pytest.raises(TraceNotFound) as missing:
        await memory.delete(added.trace_id)
    assert missing.value.metadata["trace_id"] == added.trace_id


async def test_list_walks_every_page(memory: Any, server: Any) -> None:
    await memory.add_many([f"m{i}" for i in range(7)])
    assert [item.text async for item in memory.list(page_size=3)] == [f"m{i}" for i in reversed(range(7))]
    assert [call.page_token for call in server.world.calls("ListMemories")] == ["", "3", "6"]


async def test_add_many_takes_a_generator_and_a_repeat_writes_nothing(memory: Any, server: Any) -> None:
    def items() -> Iterator[NewMemory | str]:
        for i in range(300):
            yield NewMemory(f"m{i}", user="bob" if i % 2 else "") if i % 3 else f"m{i}"

    first = await memory.add_many(items(), request_id="once")
    again = await memory.add_many(items(), request_id="once")
    assert [len(call.memories) for call in server.world.calls("BatchAddMemories")] == [256, 44, 256, 44]
    assert [row.trace_id for row in first] == [row.trace_id for row in again] and len({row.trace_id for row in first}) == 300
    assert not any(row.replayed for row in first) and all(row.replayed for row in again)
    with pytest.raises(RequestIdReused):
        await memory.add_many(["other"], request_id="once")


async def test_a_refused_item_is_raised_with_its_position_or_returned(memory: Any) -> None:
    texts = ["fine", "over capacity", "fine too"]
    with pytest.raises(CapacityReached) as refused:
        await memory.add_many(texts)
    assert refused.value.metadata["index"] == "1"
    rows = await memory.add_many(texts, return_errors=True)
    assert [type(row.error) for row in rows] == [type(None), CapacityReached, type(None)] and rows[0].trace_id and not rows[1].trace_id
    with pytest.raises(FieldInvalid) as wrong:
        await memory.add_many(["fine", "\ud800"])
    assert wrong.value.metadata["index"] == "1" and wrong.value.violations[0].field == "memory.text"


async def test_search_many_keeps_order_and_each_query_its_own_fate(memory: Any) -> None:
    await memory.add_many(["red apple", "green pear"])
    results = await memory.search_many(["apple", Query("pear", k=1), Query("x", k=-1)], return_errors=True)
    assert [result[0].memory.text for result in results[:2]] == ["red apple", "green pear"]
    assert isinstance(results[2].error, FieldInvalid) and not results[2]
    with pytest.raises(FieldInvalid):
        await memory.search_many(["apple", Query("x", k=-1)])


async def test_export_into_another_user(memory: Any, server: Any) -> None:
    await memory.add_many([NewMemory(f"m{i}", embedding=[float(i), 1.0]) for i in range(5)])
    stream = memory.export(include_embedding=True)
    taken = [item async for item in stream]
    assert stream.total == 5 and [item.text for item in taken] == [f"m{i}" for i in range(5)]
    assert (await memory.import_(iter(taken))).skipped == 5
    result = await memory.import_(iter(taken), user="bob")
    assert (result.imported, result.skipped, result.failed) == (5, 0, 0)
    assert [(m.trace_id, m.embedding) async for m in memory.export(user="bob", include_embedding=True)] == [
        (m.trace_id, m.embedding) for m in taken
    ]


async def test_import_reports_refusals_and_a_broken_input_as_itself(memory: Any) -> None:
    taken = [item async for item in memory.export()]
    assert taken == []
    await memory.add("x")
    (one,) = [item async for item in memory.export()]
    empty = type(one)(trace_id="f" * 32, scope=one.scope, text="")
    result = await memory.import_([one, empty])
    assert (result.skipped, result.failed, result.failures[0].index) == (1, 1, 1) and isinstance(result.failures[0].error, FieldInvalid)

    def broken() -> Iterator[Any]:
        yield one
        raise ValueError("line 2 of the file is not JSON")

    with pytest.raises(ValueError, match="line 2"):
        await memory.import_(broken())


async def test_async_input_is_taken(aclient: AsyncNdmlClient) -> None:
    async def texts() -> AsyncIterator[NewMemory | str]:
        for i in range(3):
            yield f"m{i}"

    assert len(await aclient.add_many(texts())) == 3
    assert (await aclient.import_(item async for item in aclient.export())).skipped == 3


async def test_admin(memory: Any) -> None:
    await memory.add("x")
    status = await memory.cluster_status()
    assert status.healthy and status.services[0].uptime.total_seconds() == 90 and status.epoch == 7
    placement = await memory.placement()
    assert placement.owners == ("n0",) and placement.members[0].state == "alive"
    assert (await memory.placement(user="")).owners == ()
    assert (await memory.create_snapshot())[0].path == "/snapshots/1"
    stats = await memory.stats()
    assert (stats.traces, stats.traces_by_kind, stats.dimension) == (1, {"episodic": 1}, 4)


async def test_a_profile_names_the_statement_that_holds_and_what_it_replaced(memory: Any) -> None:
    assert (await memory.profile()).properties == ()
    old, new = await memory.add("I live in Berlin."), await memory.add("I moved to Rome.")
    found = await memory.profile()
    [home] = found.properties
    assert (home.whose, home.kind, home.memory.trace_id, home.replaced) == ("ann", "residence", new.trace_id, (old.trace_id,))
    assert home.since == home.memory.learned_at and (found.traces_read, found.partial) == (2, False)


async def test_a_drain_is_followed(memory: Any) -> None:
    stream = memory.drain("n0")
    assert [(step.phase, step.owners_left) async for step in stream] == [("leaving", 2), ("leaving", 1), ("left", 0)]
    assert stream.last.owners_total == 2
    with pytest.raises(FieldInvalid, match="members are n0"):
        _ = [step async for step in memory.drain("n9")]
    assert (await memory.placement()).members[0].phase == "joining"


async def test_a_backup_goes_back_as_it_came(memory: Any, server: Any) -> None:
    await memory.add_many([NewMemory("a"), NewMemory("b"), NewMemory("c", user="bob")])
    stream = memory.backup()
    parts = [part async for part in stream]
    assert (stream.owners_done, stream.owners_total, len(parts)) == (2, 2, 2) and all(isinstance(part, bytes) for part in parts)
    assert (await memory.restore(parts)).changed == 0
    server.world.traces.clear()
    result = await memory.restore(iter(parts))
    assert (result.owners, result.changed, result.records, result.verified) == (2, 3, 3, 2)
    with pytest.raises(FieldInvalid, match="not a part"):
        await memory.restore([b"\xff\xff"])


async def test_a_conflict_is_seen_and_ended(memory: Any, server: Any) -> None:
    trace_id = (await memory.add("Lisbon")).trace_id
    stored = server.world.traces["default", "ann"][trace_id]
    stored.siblings.add(sibling_id="a-1", trace=stored, node_id="n0", shown=True, support=9)
    stored.siblings.add(sibling_id="b-1", trace=types_pb2.MemoryTrace(text="Porto"), support=-3)
    assert (await memory.get(trace_id)).siblings == ()
    shown, other = (await memory.get(trace_id, include_siblings=True)).siblings
    assert (shown.sibling_id, shown.memory.text, shown.node_id, shown.shown, shown.support) == ("a-1", "Lisbon", "n0", True, 9)
    assert (other.memory.text, other.node_id, other.shown, other.support) == ("Porto", "", False, -3)
    with pytest.raises(FieldInvalid, match="no sibling"):
        await memory.resolve(trace_id, "c-1")
    ended = await memory.resolve(trace_id, "b-1", consistency="all")
    assert (ended.text, ended.version) == ("Porto", 2)
    assert (await memory.get(trace_id, include_siblings=True)).siblings == ()
    assert server.world.calls("ResolveConflict")[-1].consistency == types_pb2.CONSISTENCY_ALL


async def test_consistency_is_said_by_the_call_or_the_client(server: Any) -> None:
    options = ClientOptions(consistency="quorum")
    with NdmlClient(server.address, user="ann", options=options) as client:
        trace_id = client.add("x").trace_id
        client.add_many(["y"], consistency="all")
        client.search("x", consistency="one")
        client.search_many(["x"])
        client.get(trace_id)
        _ = list(client.list(consistency=""))
        client.update(trace_id, text="z")
        client.reinforce(trace_id)
        client.delete(trace_id)
        with pytest.raises(FieldInvalid, match="one, quorum, all"):
            client.get(trace_id, consistency="most")
    sent = {method: request for method, request, _ in server.world.seen}
    words = {
        method: types_pb2.Consistency.Name(request.consistency)[12:].lower() for method, request in sent.items() if "Batch" not in method
    }
    assert words == {
        "AddMemory": "quorum", "SearchMemories": "one", "GetMemory": "quorum", "ListMemories": "unspecified",
        "UpdateMemory": "quorum", "ReinforceMemories": "quorum", "DeleteMemory": "quorum",
    }  # fmt: skip
    assert sent["BatchAddMemories"].consistency == types_pb2.CONSISTENCY_ALL
    assert sent["BatchSearchMemories"].searches[0].consistency == types_pb2.CONSISTENCY_QUORUM
    with pytest.raises(FieldInvalid, match="one, quorum, all"):
        ClientOptions(consistency="most")


def test_a_session_joins_what_its_writes_gave() -> None:
    tokens = Tokens(2)
    ann, bob = user_key("ann"), user_key("bob")
    tokens.remember(("t", "ann"), write_seen({(ann, 1): 5, (bob, 2): 9}))
    tokens.remember(("t", "ann"), write_seen({(ann, 2): 7}))
    tokens.remember(("t", "ann"), write_seen({(ann, 1): 4}))
    tokens.remember(("t", "ann"), "")
    assert tokens.newest(("t", "ann")) == write_seen({(ann, 1): 5, (ann, 2): 7})
    tokens.remember(("t", "ann"), "of another release")
    assert tokens.newest(("t", "ann")) == "of another release"
    tokens.remember(("t", "ann"), write_seen({(ann, 3): 1}))
    assert tokens.newest(("t", "ann")) == write_seen({(ann, 3): 1})


async def test_reads_carry_the_newest_token_of_their_owner(memory: Any, server: Any) -> None:
    await memory.search("x")
    await memory.add("a")
    await memory.add_many([NewMemory("b"), NewMemory("c", user="bob")])
    await memory.search("x")
    await memory.search("x", user="bob")
    await memory.search("x", user="eve")
    await memory.search("x", consistency_token="mine")
    assert [call.consistency_token for call in server.world.calls("SearchMemories")] == ["", "token-2", "token-2", "", "mine"]


async def test_a_session_has_seen_what_its_reads_have_seen(memory: Any, server: Any) -> None:
    """Of every kind of read, and of a get that finds nothing: every later call of its owner sees no less."""

    def seen(*stores: int) -> str:
        return write_seen({(user_key("ann"), store): 5 for store in stores})

    [one, *_] = await memory.add_many(["a", "b", "c"])
    server.world.read_token = seen(1)
    await memory.get(one.trace_id)
    server.world.read_token = seen(2)
    await memory.search("a", consistency_token=seen(9))
    server.world.read_token = seen(1, 2, 3)
    assert [item.text async for item in memory.list(page_size=2)] == ["c", "b", "a"]
    server.world.read_token = seen(4)
    await memory.search_many([Query("a"), Query("b", user="bob"), Query("x", k=-1)], return_errors=True)
    server.world.read_token = ""
    gone = TraceNotFound("gone", metadata={"consistency_token": seen(5)})
    server.world.failures.append(("GetMemory", gone))
    with pytest.raises(TraceNotFound):
        await memory.get(one.trace_id)
    await memory.search("x")
    await memory.search("x", user="bob")
    await memory.update(one.trace_id, text="z")
    calls = server.world.calls
    assert [call.consistency_token for call in calls("SearchMemories")[-2:]] == [seen(1, 2, 3, 4, 5), ""]
    assert calls("UpdateMemory")[0].consistency_token == seen(1, 2, 3, 4, 5)
    assert [call.consistency_token for call in calls("ListMemories")] == [seen(1, 2), seen(1, 2, 3)], "the next page, too"


async def test_identity_and_headers_travel(server: Any) -> None:
    with NdmlClient(server.address, tenant="acme", token="secret", user="ann") as client:
        client.scoped(user="bob", session="s").add("x", headers={"traceparent": "00-abc"})
        client.add("y", tenant="other")
    (_, first, headers), (_, second, others) = server.world.seen
    assert (first.memory.scope.tenant, first.memory.scope.user, first.memory.scope.session) == ("acme", "bob", "s")
    assert headers["ndml-tenant"] == "acme" and headers["authorization"] == "Bearer secret" and headers["traceparent"] == "00-abc"
    assert second.memory.scope.tenant == others["ndml-tenant"] == "other" and headers["user-agent"].startswith("ndml-python/")


async def test_a_lost_attempt_is_repeated_with_the_same_request_id(memory: Any, server: Any) -> None:
    server.world.failures.extend(
        [("AddMemory", OwnerUnavailable("gone", retry_after_s=0.001)), ("AddMemory", Overloaded("full", retry_after_s=0.002))]
    )
    await memory.add("once")
    ids = [call.request_id for call in server.world.calls("AddMemory")]
    assert len(ids) == 3 and len(set(ids)) == 1 and ids[0]


async def test_tries_are_bounded_and_faults_are_not_repeated(memory: Any, server: Any) -> None:
    server.world.failures.extend([("SearchMemories", OwnerUnavailable("gone", retry_after_s=0.001))] * 9)
    with pytest.raises(OwnerUnavailable, match="gone"):
        await memory.search("x")
    assert len(server.world.calls("SearchMemories")) == 4
    server.world.failures.clear()
    server.world.failures.append(("GetMemory", InternalFault("ours")))
    with pytest.raises(InternalFault):
        await memory.get("0" * 32)
    assert len(server.world.calls("GetMemory")) == 1


async def test_a_repeat_that_could_do_harm_is_not_made(memory: Any, server: Any) -> None:
    added = await memory.add("x")
    gone = OwnerUnavailable("gone", retry_after_s=0.001)
    server.world.failures.extend([("UpdateMemory", gone), ("DeleteMemory", gone)])
    with pytest.raises(OwnerUnavailable):
        await memory.update(added.trace_id, text="y", expected_version=1)
    with pytest.raises(OwnerUnavailable):
        await memory.delete(added.trace_id)
    server.world.failures.extend([("UpdateMemory", gone), ("DeleteMemory", gone)])
    assert (await memory.update(added.trace_id, text="y")).text == "y"
    assert await memory.delete(added.trace_id, allow_missing=True) is True


async def test_a_stream_is_repeated_before_its_first_message(memory: Any, server: Any) -> None:
    await memory.add_many(["a", "b", "c"])
    server.world.failures.append(("ExportMemories", OwnerUnavailable("gone", retry_after_s=0.001)))
    assert [item.text async for item in memory.export()] == ["a", "b", "c"]
    assert len(server.world.calls("ExportMemories")) == 2


async def test_the_deadline_ends_a_call(memory: Any, server: Any) -> None:
    with pytest.raises(FieldInvalid) as wrong:
        await memory.search("x", timeout_s=0)
    assert wrong.value.violations[0].field == "timeout_s"
    server.world.hold_s = 0.5
    with pytest.raises(DeadlinePassed):
        await memory.search("x", timeout_s=0.05)


def test_a_server_that_comes_back_is_found_again(server: Any) -> None:
    with NdmlClient(server.address, user="ann", options=ClientOptions(retry=Retry(attempts=12, max_delay_s=1.0)), timeout_s=30) as client:
        client.add("before")
        server.stop()
        back = threading.Timer(0.3, server.start)
        back.start()
        client.add("after")
        back.join()
        assert [item.text for item in client.list()] == ["after", "before"]


def test_several_addresses_share_the_calls_and_cover_for_each_other(server: Any) -> None:
    second = type(server)()
    second.world.traces = server.world.traces
    with NdmlClient(f"{server.address},{second.address}", user="ann") as client:
        end = time.monotonic() + 10
        while not (server.world.seen and second.world.seen) and time.monotonic() < end:
            client.add("x")
        assert server.world.seen and second.world.seen
        second.stop()
        for _ in range(20):
            client.add("y")


def test_a_closed_client_says_so(server: Any) -> None:
    client = NdmlClient(server.address, user="ann")
    with client:
        client.add("x")
    with pytest.raises(FailedPrecondition, match="closed"):
        client.add("y")


def test_the_two_clients_have_one_surface() -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in vars(kind).items()
            if callable(member) and (not name.startswith("_") or name == "__init__")
        }

    assert surface(NdmlClient) == surface(AsyncNdmlClient)
    assert "SearchResult" in str(inspect.signature(NdmlClient.search).return_annotation) and "Raises" in (NdmlClient.add.__doc__ or "")


def test_embedding_reads_as_numbers() -> None:
    assert Embedding(b"\x00\x00\x80?" * 3).dimension == 3


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A key and a self-signed certificate for the name "gateway.test"."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on the PATH")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(chain), "-days", "2"]
    subprocess.run([*command, "-subj", "/CN=gateway.test", "-addext", "subjectAltName=DNS:gateway.test"], check=True, capture_output=True)
    return key, chain


async def test_tls_with_and_without_a_client_certificate(server: Any, certificate: tuple[Path, Path]) -> None:
    key, chain = certificate
    pair = [(key.read_bytes(), chain.read_bytes())]
    trusting = Tls(roots=chain, server_name="gateway.test")
    one_way = type(server)(grpc.ssl_server_credentials(pair))
    mutual = type(server)(grpc.ssl_server_credentials(pair, chain.read_bytes(), require_client_auth=True))
    once = Retry(attempts=1)
    try:
        with NdmlClient(one_way.address, user="ann", options=ClientOptions(tls=trusting)) as client:
            assert client.add("x").trace_id
        both = ClientOptions(tls=Tls(roots=chain, key=key, certificate=chain, server_name="gateway.test"))
        async with AsyncNdmlClient(mutual.address, user="ann", options=both) as known:
            assert (await known.add("x")).trace_id
        for address, tls in ((one_way.address, None), (one_way.address, Tls(roots=chain)), (mutual.address, trusting)):
            with NdmlClient(address, user="ann", options=ClientOptions(tls=tls, retry=once)) as refused, pytest.raises(OwnerUnavailable):
                refused.add("x")
    finally:
        one_way.stop()
        mutual.stop()
