"""The `ndml` command as a process of its own, against the running suite."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ndml.client import Embedding

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Command:
    def __init__(self, address: str, user: str) -> None:
        self._environment = {**os.environ, "NDML_ADDRESS": address, "NDML_USER": user, "COLUMNS": "200", "NDML_OUTPUT": "json"}

    def __call__(self, *arguments: str, stdin: str = "") -> Done:
        command = [sys.executable, "-m", "ndml.cli", *arguments]
        done = subprocess.run(command, env=self._environment, input=stdin, capture_output=True, text=True, timeout=90, check=False)
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def ndml(suite: Any) -> Command:
    return Command(suite.grpc_address, f"cli-{uuid.uuid4().hex}")


def test_a_memory_from_the_terminal_and_back(ndml: Command) -> None:
    added = ndml("add", "-", "--speaker", "Mona", "--label", "topic=travel", stdin="The ferry to Naxos leaves at seven.").json
    ndml("add", "Basil needs sun and little water.")
    hits = ndml("search", "when does the boat to the island go?", "-k", "2", "--explain").json["hits"]
    assert hits[0]["memory"]["trace_id"] == added["trace_id"] and hits[0]["score"] > hits[1]["score"]
    assert sum(hits[0]["signals"].values()) == pytest.approx(hits[0]["score"], abs=1e-3)
    assert [hit["memory"]["trace_id"] for hit in ndml("search", "boat", "--label", "topic=travel").json["hits"]] == [added["trace_id"]]
    changed = ndml("update", added["trace_id"], "--text", "The ferry to Naxos leaves at nine.", "--expected-version", "1").json
    assert changed["version"] == 2 and changed["speaker"] == "Mona"
    assert [memory["text"][:5] for memory in ndml("list").json["memories"]] == ["Basil", "The f"]
    assert ndml("stats").json["traces"] == 2
    assert ndml("delete", added["trace_id"]).json["deleted"] is True
    gone = ndml("get", added["trace_id"])
    assert gone.code == 3 and json.loads(gone.err)["error"]["reason"] == "TRACE_NOT_FOUND"


def test_tables_are_for_people(ndml: Command) -> None:
    ndml("add", "The kettle is by the window.")
    shown = ndml("search", "kettle", "-o", "table")
    assert shown.code == 0 and "The kettle is by the window." in shown.out and "1 of 1 memories" in shown.out and "\x1b" not in shown.out
    refused = ndml("search", "kettle", "-k", "5000", "-o", "table")
    assert refused.code == 2 and refused.err.startswith("ndml: INVALID_ARGUMENT FIELD_INVALID") and "field: k" in refused.err


def test_a_conversation_goes_in_once_and_moves_to_another_user(ndml: Command, tmp_path: Path) -> None:
    talk = tmp_path / "talk.jsonl"
    rows = [
        {"id": f"t{i}", "session": "s1", "speaker": "Ann", "said_at": f"2026-05-01T10:{i:02}:00Z", "text": f"sentence number {i}"}
        for i in range(30)
    ]
    talk.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ndml("add", "--file", str(talk), "--request-id", "talk").json["added"] == 30
    again = ndml("add", "--file", str(talk), "--request-id", "talk").json
    assert (again["added"], again["replayed"]) == (0, 30)
    taken = tmp_path / "taken.jsonl"
    exported = ndml("export", str(taken), "--embedding")
    assert exported.json["exported"] == 30 and exported.err == ""
    other = f"cli-{uuid.uuid4().hex}"
    assert ndml("import", str(taken), "--into", other).json["imported"] == 30
    assert ndml("import", str(taken), "--into", other).json["skipped"] == 30
    mine, theirs = ([json.loads(line) for line in ndml("export", "--embedding", *who).out.splitlines()] for who in ([], ["--user", other]))
    assert [row["metadata"]["id"] for row in mine] == [f"t{i}" for i in range(30)]
    for ours, copied in zip(mine, theirs, strict=True):
        # The server brings every vector to unit length, which may turn its last bit: the only thing that an import may change.
        assert vector(ours) == pytest.approx(vector(copied), abs=1e-6)
        # What the gate once said of it is of the store it was written to.
        other_store = {"scope": None, "embedding": None, "gate": None}
        assert ours | other_store == copied | other_store


def vector(row: dict[str, Any]) -> list[float]:
    return Embedding(base64.b64decode(row["embedding"]["vector"])).floats().tolist()


def test_doctor_and_status_of_a_sound_suite(ndml: Command) -> None:
    report = ndml("doctor")
    assert report.code == 0, report.out
    services = ndml("status").json["cluster"]["services"]
    assert {row["service"] for row in services if row["reachable"]} == {"ndml-gateway", "ndml-memory-node", "ndml-consensus", "ndml-llm"}


def test_chat_with_a_model_that_is_not_there_names_the_one_that_is(ndml: Command) -> None:
    refused = ndml("chat", "hello", "--model", "gpt-x")
    error = json.loads(refused.err)["error"]
    assert refused.code == 3 and error["reason"] == "MODEL_UNKNOWN" and "'ndml-tiny'" in error["message"]


def test_a_chat_from_the_terminal_remembers_cites_and_is_graded(ndml: Command) -> None:
    [learned] = ndml("chat", "My sister is called Maja.", "--learning", "wait").json["learned_trace_ids"]
    answer = ndml("chat", "-", "--learning", "off", stdin="What is my sister called?").json
    assert "Maja" in answer["text"] and [cited["trace_id"] for cited in answer["citations"]] == [learned]
    assert (answer["model"], answer["fusion"], answer["finish_reason"]) == ("ndml-tiny", "prompt", "stop")
    graded = ndml("reinforce", answer["answer_id"], "--grade", "1").json
    assert [row["trace_id"] for row in graded["results"]] == [learned]
    conversation = ndml("chat", stdin="What is my sister called?\n\n")
    assert "Maja" in conversation.json["text"]


def test_a_snapshot_counts_what_is_there(ndml: Command) -> None:
    ndml("add", "worth keeping")
    taken = ndml("snapshot").json["snapshots"]
    assert taken and sum(row["traces"] for row in taken) >= 1 and all(len(row["sha256"]) == 64 for row in taken)


def test_the_python_quick_start_runs(suite: Any) -> None:
    environment = {**os.environ, "NDML_ADDRESS": suite.grpc_address}
    script = ROOT / "examples" / "clients" / "python" / "quickstart.py"
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "I moved to Lisbon in May." in done.stdout.splitlines()[0]


def test_the_curl_page_works_as_it_stands(suite: Any) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not on the PATH")
    user = f"curl-{uuid.uuid4().hex}"
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "examples" / "curl.md").read_text(), re.DOTALL)
    script = "set -eu -o pipefail\nshopt -s expand_aliases\n" + "".join(blocks).replace("lisbon-1", user)
    script = script.replace('"ann"', f'"{user}"').replace("user=ann", f"user={user}").replace("user_id=ann", f"user_id={user}")
    environment = {**os.environ, "NDML": suite.rest_url, "no_proxy": "127.0.0.1"}
    done = subprocess.run(["bash"], input=script, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    for part in ("I moved to Lisbon in May.", "topic", '"reason"', "FIELD_INVALID", "exit 22", "walnuts", "healthy", "Dentist on Friday."):
        assert part in done.stdout, part
