"""The backup file, and the commands for operators on it."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.cli import admin, archive
from ndml.client import ClusterStatus, ServiceStatus
from ndml.errors import FieldInvalid

Command = Callable[..., Any]
PARTS = st.lists(st.binary(max_size=60), max_size=5)


def written(parts: list[bytes], owners: int = 3) -> bytes:
    sink = io.BytesIO()
    writer = archive.Writer(sink, "2026-05-01T00:00:00+00:00")
    for part in parts:
        writer.part(part)
    writer.close(owners)
    return sink.getvalue()


@given(PARTS, st.integers(0, 9))
@settings(deadline=None)
def test_a_file_gives_back_what_went_in(parts: list[bytes], owners: int) -> None:
    data = written(parts, owners)
    contents = archive.verified(io.BytesIO(data))
    assert contents == archive.Contents("2026-05-01T00:00:00+00:00", owners, len(parts), len(data))
    assert list(archive.parts(io.BytesIO(data))) == parts


@given(PARTS, st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_changed_or_cut_off_is_found(parts: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(written(parts))
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "append"]))
    if kind == "flip":
        whole[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del whole[at:]
    elif kind == "insert":
        whole[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        whole += b"x"
    with pytest.raises(FieldInvalid, match="nothing was sent"):
        archive.verified(io.BytesIO(bytes(whole)))


def frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = 37 + int.from_bytes(data[1:5], "little")
        found.append(data[:size])
        data = data[size:]
    return found


def test_parts_that_are_whole_but_missing_doubled_or_moved_are_found() -> None:
    header, one, two, trailer = frames(written([b"one", b"two"]))
    assert archive.verified(io.BytesIO(header + one + two + trailer)).parts == 2
    for order in (
        [header, one, trailer],
        [header, two, one, trailer],
        [header, one, one, two, trailer],
        [one, two, trailer],
        [header, header],
    ):
        with pytest.raises(FieldInvalid):
            archive.verified(io.BytesIO(b"".join(order)))


def test_a_file_of_a_later_form_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FORMAT", 9)
    later = written([])
    monkeypatch.undo()
    with pytest.raises(FieldInvalid, match="use the release that wrote it"):
        archive.verified(io.BytesIO(later))


def test_backup_and_restore(ndml: Command, server: Any, tmp_path: Path) -> None:
    ndml("add", "one")
    ndml("add", "two", "--user", "bob")
    done = ndml("backup", str(tmp_path), "-o", "json").json
    file = Path(done["file"])
    assert (done["owners"], done["parts"], done["size_bytes"]) == (2, 2, file.stat().st_size) and file.parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "the part file is gone"
    server.world.traces.clear()
    assert "2 users of" in ndml("restore", str(file), "--check").out and not server.world.traces
    assert "2 users, 2 records, 2 of them new here, 2 users verified" in ndml("restore", str(file)).out
    assert ndml("get", "0" * 31 + "1").out.count("one")
    ndml("update", "0" * 31 + "1", "--text", "changed since")
    again = ndml("restore", str(file))
    assert "0 of them new here" in again.out and "1 users have another state" in again.err


def test_of_a_directory_the_newest_are_kept(ndml: Command, tmp_path: Path) -> None:
    ndml("add", "one")
    old = [tmp_path / f"ndml-2026010{day}T000000Z.backup" for day in range(1, 5)]
    for path in (*old, tmp_path / "ndml-notes.txt"):
        path.write_text("before")
    done = ndml("backup", str(tmp_path), "--keep", "3", "-o", "json").json
    assert done["removed"] == 2
    assert sorted(tmp_path.iterdir()) == sorted([*old[2:], tmp_path / "ndml-notes.txt", Path(done["file"])])
    refused = ndml("backup", str(tmp_path / "one.backup"), "--keep", "3")
    assert refused.code == 2 and "--keep counts the backups of a directory" in refused.err


def test_a_broken_file_is_not_sent(ndml: Command, server: Any, tmp_path: Path) -> None:
    ndml("add", "one")
    file = tmp_path / "b.backup"
    assert ndml("backup", str(file)).code == 0
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    done = ndml("restore", str(file))
    assert done.code == 2 and "nothing was sent" in done.err and not server.world.calls("Restore")
    assert ndml("backup", str(tmp_path / "no" / "where")).code == 2
    assert ndml("restore", str(tmp_path / "none")).code == 2


def test_a_drain_is_followed_and_its_node_named(ndml: Command) -> None:
    done = ndml("drain", "n0")
    assert done.code == 0 and "n0 has left: 2 users handed over" in done.out
    assert ndml("drain", "n0", "-o", "json").json == {"phase": "left", "owners_left": 0, "owners_total": 2}
    assert ndml("drain", "n7").code == 2
    assert "joining" in ndml("status").out


def test_siblings_are_shown_and_resolved(ndml: Command, server: Any) -> None:
    trace_id = ndml("add", "Lisbon").out.strip()
    stored = server.world.traces["default", "ann"][trace_id]
    stored.siblings.add(sibling_id="a-1", trace=stored, node_id="n0", shown=True, support=9)
    stored.siblings.add(sibling_id="b-1", node_id="n1").trace.text = "Porto"
    assert "Porto" not in ndml("get", trace_id).out
    card = ndml("get", trace_id, "--siblings").out
    assert all(word in card for word in ("a-1", "b-1", "n1", "Porto", "shown"))
    assert len(ndml("get", trace_id, "--siblings", "-o", "json").json["siblings"]) == 2
    assert ndml("resolve", trace_id, "--keep", "c-1").code == 2
    assert "Porto" in ndml("resolve", trace_id, "--keep", "b-1").out


def test_consistency_stands_anywhere(ndml: Command, server: Any) -> None:
    ndml("add", "one", "--consistency", "all")
    ndml("list", "--consistency=quorum")
    assert ndml("add", "two", "--consistency", "most").code == 2
    assert [server.world.calls(name)[0].consistency for name in ("AddMemory", "ListMemories")] == [3, 2]


def test_a_node_that_has_left_is_no_trouble() -> None:
    def row(name: str) -> ServiceStatus:
        return ServiceStatus("ndml-memory-node", name, "127.0.0.1:7710", False, "connection refused", "", timedelta(), {})

    cluster = ClusterStatus((row("n1"), row("n2")), 3, True)
    assert admin._troubles(cluster, {"n1"}) == ["  n2: connection refused"]
    assert [admin._process(each, {"n1"})[3] for each in cluster.services] == ["left", "no answer"]
