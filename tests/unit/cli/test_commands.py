"""The command line against a real server over a dict: results, exit codes, errors, files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ndml import __version__
from ndml.cli.app import hoist, run
from ndml.cli.output import Output
from ndml.errors import CapacityReached, InternalFault
from ndml.v1 import types_pb2

Command = Callable[..., Any]


def test_add_search_get_update_delete(ndml: Command) -> None:
    added = ndml(
        "add", "the dog is Pixel", "--speaker", "Ann", "--said-at", "2026-05-01", "--label", "topic=pets", "--source", "chat", "-o", "json"
    )
    assert added.code == 0 and set(added.json) == {"trace_id", "replayed", "learned_at", "error", "gate", "deduplicated"}
    trace_id = added.json["trace_id"]

    found = ndml("search", "dog", "--explain", "--output", "json").json
    assert (
        found["hits"][0]["memory"]["trace_id"] == trace_id
        and found["hits"][0]["signals"] == {"dense": 1.0}
        and found["stats"]["index"] == "words"
    )
    table = ndml("search", "dog", "--explain")
    assert "1.000" in table.out and "dense=1.000" in table.out and "2026-05-01 00:00" in table.out and "1 of 1 memories" in table.out

    shown = ndml("get", trace_id)
    assert all(word in shown.out for word in (trace_id, "the dog is Pixel", "topic=pets", "episodic", "chat"))
    changed = ndml("update", trace_id, "--text", "the dog is Voxel", "--expected-version", "1", "-o", "json").json
    assert (changed["text"], changed["version"], changed["metadata"], changed["said_at"]) == (
        "the dog is Voxel",
        2,
        {"topic": "pets"},
        "2026-05-01T00:00:00Z",
    )
    assert ndml("delete", trace_id, "-o", "json").json == {"trace_id": trace_id, "deleted": True}
    assert ndml("delete", trace_id, "--allow-missing").out == "was not there\n"


def test_forget_asks_first_and_erases_a_session_or_all(ndml: Command, server: Any) -> None:
    for session in ("s1", "s1", "s2"):
        ndml("--session", session, "add", f"said in {session}")
    asked = ndml("forget")
    assert (
        asked.code == 2
        and "all memories of user ann would be erased" in asked.err
        and len(ndml("list", "-o", "json").json["memories"]) == 3
    )
    assert ndml("--session", "s1", "forget", "--yes").out == "2 memories of user ann, session s1 erased; none is left\n"
    assert ndml("forget", "--yes", "-o", "json").json == {"erased": 1, "done": True}


def test_add_says_what_the_gate_made_of_it(ndml: Command, server: Any) -> None:
    first = ndml("add", "the dog is Pixel", "--protect", "--expires-at", "2030-01-01")
    trace_id = first.out.strip()
    assert len(trace_id) == 32 and first.err == "novel: new words\n"
    again = ndml("add", "the dog is Pixel", "--deduplicate")
    assert again.out == f"{trace_id} (says the same: nothing was stored)\n" and again.err == "duplicate: the same words\n"
    document = ndml("add", "the dog is Pixel", "--deduplicate", "-o", "json")
    assert document.json["deduplicated"] and document.json["gate"]["decision"] == "duplicate" and document.err == ""
    stored = ndml("get", trace_id, "-o", "json").json
    assert (stored["protected"], stored["expires_at"], stored["state"]) == (True, "2030-01-01T00:00:00Z", "new")
    changed = ndml("update", trace_id, "--no-protect", "--expires-at", "never", "-o", "json").json
    assert (changed["protected"], changed["expires_at"]) == (False, None)
    assert ndml("add", "x", "--expires-at", "soon").code == 2 and ndml("add", "--file", "x", "--protect").code == 2


def test_a_file_without_what_is_said_already(ndml: Command, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    file.write_text('{"text": "one", "protected": true, "expires_at": "2030-01-01"}\n{"text": "two"}\n')
    ndml("add", "two")
    assert ndml("add", "--file", str(file), "--deduplicate").out == "1 added, 1 said already\n"
    (stored,) = ndml("list", "--limit", "1", "-o", "json").json["memories"]
    assert (stored["text"], stored["protected"], stored["expires_at"]) == ("one", True, "2030-01-01T00:00:00Z")


def test_reinforce_then_see_why(ndml: Command, server: Any) -> None:
    one, two = (ndml("add", text).out.strip() for text in ("one", "two"))
    shown = ndml("reinforce", one, two, "--grade", "0.5")
    assert shown.code == 0 and "2 graded, 4 neighbours got credit" in shown.out and "1 good, 0 bad" in shown.out
    spread = ndml("reinforce", one, "-g", "-1", "--clock", "seconds", "--before", "3", "--request-id", "r", "-o", "json").json
    assert (spread["results"][0]["strength"]["failures"], spread["credited"], spread["replayed"]) == (1, 2, False)
    sent = server.world.calls("ReinforceMemories")
    assert sent[1].spread.clock == 2 and sent[1].spread.tau_before == 3 and not sent[0].HasField("spread")
    assert ndml("reinforce", one, "--request-id", "r").out == "there already: nothing changed\n"
    card = ndml("get", one, "--strength", "--history").out
    assert all(word in card for word in ("0.250", "5 s 1  60 s 0.5", "2 graded: 1 good, 1 bad", "reinforced", "graded -1", "written"))
    assert "graded" not in ndml("get", one).out
    whole = ndml("get", one, "--strength", "--history", "-o", "json").json
    assert whole["strength"]["uses"] == 2 and [event["why"] for event in whole["history"]] == ["graded -1", "graded 0.5", "written"]


def test_feedback_on_what_is_gone(ndml: Command) -> None:
    one = ndml("add", "one").out.strip()
    partly = ndml("reinforce", one, "0" * 32)
    assert partly.code == 3 and "1 graded" in partly.out and f"{'0' * 32}: TRACE_NOT_FOUND" in partly.err
    assert ndml("reinforce", "0" * 32).code == 3 and ndml("reinforce").code == 2 and ndml("reinforce", one, "--clock", "x").code == 2


def test_consolidate(ndml: Command, server: Any) -> None:
    shown = ndml("consolidate", "--time-budget", "2", "--max-traces", "9")
    assert shown.out == "1 merged, 1 rejected, 1 as before, 3 of 3 clusters\n"
    sent = server.world.calls("ConsolidateMemories")[0]
    assert (sent.time_budget.seconds, sent.max_traces, sent.dry_run) == (2, 9, False)
    dry = ndml("consolidate", "--dry-run")
    assert "1 would be merged" in dry.out and "stopped: dry" in dry.out
    assert ndml("consolidate", "-o", "json").json == {
        "clusters_total": 3, "clusters_done": 3, "merged": 1, "rejected": 1, "unchanged": 1, "done": True,
        "stopped_because": "", "semantic_trace_ids": ["a" * 32],
    }  # fmt: skip


def test_a_consolidation_fills_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output()
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(output, "_err", terminal)
    with output.progress("consolidating", None) as ticker:
        ticker.reach(2, 8)
        assert ticker.count == 2
        ticker._bar.refresh()
        drawn = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "2/8" in drawn and "25%" in drawn


def test_search_shows_strength_and_weighs_it(ndml: Command, server: Any) -> None:
    ndml("add", "red apple")
    ndml("add", "green pear", "--salience", "1")
    plain, weighed = ndml("search", "apple").out, ndml("search", "apple", "--strength", "--salience-weight", "2", "--strength-weight", "0")
    assert plain.index("red apple") < plain.index("green pear") and "strength" not in plain
    assert weighed.out.index("green pear") < weighed.out.index("red apple") and "0.250" in weighed.out
    weights = [call.weights for call in server.world.calls("SearchMemories")]
    assert not weights[0].HasField("strength") and weights[1].HasField("strength") and weights[1].salience == 2


def test_search_takes_a_mode_and_weights_of_signals(ndml: Command, server: Any) -> None:
    ndml("add", "red apple")
    assert ndml("search", "apple", "--mode", "fast", "--weight", "lexical=0.5", "--weight", "late=0").code == 0
    sent = server.world.calls("SearchMemories")[-1]
    assert sent.mode == types_pb2.SEARCH_MODE_FAST
    assert sent.weights.lexical == 0.5 and sent.weights.HasField("late") and not sent.weights.HasField("dense")
    for wrong, word in ((("--mode", "best"), "mode"), (("--weight", "lexical"), "signal=number"), (("--weight", "luck=1"), "luck")):
        refused = ndml("search", "apple", *wrong)
        assert refused.code != 0 and word in refused.err


def test_archived_memories_are_listed_where_asked(ndml: Command, server: Any) -> None:
    ndml("add", "old")
    next(iter(server.world.traces["default", "ann"].values())).state = 6
    assert ndml("list", "-o", "json").json["memories"] == []
    (found,) = ndml("list", "--archived", "-o", "json").json["memories"]
    assert found["state"] == "archived" and "archived" in ndml("stats").out


def test_links_go_out_and_in(ndml: Command, server: Any, tmp_path: Path) -> None:
    trace_id = ndml("add", "new").out.strip()
    trace = server.world.traces["default", "ann"][trace_id]
    trace.links.add(type=3, trace_id="b" * 32, weight=0.5)
    file = tmp_path / "out.jsonl"
    ndml("export", str(file))
    assert ndml("import", str(file), "--into", "bob").code == 0
    assert server.world.traces["default", "bob"][trace_id].links == trace.links
    assert f"{'b' * 32} (0.50)" in ndml("get", trace_id).out and "supersedes" in ndml("get", trace_id).out
    file.write_text(file.read_text().replace("supersedes", "follows"))
    refused = ndml("import", str(file))
    assert refused.code == 2 and "line 1: links.type must be one of" in refused.err


def test_json_keys_of_a_memory_are_stable(ndml: Command) -> None:
    trace_id = ndml("add", "x", "-o", "json").json["trace_id"]
    memory = ndml("get", trace_id, "-o", "json").json
    assert list(memory) == [
        "trace_id", "scope", "text", "kind", "speaker", "said_at", "learned_at", "updated_at", "metadata",
        "salience", "provenance", "version", "embedding", "gate", "state", "strength", "protected", "expires_at", "history", "links",
        "siblings", "valid_from", "valid_until", "contents",
    ]  # fmt: skip
    assert memory["scope"] == {"user": "ann", "agent": "", "session": "", "tenant": ""} and memory["kind"] == "episodic"


def test_exit_codes_and_one_clear_line(ndml: Command, server: Any) -> None:
    missing = ndml("get", "0" * 32)
    assert missing.code == 3 and missing.out == "" and missing.err.count("\n") == 1
    assert missing.err.startswith("ndml: NOT_FOUND TRACE_NOT_FOUND: no trace") and "fix: look it up with ndml list" in missing.err
    wrong = ndml("search", "x", "-k", "-5")
    assert wrong.code == 2 and "FIELD_INVALID" in wrong.err and "field: k" in wrong.err
    assert ndml("search").code == 2 and ndml("nonsense").code == 2 and ndml("add").code == 2
    server.world.failures.extend([("GetMemoryStats", CapacityReached("full")), ("GetMemoryStats", InternalFault("ours"))])
    assert ndml("stats").code == 1 and ndml("stats").code == 1
    document = json.loads(ndml("get", "0" * 32, "-o", "json").err)["error"]
    assert document["code"] == "NOT_FOUND" and document["reason"] == "TRACE_NOT_FOUND"
    server.stop()
    gone = ndml("stats", "--timeout", "0.5")
    assert gone.code == 4 and "ndml doctor" in gone.err


def test_the_user_must_be_said(ndml: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NDML_USER")
    refused = ndml("add", "x")
    assert refused.code == 2 and "give --user or set NDML_USER" in refused.err
    assert ndml("add", "x", "--user", "bob").code == 0
    assert ndml("stats", "-o", "json").json["owners"] == 1


def test_a_profile_is_shown_with_the_statement_that_holds(ndml: Command) -> None:
    assert "0 properties" in ndml("profile").out
    ndml("add", "I moved to Rome.")
    shown = ndml("profile").out
    assert "residence" in shown and "I moved to Rome." in shown and "1 properties, of 1 memories" in shown
    assert ndml("profile", "-o", "json").json["properties"][0]["kind"] == "residence"


def test_add_reads_stdin(ndml: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert ndml("add", "-").code == 0
    assert ndml("list", "-o", "json").json["memories"][0]["text"] == "two\nlines"


def test_a_conversation_file(ndml: Command, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    lines = [
        {"id": "t1", "user": "ann", "session": "s1", "said_at": "2026-05-01T18:30:00+02:00", "speaker": "Ann", "text": "hello"},
        {"id": "t2", "user": "bob", "text": "hi", "kind": "semantic", "metadata": {"a": "b"}, "salience": 0.3, "embedding": [1, 2]},
    ]
    file.write_text("\n\n".join(json.dumps(line) for line in lines))
    first = ndml("add", "--file", str(file), "--request-id", "once", "-o", "json").json
    assert (first["added"], first["replayed"], len(first["trace_ids"])) == (2, 0, 2)
    assert ndml("add", "--file", str(file), "--request-id", "once").out == "0 added, 2 there already\n"
    (memory,) = ndml("list", "-o", "json").json["memories"]
    assert (memory["scope"]["session"], memory["said_at"], memory["metadata"]) == ("s1", "2026-05-01T16:30:00Z", {"id": "t1"})
    other = ndml("get", first["trace_ids"][1], "--embedding", "--user", "bob", "-o", "json").json
    assert (other["kind"], other["metadata"], other["salience"]) == ("semantic", {"a": "b", "id": "t2"}, 0.3)
    assert other["embedding"] == {"vector": "AACAPwAAAEA=", "model": "", "word_vectors": ""}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"', "line 2: not JSON"),
        ("[1]", "line 2: each line is one JSON object"),
        ('{"text": "x", "mood": "good"}', "line 2: unknown key 'mood'"),
        ('{"text": 3}', "line 2: text must be a string"),
        ('{"text": "x", "said_at": "yesterday"}', "line 2: said_at is not a time"),
        ('{"text": "x", "embedding": {"vector": "%"}}', "line 2: embedding.vector is not base64"),
        ('{"text": "x", "embedding": {"vector": "", "word_vectors": "%"}}', "line 2: embedding.word_vectors is not base64"),
        ('{"text": "x", "salience": true}', "line 2: salience must be a number"),
        ('{"text": "x", "protected": 1}', "line 2: protected must be true or false"),
        ('{"text": "x", "expires_at": "soon"}', "line 2: expires_at is not a time"),
    ],
)
def test_a_bad_line_is_named(ndml: Command, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "talk.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n")
    refused = ndml("add", "--file", str(file))
    assert refused.code == 2 and message in refused.err and "field: line 2" in refused.err


def test_files_that_cannot_be_used(ndml: Command, tmp_path: Path) -> None:
    assert "cannot read" in ndml("add", "--file", str(tmp_path / "absent")).err
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"text": "café"}\n'.encode("latin-1"))
    refused = ndml("add", "--file", str(latin))
    assert refused.code == 2 and "not UTF-8" in refused.err
    assert ndml("export", str(tmp_path / "no" / "such")).code == 2
    assert ndml("add", "x", "--file", str(latin)).code == 2


def test_export_and_import_keep_everything(ndml: Command, tmp_path: Path, server: Any) -> None:
    talk = tmp_path / "talk.jsonl"
    talk.write_text("".join(json.dumps({"text": f"m{i} ☂", "salience": i / 10, "embedding": [i, 1.5]}) + "\n" for i in range(7)))
    ndml("add", "--file", str(talk))
    file = tmp_path / "out.jsonl"
    assert ndml("export", str(file), "--embedding", "-o", "json").json == {"exported": 7, "file": str(file)}
    assert not file.with_name("out.jsonl.part").exists()
    piped = ndml("export", "--embedding")
    assert piped.out == file.read_text() and "7 exported" in piped.err
    assert ndml("import", str(file)).out == "0 imported, 7 there already, 0 refused\n"
    assert ndml("import", str(file), "--into", "bob", "-o", "json").json["imported"] == 7
    theirs = [json.loads(line) for line in ndml("export", "--user", "bob", "--embedding").out.splitlines()]
    ours = [json.loads(line) for line in file.read_text().splitlines()]
    assert [{**row, "scope": None} for row in theirs] == [{**row, "scope": None} for row in ours]


def test_a_refused_import_line_is_reported(ndml: Command, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps({"trace_id": "a" * 32, "text": "x"}) + "\n" + json.dumps({"trace_id": "b" * 32, "text": ""}) + "\n")
    done = ndml("import", str(file))
    assert done.code == 2 and "1 imported, 0 there already, 1 refused" in done.out and "memory 2: FIELD_INVALID" in done.err


def test_an_export_that_breaks_off_leaves_no_file(ndml: Command, server: Any, tmp_path: Path) -> None:
    server.world.failures.append(("ExportMemories", InternalFault("ours")))
    file = tmp_path / "out.jsonl"
    assert ndml("export", str(file)).code == 1 and list(tmp_path.iterdir()) == []


def test_a_memory_cannot_drive_the_terminal(ndml: Command) -> None:
    ndml("add", "evil \x1b[2J[bold]plain[/bold]")
    shown = ndml("search", "evil").out
    assert "\x1b" not in shown and "[bold]plain[/bold]" in shown


def test_chat(ndml: Command, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ndml("add", "fact")
    refused = ndml("chat", "what?")
    assert refused.code == 1 and "MODEL_NOT_CONFIGURED" in refused.err and "set NDML_LLM" in refused.err
    server.world.model = "tiny"
    asked = ndml("chat", "what?", "-o", "json").json
    assert (
        asked["text"] == "You said so."
        and asked["citations"][0]["text"] == "fact"
        and asked["usage"] == {"prompt_tokens": 9, "completion_tokens": 3}
    )
    told = ndml("chat", "what?")
    assert told.out.startswith("You said so.\n") and asked["answer_id"] == "answer-0" and "answer id: answer-1\n" in told.err
    assert "1 graded" in ndml("reinforce", "answer-1").out
    assert "answer id" not in ndml("chat", "what?", "--recall", "0").err
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n\n"))
    assert ndml("chat").code == 0
    roles = [turn.role for turn in server.world.calls("Chat")[-1].messages]
    assert roles == [2, 3, 2]


def test_chat_with_tools_and_learning(ndml: Command, server: Any) -> None:
    server.world.model = "tiny"
    wishes = ("--fusion", "knn", "--learning", "wait", "--model", "tiny", "--tool", "look", "--tool", 'sum={"type": "object"}')
    told = ndml("chat", "what?", *wishes, "--tool-choice", "sum")
    assert "call-look" in told.out and f"learned: {'f' * 32}" in told.err
    sent = server.world.calls("Chat")[-1]
    assert (sent.fusion, sent.learning, sent.model, sent.tool_choice) == (5, 2, "tiny", "sum")
    assert [(tool.name, tool.parameters_json) for tool in sent.tools] == [("look", ""), ("sum", '{"type": "object"}')]
    asked = ndml("chat", "what?", "--tool", "look", "-o", "json").json
    assert asked["tool_calls"] == [{"id": "call-look", "name": "look", "arguments": "{}"}] and asked["learned_trace_ids"] == []
    assert ndml("chat", "what?", "--tool", "=x").code == 2 and ndml("chat", "what?", "--fusion", "telepathy").code == 2


def test_status_and_snapshot(ndml: Command) -> None:
    shown = ndml("status").out
    assert all(word in shown for word in ("healthy", "ndml-gateway", "0:01:30", "n0", "owner"))
    assert ndml("status", "-o", "json").json["cluster"]["services"][0]["uptime"] == 90.0
    assert ndml("snapshot", "-o", "json").json["snapshots"][0]["path"] == "/snapshots/1"


def test_doctor_finds_a_sound_suite_sound_and_leaves_nothing(ndml: Command, server: Any) -> None:
    report = ndml("doctor", "-o", "json")
    checks = {check["name"]: check for check in report.json["checks"]}
    assert report.code == 0 and report.json["healthy"] and all(check["ok"] for check in checks.values())
    assert list(checks) == ["connection", "health", "reflection", "services", "version", "owners", "memory", "clock"]
    assert server.world.traces[("default", "ndml-doctor")] == {}
    quiet = ndml("doctor", "--read-only", "-o", "json").json
    assert quiet["checks"][-1]["ok"] is None and len(server.world.calls("AddMemory")) == 1


def test_doctor_says_what_is_wrong(ndml: Command, server: Any) -> None:
    server.world.clock_skew_s = 60
    server.world.failures.append(("GetPlacement", InternalFault("ours")))
    report = ndml("doctor")
    assert report.code == 1 and "ahead of this machine" in report.out and "run NTP" in report.out and "INTERNAL: ours" in report.out


def test_doctor_without_a_suite(server: Any, ndml: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    server.stop()
    monkeypatch.setattr("ndml.cli.doctor._CONNECT_S", 0.3)
    report = ndml("doctor", "-o", "json")
    assert (
        report.code == 4 and [check["ok"] for check in report.json["checks"]] == [False] and "make run" in report.json["checks"][0]["fix"]
    )


def test_global_options_stand_anywhere() -> None:
    assert hoist(["add", "x", "--user", "ann", "--label", "a=b", "-ojson", "--output=json", "--", "--user", "y"]) == [
        "--user", "ann", "-ojson", "--output=json", "add", "x", "--label", "a=b", "--", "--user", "y",
    ]  # fmt: skip
    assert hoist(["stats", "--user"]) == ["--user", "stats"]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0 and capsys.readouterr().out == f"ndml {__version__}\n"
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    commands = ("add", "search", "get", "list", "update", "delete", "export", "import", "stats", "chat", "status", "doctor", "snapshot")
    assert all(name in shown for name in (*commands, "reinforce", "consolidate")) and "Exit codes" in shown
