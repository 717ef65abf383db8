"""The durable truth: what is acknowledged is on disk, once, and a delete is one."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ndml.errors import (
    CapacityReached,
    EmbeddingDimensionMismatch,
    EmbeddingModelMismatch,
    EmbeddingNotFinite,
    FieldInvalid,
    NdmlError,
    RequestIdReused,
    StoreUnavailable,
    TraceNotFound,
    VersionConflict,
)
from ndml.internal.v1 import memory_node_pb2 as pb
from ndml.v1.types_pb2 import Embedding, MemoryTrace
from services.memory_node import schema, snapshots
from services.memory_node.commit import Commit, WriteAction, WriteJob
from services.memory_node.reader import Reader
from services.memory_node.records import Owner, timestamp
from services.memory_node.schema import Identity, StoreRefused
from services.memory_node.settings import StoreSection
from services.memory_node.store import Store
from services.memory_node.writer import Checkpointer
from tests.unit.memory_node import node_harness as harness

ANN, BOB = Owner("t", "ann"), Owner("t", "bob")
IDENTITY = Identity("n0", harness.DIMENSION, harness.MODEL)


@contextlib.contextmanager
def opened(directory: Path, identity: Identity = IDENTITY, max_owner_traces: int = 10**6, **fields: Any) -> Iterator[Store]:
    store = Store(StoreSection(data_dir=directory, **fields), identity, max_owner_traces)
    store.open()
    try:
        yield store
    finally:
        store.close()


def write(store: Store, owner: Owner, *actions: WriteAction) -> list[Any]:
    return store.committer.commit([WriteJob(owner, action) for action in actions]).results


def put(*traces: MemoryTrace, skip_existing: bool = False) -> pb.PutAction:
    return pb.PutAction(traces=traces, skip_existing=skip_existing)


def stored(reader: Reader, owner: Owner) -> list[MemoryTrace]:
    row = reader.owner(owner)
    return [] if row is None else [MemoryTrace.FromString(payload) for payload, _ in reader.export(row.owner_id, "", "", 0)]


def only_error(results: list[Any]) -> NdmlError | None:
    (result,) = results
    if isinstance(result, NdmlError):
        return result
    (error,) = harness.errors_of(result)
    return error


def test_a_put_survives_reopening_and_is_stored_once(tmp_path: Path) -> None:
    made = harness.trace(1, "hello", metadata={"k": "v"}, speaker="ann", agent="a")
    with opened(tmp_path) as store:
        (first,) = write(store, ANN, put(made))
        assert not first.outcomes[0].existed
    with opened(tmp_path) as store, contextlib.closing(store.reader()) as reader:
        later = MemoryTrace()
        later.CopyFrom(made)
        # What the gateway fills in anew at a retry is not part of what was said.
        later.learned_at.CopyFrom(timestamp(harness.T0_US + 5_000_000))
        later.said_at.CopyFrom(later.learned_at)
        (again,) = write(store, ANN, put(later))
        assert again.outcomes[0].existed
        assert again.outcomes[0].learned_at == made.learned_at
        (trace,) = stored(reader, ANN)
        assert (trace.text, trace.metadata["k"], trace.scope.user, trace.scope.agent, trace.version) == ("hello", "v", "ann", "a", 1)
        assert not trace.HasField("embedding")
        assert store.committer.totals.traces == 1


@pytest.mark.parametrize(
    "change",
    [{"text": "other"}, {"speaker": "bo"}, {"kind": 2}, {"metadata": {"k": "w"}}, {"salience": 0.5}, {"said_at_us": 5}, {"session": "s"}],
    ids=lambda change: next(iter(change)),
)
def test_a_request_id_used_for_another_content_is_refused_unless_importing(tmp_path: Path, change: dict[str, Any]) -> None:
    with opened(tmp_path) as store:
        write(store, ANN, put(harness.trace(1, "hello", metadata={"k": "v"})))
        other = harness.trace(1, **{"text": "hello", "metadata": {"k": "v"}} | change)
        assert isinstance(only_error(write(store, ANN, put(other))), RequestIdReused)
        (imported,) = write(store, ANN, put(other, skip_existing=True))
        assert imported.outcomes[0].existed
        # The same id in another owner is another trace.
        assert only_error(write(store, BOB, put(other))) is None


def test_duplicates_inside_one_group_commit_are_seen(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        same, again, other = write(store, ANN, *(put(harness.trace(1, text)) for text in ("x", "x", "y")))
        assert not same.outcomes[0].existed
        assert again.outcomes[0].existed
        assert isinstance(harness.errors_of(other)[0], RequestIdReused)
        assert store.committer.totals.traces == 1


def test_an_update_changes_the_named_fields_only_and_counts_versions(tmp_path: Path) -> None:
    first = harness.trace(1, "hello", metadata={"k": "v", "gone": "x"}, speaker="ann", salience=0.25)
    change = MemoryTrace(trace_id=first.trace_id, text="bye", metadata={"k": "w"}, embedding=Embedding(vector=harness.vector("new")))
    with opened(tmp_path) as store, contextlib.closing(store.reader()) as reader:
        write(store, ANN, put(first))
        (done,) = write(store, ANN, pb.UpdateAction(trace=change, fields=["text", "metadata"], expected_version=1))
        (trace,) = stored(reader, ANN)
        assert trace == done.trace
        assert (trace.text, dict(trace.metadata), trace.speaker, trace.salience, trace.version) == ("bye", {"k": "w"}, "ann", 0.25, 2)
        assert trace.learned_at == first.learned_at
        row = reader.owner(ANN)
        assert row is not None
        assert reader.labelled(row.owner_id, "gone").size == 0
        assert reader.labelled_any(row.owner_id, "k", ["w"]).tolist() == [done.sequence]
        assert reader.trace(row.owner_id, bytes.fromhex(first.trace_id))[1] == harness.vector("new")  # type: ignore[index]
        stale = pb.UpdateAction(trace=change, fields=["text"], expected_version=1)
        assert isinstance(only_error(write(store, ANN, stale)), VersionConflict)
        # A late replay of the first write is still recognised.
        assert only_error(write(store, ANN, put(first))) is None
        assert (row.content_bytes, store.committer.totals.traces) == (len("bye") + len("kw"), 1)


@pytest.mark.parametrize(
    ("fields", "error"),
    [(["text"], FieldInvalid), (["learned_at"], FieldInvalid), ([], FieldInvalid), (["speaker"], TraceNotFound)],
)
def test_wrong_updates_are_refused(tmp_path: Path, fields: list[str], error: type[NdmlError]) -> None:
    with opened(tmp_path) as store:
        action = pb.UpdateAction(trace=MemoryTrace(trace_id=harness.trace_id(1), text="x"), fields=fields)
        assert isinstance(only_error(write(store, ANN, action)), error)


def test_a_delete_erases_the_bytes_and_a_replay_cannot_bring_them_back(tmp_path: Path) -> None:
    secret = harness.trace(1, "secret-text-of-ann", metadata={"label": "secret-label"})
    with opened(tmp_path) as store, contextlib.closing(store.reader()) as reader:
        write(store, ANN, put(secret), put(harness.trace(2)))
        gone, again = write(store, ANN, pb.DeleteAction(trace_id=secret.trace_id), pb.DeleteAction(trace_id=secret.trace_id))
        assert (gone.deleted, again.deleted) == (True, False)
        (replay,) = write(store, ANN, put(secret))
        assert replay.outcomes[0].existed
        assert len(stored(reader, ANN)) == 1
        assert store.committer.totals.traces == 1
        store.checkpoint(empty_log=True)
        on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        for part in (b"secret-text", b"secret-label", harness.vector(1)):
            assert part not in on_disk
        assert bytes.fromhex(secret.trace_id) in on_disk


def test_what_was_deleted_or_replaced_leaves_the_log_while_writes_go_on(tmp_path: Path) -> None:
    def held() -> bool:
        return any(b"text-of-the-" in path.read_bytes() for path in tmp_path.iterdir())

    with opened(tmp_path) as store:
        deleted, replaced = harness.trace(1, "text-of-the-deleted"), harness.trace(2, "text-of-the-replaced")
        write(store, ANN, put(deleted, replaced))
        change = MemoryTrace(trace_id=replaced.trace_id, text="new", embedding=Embedding(vector=harness.vector("new")))
        write(store, ANN, pb.DeleteAction(trace_id=deleted.trace_id), pb.UpdateAction(trace=change, fields=["text"]))
        often, seldom = Checkpointer(store, scrub_s=0.0), Checkpointer(store, scrub_s=3600.0)
        for seed in range(3, 6):
            write(store, ANN, put(harness.trace(seed)))
            seldom.look()
        assert held(), "not idle, and not due"
        often.look()
        assert not held()


@pytest.mark.parametrize(
    ("embedding", "error"),
    [
        (Embedding(vector=bytes(8)), EmbeddingDimensionMismatch),
        (Embedding(), EmbeddingDimensionMismatch),
        (Embedding(vector=bytes(4 * harness.DIMENSION)), EmbeddingNotFinite),
        (Embedding(vector=b"\xff\xff\xff\x7f" * harness.DIMENSION), EmbeddingNotFinite),
        (Embedding(vector=harness.vector(1), model="another"), EmbeddingModelMismatch),
    ],
)
def test_a_bad_vector_fails_its_own_trace_only(tmp_path: Path, embedding: Embedding, error: type[NdmlError]) -> None:
    bad = harness.trace(2)
    bad.embedding.CopyFrom(embedding)
    with opened(tmp_path) as store:
        (result,) = write(store, ANN, put(harness.trace(1), bad, harness.trace(3)))
        assert [type(each) for each in harness.errors_of(result)] == [type(None), error, type(None)]
        assert store.committer.totals.traces == 2


def test_capacity_is_an_error_that_names_its_setting_and_replays_still_work(tmp_path: Path) -> None:
    with opened(tmp_path, max_traces=3, max_owner_traces=2) as store:
        (result,) = write(store, ANN, put(*(harness.trace(i) for i in range(3))))
        error = harness.errors_of(result)[2]
        assert isinstance(error, CapacityReached)
        assert "engine.index_memory_limit" in error.message
        (result,) = write(store, BOB, put(*(harness.trace(i) for i in range(2))))
        error = harness.errors_of(result)[1]
        assert isinstance(error, CapacityReached)
        assert "store.max_traces" in error.message
        assert only_error(write(store, ANN, put(harness.trace(0)))) is None
        write(store, ANN, pb.DeleteAction(trace_id=harness.trace_id(0)))
        assert only_error(write(store, BOB, put(harness.trace(1)))) is None


def test_a_full_disk_refuses_the_group_keeps_reads_and_recovers(tmp_path: Path) -> None:
    with opened(tmp_path, max_store_bytes=1 << 20) as store, contextlib.closing(store.reader()) as reader:
        write(store, ANN, put(harness.trace("kept")))
        big = [put(harness.trace(i, "x" * 60_000)) for i in range(40)]
        errors = [result for result in write(store, ANN, *big) if isinstance(result, StoreUnavailable)]
        assert len(errors) == 40
        assert [trace.text for trace in stored(reader, ANN)] == ["text kept"]
        assert only_error(write(store, ANN, put(harness.trace("small")))) is None
        assert store.committer.totals.traces == 2
    with opened(tmp_path) as store, contextlib.closing(store.reader()) as reader:
        assert len(stored(reader, ANN)) == 2


def test_a_fault_in_one_job_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    # A tenant that SQLite cannot encode stands for any fault of ours inside a group.
    with opened(tmp_path) as store:
        jobs = [
            WriteJob(ANN, put(harness.trace(1))),
            WriteJob(Owner("\ud800", "x"), put(harness.trace(2))),
            WriteJob(BOB, put(harness.trace(3))),
        ]
        commit: Commit = store.committer.commit(jobs)
        assert [isinstance(result, NdmlError) for result in commit.results] == [False, True, False]
        assert {owner for owner, rows in commit.added.items() if rows} == {ANN, BOB}
        assert store.committer.totals.traces == 2


def test_sequence_numbers_grow_across_deletes_and_restarts(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        write(store, ANN, put(harness.trace(1)), pb.DeleteAction(trace_id=harness.trace_id(1)))
        last = store.committer.last_sequence
    with opened(tmp_path) as store:
        (result,) = write(store, ANN, put(harness.trace(2)))
        assert result.sequence > last == 2


def test_a_store_of_another_node_or_space_or_release_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(StoreRefused, match="another process"), opened(tmp_path):
        pass
    for identity in (Identity("n1", 16, harness.MODEL), Identity("n0", 8, harness.MODEL), Identity("n0", 16, "m")):
        with pytest.raises(StoreRefused, match="settings say"), opened(tmp_path, identity):
            pass
    with contextlib.closing(sqlite3.connect(tmp_path / "ndml.db")) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    harness.unseal(tmp_path / "ndml.db")
    with pytest.raises(StoreRefused, match="schema"), opened(tmp_path):
        pass


def test_migrations_run_once_each_and_a_failing_one_leaves_its_version() -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        ran: list[int] = []

        def fails(target: sqlite3.Connection) -> None:
            target.execute("CREATE TABLE half (x)")
            raise RuntimeError("no")

        connection.execute("PRAGMA user_version = 1")
        with capture_logs() as said, pytest.raises(RuntimeError):
            schema.migrate(connection, 1, [lambda _: ran.append(2), fails])
        assert ran == [2] and [(line["event"], line["schema"]) for line in said] == [("store_migrated", 2)]
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)


def test_damage_is_found_after_a_crash_and_the_file_is_left_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        write(store, ANN, *(put(harness.trace(i, "x" * 500)) for i in range(200)))
    path = tmp_path / "ndml.db"
    damaged = bytearray(path.read_bytes())
    for page in range(2, len(damaged) // 4096, 3):
        damaged[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(damaged)
    with pytest.raises(StoreRefused, match="damaged"), opened(tmp_path, check="always"):
        pass
    assert path.read_bytes() == damaged
    path.write_bytes(b"not a database, but long enough to look at " * 100)
    with pytest.raises(StoreRefused, match="damaged"), opened(tmp_path):
        pass


def test_a_snapshot_holds_what_was_there_and_starts_a_node_of_another_name(tmp_path: Path) -> None:
    now = iter(range(10**18, 10**18 + 10**13, 10**12))
    store = Store(StoreSection(data_dir=tmp_path / "a", snapshots_kept=2), IDENTITY, 10**6, lambda: next(now))
    store.open()
    write(store, ANN, put(harness.trace(1)), put(harness.trace(2)))
    made = [store.snapshot() for _ in range(3)]
    write(store, ANN, put(harness.trace(3)))
    store.close()
    assert [snapshot.path.exists() for snapshot in made] == [False, True, True]
    last = made[-1]
    assert (last.traces, last.size_bytes) == (2, last.path.stat().st_size)
    other = Identity("n9", harness.DIMENSION, harness.MODEL)
    with opened(tmp_path / "b", other, restore_from=last.path) as restored, contextlib.closing(restored.reader()) as reader:
        assert harness.texts(stored(reader, ANN)) == ["text 1", "text 2"]
        write(restored, ANN, put(harness.trace(4)))
    with opened(tmp_path / "b", other, restore_from=last.path) as again:  # a store that is there is never overwritten
        assert again.committer.totals.traces == 3
    broken = bytearray(last.path.read_bytes())
    broken[len(broken) // 2] ^= 1
    last.path.write_bytes(broken)
    with pytest.raises(StoreRefused, match="damaged"), opened(tmp_path / "c", restore_from=last.path):
        pass
    assert not (tmp_path / "c" / "ndml.db").exists()
    with pytest.raises(StoreRefused, match="settings say"):
        snapshots.restore(made[1].path, tmp_path / "d.db", Identity("n0", 8, harness.MODEL))


@pytest.mark.parametrize("kill", range(4))
def test_what_was_acknowledged_survives_sigkill(tmp_path: Path, kill: int) -> None:
    acknowledged: list[int] = []
    after = random.Random(kill).randrange(1, 60) * 8
    command = [sys.executable, "-m", "tests.unit.memory_node.store_child", str(tmp_path)]
    for _ in range(2):
        first = acknowledged[-1] + 1000 if acknowledged else 0
        with subprocess.Popen([*command, str(first)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            acknowledged += [int(child.stdout.readline()) for _ in range(after)]
            child.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
    with opened(tmp_path) as store, contextlib.closing(store.reader()) as reader:
        found = {trace.trace_id for user in range(3) for trace in stored(reader, Owner("t", f"u{user}"))}
        assert {harness.trace_id(seed) for seed in acknowledged} <= found
        assert len(found) == store.committer.totals.traces
