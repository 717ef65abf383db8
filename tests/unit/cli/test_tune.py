"""`ndml tune` against a server that scores by weights and by what each memory's labels say that a signal finds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ndml.cli.tuning.measures import LEAST_HELD_OUT, LEAST_TRAIN, held_out, question_of
from ndml.v1 import types_pb2

Command = Callable[..., Any]
QUESTIONS, CANDIDATES = 90, 12


@pytest.fixture
def feedback(server: Any, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a user of its own for each question, with memories whose "lexical" is right and whose "dense" is noise (with `lost` both are
    noise), and the file of feedback."""
    server.world.weights = {"dense": 3.0, "lexical": 1.0, "speaker": 0.5, "newest": 1.0}

    def make(*, lost: bool = False, questions: int = QUESTIONS) -> Path:
        draw, rows = random.Random(3), []
        for i in range(questions):
            owner, helpful = ("default", f"user{i}"), draw.randrange(CANDIDATES)
            for j in range(CANDIDATES):
                trace_id = f"{i * CANDIDATES + j + 1:032x}"
                labels = {
                    "dense": draw.gauss(0, 1),
                    "lexical": draw.gauss(0, 1) + 3 * (j == helpful and not lost),
                    "speaker": draw.gauss(0, 0.1),
                }
                trace = types_pb2.MemoryTrace(
                    trace_id=trace_id, text=f"memory {j}", metadata={name: str(value) for name, value in labels.items()}
                )
                server.world.traces.setdefault(owner, {})[trace_id] = trace
            wanted = f"{i * CANDIDATES + helpful + 1:032x}"
            rows.append({"query": f"What was number {i}?", "scope": {"user": f"user{i}"}, "helpful": [wanted], "at": "2026-05-01"})
        file = tmp_path / "feedback.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    yield make


def test_what_helped_becomes_weights(ndml: Command, server: Any, feedback: Callable[..., Path], tmp_path: Path) -> None:
    file, out = feedback(), tmp_path / "ranking.yaml"
    shown = ndml("tune", str(file), "--out", str(out))
    assert shown.code == 0 and "are better" in shown.out and f"written to {out}" in shown.out, shown
    found = yaml.safe_load(out.read_text())
    assert set(found) == {"ranking"} and found["ranking"]["dense"] < 2 and found["ranking"]["lexical"] > 1.1
    assert not {"newest", "slot"} & set(found["ranking"])
    asked = server.world.calls("SearchMemories")
    assert all(call.explain and call.mode == types_pb2.SEARCH_MODE_FULL and call.k == 50 and call.HasField("filter") for call in asked)
    last = {field.name: value for field, value in asked[-1].weights.ListFields()}
    assert (
        set(last) == {"dense", "lexical", "speaker"}
        and last["dense"] == pytest.approx(found["ranking"]["dense"])
        and held_out(question_of(asked[-1].text))
    )
    document = ndml("tune", str(file), "-o", "json").json
    assert document["better"] and document["learned"] == pytest.approx(found["ranking"]) and yaml.safe_load(document["fragment"]) == found
    assert document["weights"]["dense"] == 3 and document["weights"]["speaker"] == 0.5 and "late" not in document["weights"]
    assert document["train"]["questions"] + document["held_out"]["questions"] == QUESTIONS and document["gain"][1] > 0
    assert document["held_out"]["learned"][0] > document["held_out"]["default"][0]


def test_the_fragment_is_all_that_stdout_has(ndml: Command, feedback: Callable[..., Path]) -> None:
    shown = ndml("tune", str(feedback()), "--seed", "7")
    assert shown.code == 0 and shown.err == "" and set(yaml.safe_load(shown.out)["ranking"]) <= {"dense", "lexical", "speaker"}
    assert "# held out" in shown.out and "seed 7" in shown.out and "# left alone: slot, newest" in shown.out


def test_feedback_that_says_nothing_writes_nothing(ndml: Command, feedback: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "ranking.yaml"
    file = feedback(lost=True)
    shown = ndml("tune", str(file), "--out", str(out))
    assert shown.code == 0 and "nothing is written, the weights in force stay" in shown.out and not out.exists(), shown
    on_stdout = ndml("tune", str(file))
    assert on_stdout.code == 0 and yaml.safe_load(on_stdout.out) is None and "nothing is written" in on_stdout.out
    document = ndml("tune", str(file), "-o", "json").json
    assert (document["better"], document["fragment"]) == (False, "")


def test_the_same_question_stands_on_one_side_and_counts_once(ndml: Command, feedback: Callable[..., Path]) -> None:
    file = feedback()
    lines = file.read_text().splitlines()
    again = [json.dumps({**json.loads(line), "query": json.loads(line)["query"].upper()}) for line in lines]
    file.write_text("\n".join([*lines, *again]))
    document = ndml("tune", str(file), "-o", "json").json
    assert document["train"]["questions"] + document["held_out"]["questions"] == QUESTIONS


def test_too_few_questions_are_refused_with_how_many_it_takes(ndml: Command, server: Any, feedback: Callable[..., Path]) -> None:
    refused = ndml("tune", str(feedback(questions=30)))
    assert refused.code == 2 and f"{LEAST_TRAIN} and {LEAST_HELD_OUT} are needed" in refused.err and "80" in refused.err
    assert not server.world.calls("SearchMemories")


def test_an_id_that_is_not_there_is_named_with_its_line(ndml: Command, feedback: Callable[..., Path]) -> None:
    file = feedback()
    lines = file.read_text().splitlines()
    lines[6] = json.dumps({**json.loads(lines[6]), "helpful": ["f" * 32]})
    file.write_text("\n".join(lines))
    refused = ndml("tune", str(file))
    assert refused.code == 2 and f"line 7: no memory {'f' * 32}" in refused.err and "line 7.helpful" in refused.err


@pytest.mark.parametrize(
    ("line", "field", "word"),
    [
        ("no json", "line 1", "not JSON"),
        ('["a list"]', "line 1", "one JSON object"),
        ('{"helpful": ["' + "0" * 32 + '"]}', "line 1.query", "query is empty"),
        ('{"query": "a"}', "line 1.helpful", "1 to 100 ids"),
        ('{"query": "a", "helpful": "x"}', "line 1.helpful", "must be a list"),
        ('{"query": "a", "helpful": ["x"]}', "line 1.helpful", "32 hexadecimal digits"),
        ('{"query": "a", "helpful": [' + ",".join(['"' + "0" * 32 + '"'] * 101) + "]}", "line 1.helpful", "got 101"),
        ('{"query": "a", "helpful": ["' + "0" * 32 + '"], "at": "soon"}', "line 1.at", "not a time"),
        ('{"query": "a", "helpful": ["' + "0" * 32 + '"], "scope": {"tenant": "t"}}', "line 1.scope", "known: user, agent, session"),
        ('{"query": "a", "helpful": ["' + "0" * 32 + '"], "grade": 1}', "line 1", "unknown key 'grade'"),
        ('{"query": "' + "a" * 140_000 + '"}', "line 1", "longer than"),
    ],
)
def test_a_bad_line_is_named_with_its_field(ndml: Command, tmp_path: Path, line: str, field: str, word: str) -> None:
    file = tmp_path / "feedback.jsonl"
    file.write_text(line + "\n")
    refused = ndml("tune", str(file), "-o", "json")
    assert refused.code == 2
    error = json.loads(refused.err)["error"]
    assert word in error["message"] and error["message"].startswith("line 1") and [row["field"] for row in error["fields"]] in ([field], [])


def test_more_lines_than_the_bound_are_refused(ndml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndml.cli.records.MOST_QUESTIONS", 2)
    file = tmp_path / "feedback.jsonl"
    file.write_text(
        json.dumps({"query": "a", "helpful": ["0" * 32]}) + "\n" + json.dumps({"query": "b", "helpful": ["0" * 32]}) + "\n\n" + "{}"
    )
    refused = ndml("tune", str(file))
    assert refused.code == 2 and "line 4: more than 2 questions" in refused.err


def test_a_line_without_a_user_needs_one(ndml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NDML_USER")
    file = tmp_path / "feedback.jsonl"
    file.write_text(json.dumps({"query": "a", "helpful": ["0" * 32]}) + "\n")
    refused = ndml("tune", str(file))
    assert refused.code == 2 and "line 1: say whose memory" in refused.err


def test_a_suite_whose_shares_are_no_weights_times_finds_is_refused(ndml: Command, server: Any, feedback: Callable[..., Path]) -> None:
    file = feedback()
    server.world.weights = {"dense": 3.0, "salience": 1.0}
    for number, trace in enumerate(trace for traces in server.world.traces.values() for trace in traces.values()):
        trace.metadata["dense"] = str(1 + number % 7)
    shares = server.world.weights

    class Drifting(dict[str, float]):
        """Weights that are other ones at each look: memory or settings change while they are asked."""

        def items(self) -> Any:
            shares["dense"] *= 1.01
            return {"dense": shares["dense"], "lexical": shares["dense"]}.items()

    server.world.weights = Drifting(dense=3.0)
    refused = ndml("tune", str(file))
    assert refused.code == 1 and "no weights give the rankings of this suite" in refused.err


def test_without_any_share_nothing_is_learned(ndml: Command, server: Any, feedback: Callable[..., Path]) -> None:
    file = feedback()
    for traces in server.world.traces.values():
        for trace in traces.values():
            trace.metadata.clear()
    document = ndml("tune", str(file), "-o", "json").json
    assert not document["better"] and document["learned"] == {} and "nothing was learned" in document["why"]


def test_without_any_hit_nothing_is_learned(ndml: Command, server: Any, feedback: Callable[..., Path]) -> None:
    file = feedback()
    for traces in server.world.traces.values():
        for trace in traces.values():
            trace.state = types_pb2.LIFECYCLE_STATE_ARCHIVED
    shown = ndml("tune", str(file))
    assert (
        shown.code == 0 and yaml.safe_load(shown.out) is None and f"of {QUESTIONS} lines no helpful memory was among the hits" in shown.out
    )
