"""Filters against a plain reading of their definition, over random traces and conditions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndml.errors import FieldInvalid
from ndml.v1.types_pb2 import AnyOf, Filter, MemoryTrace, MetadataCondition, NumberRange, TimeRange
from services.memory_node.filters import conditions
from services.memory_node.records import decimal, timestamp
from tests.unit.memory_node import node_harness as harness

WORDS = ["", "a", "b", "7", "7.0", "-0.5", "1e3", "1_000", "nan", " 7", "ü\x00"]
KEYS = ["k", "key", "K"]
SECONDS = 1_000_000

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(WORDS), max_size=3)
times = st.integers(-3, 3).map(lambda s: harness.T0_US + s * SECONDS)
bounds = st.one_of(st.none(), st.sampled_from([-0.5, 7.0, 7.5, 1000.0]))


@st.composite
def number_ranges(draw: st.DrawFn) -> NumberRange:
    return NumberRange(at_least=draw(bounds), less_than=draw(bounds))


@st.composite
def time_ranges(draw: st.DrawFn) -> TimeRange:
    made = TimeRange()
    for name in ("from", "until"):
        at = draw(st.one_of(st.none(), times))
        if at is not None:
            getattr(made, name).CopyFrom(timestamp(at))
    return made


metadata_conditions = st.builds(
    lambda key, condition: MetadataCondition(key=key, **condition),
    st.sampled_from(KEYS),
    st.one_of(
        st.fixed_dictionaries({"equals": st.sampled_from(WORDS)}),
        st.fixed_dictionaries({"any_of": st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(lambda v: AnyOf(values=v))}),
        st.fixed_dictionaries({"exists": st.booleans()}),
        st.fixed_dictionaries({"range": number_ranges()}),
    ),
)
filters = st.builds(
    Filter,
    metadata=st.lists(metadata_conditions, max_size=2),
    said_at=st.one_of(st.none(), time_ranges()),
    learned_at=st.one_of(st.none(), time_ranges()),
    kinds=st.lists(st.integers(0, 3), max_size=2),
    speakers=st.lists(st.sampled_from(["", "ann", "bo", "nobody"]), max_size=2),
)
traces = st.lists(
    st.fixed_dictionaries(
        {
            "metadata": labels,
            "kind": st.integers(1, 3),
            "speaker": st.sampled_from(["", "ann", "bo"]),
            "agent": st.sampled_from(["", "x", "y"]),
            "session": st.sampled_from(["", "x", "y"]),
            "said_at_us": times,
            "learned_at_us": times,
        }
    ),
    min_size=1,
    max_size=12,
)


def meets(trace: MemoryTrace, wanted: Filter, agent: str, session: str) -> bool:
    """The definition in types.proto, word by word."""
    if (agent and trace.scope.agent != agent) or (session and trace.scope.session != session):
        return False
    if wanted.kinds and 0 not in wanted.kinds and trace.kind not in wanted.kinds:
        return False
    if wanted.speakers and trace.speaker not in wanted.speakers:
        return False
    for name in ("said_at", "learned_at"):
        at, interval = getattr(trace, name).ToNanoseconds(), getattr(wanted, name)
        if interval.HasField("from") and at < getattr(interval, "from").ToNanoseconds():
            return False
        if interval.HasField("until") and at >= interval.until.ToNanoseconds():
            return False
    return all(_label_meets(trace.metadata, condition) for condition in wanted.metadata)


def _label_meets(metadata: dict[str, str], condition: MetadataCondition) -> bool:
    kind, there = condition.WhichOneof("condition"), condition.key in metadata
    if kind == "exists":
        return there == condition.exists
    if not there:
        return False
    value = metadata[condition.key]
    if kind == "equals":
        return value == condition.equals
    if kind == "any_of":
        return value in condition.any_of.values
    if value not in {"7", "7.0", "-0.5", "1e3"}:
        return False
    number, wanted = float(value), condition.range
    return not (wanted.HasField("at_least") and number < wanted.at_least) and not (
        wanted.HasField("less_than") and number >= wanted.less_than
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=traces, wanted=filters, agent=st.sampled_from(["", "x", "z"]), session=st.sampled_from(["", "y"]), changed=labels)
async def test_search_and_list_return_exactly_what_meets_the_conditions(rows, wanted, agent, session, changed) -> None:  # type: ignore[no-untyped-def]
    made = [harness.trace(i, **row) for i, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as directory:
        async with harness.running(harness.settings(Path(directory))) as node:
            await node.put("u", *made)
            await node.put("v", *[harness.trace(f"other {i}", **row) for i, row in enumerate(rows)])
            assert await node.found("u", 0, 1)  # from here on rows 0 and 1 change under a partition in memory
            update = {"trace": MemoryTrace(trace_id=made[0].trace_id, metadata=changed), "fields": ["metadata"]}
            await node.one(harness.operation("u", update=update))
            made[0].ClearField("metadata")
            made[0].metadata.update(changed)
            gone = made.pop(1) if len(made) > 1 else None
            if gone is not None:
                await node.one(harness.operation("u", delete={"trace_id": gone.trace_id}))
            expected = {each.text for each in made if meets(each, wanted, agent, session)}
            narrowed = {"agent": agent, "session": session, "filter": wanted}
            assert set(await node.found("u", 0, 50, **narrowed)) == expected
            assert set(harness.texts(await node.every("u", limit=2, **narrowed))) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7.0),
        ("+7.", 7.0),
        (".5", 0.5),
        ("-1e-2", -0.01),
        ("", None),
        ("1_000", None),
        ("inf", None),
        ("0x7", None),
        ("٧", None),
        ("7 ", None),
    ],
)
def test_what_reads_as_a_decimal_number(text: str, number: float | None) -> None:
    assert decimal(text) == number


def test_a_condition_without_a_test_is_refused_by_name() -> None:
    with pytest.raises(FieldInvalid) as caught:
        conditions("", "", Filter(metadata=[MetadataCondition(key="k")]))
    assert caught.value.violations[0].field == "filter.metadata[0].condition"
