"""The auditor: every verdict provoked, in every order in which it can come about."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt.audit import Auditor, Kind, Limits, Reason, verify_many
from ndml.crdt.chain import MemoryChainStore, row_of
from ndml.crdt.envelope import Envelope, leaf
from ndml.crdt.evidence import Proof, Vouch, vouch
from ndml.crdt.keys import public_bytes
from ndml.crdt.roster import Author, Roster
from ndml.errors import FieldInvalid, RequestMalformed
from tests.unit.crdt.signed_world import NOW_MS, OWNER, auditor_of, clock_at, envelope_by, key_of, roster_of, signer_of


def accept(auditor: Auditor, *envelopes: Envelope) -> None:
    for envelope in envelopes:
        assert auditor.admit(envelope).kind is Kind.ACCEPT


def test_a_chain_is_taken_once_and_again_without_effect() -> None:
    store = MemoryChainStore()
    auditor = auditor_of("a", store=store)
    first = envelope_by("a", 2)
    second = envelope_by("a", 5, first)
    accept(auditor, first, second)
    rows = store.rows()
    assert [auditor.admit(envelope).kind for envelope in (first, second, replace(second, signature=b"0" * 64))] == [Kind.KNOWN] * 3
    assert store.rows() == rows == [row_of(first), row_of(second)]


FORGERIES: list[tuple[Callable[[], Envelope], Reason]] = [
    (lambda: envelope_by("stranger"), Reason.UNKNOWN_AUTHOR),
    (lambda: envelope_by("muted"), Reason.UNTRUSTED),
    (lambda: envelope_by("b", replica=envelope_by("a").replica), Reason.FOREIGN_REPLICA),
    (lambda: envelope_by("a", key="b"), Reason.BAD_SIGNATURE),
    (lambda: replace(envelope_by("a"), signature=b""), Reason.BAD_SIGNATURE),
    (lambda: replace(envelope_by("a"), counter=2), Reason.BAD_SIGNATURE),
    (lambda: envelope_by("a", ms=NOW_MS + 60_001), Reason.FUTURE),
    (lambda: envelope_by("a", 4, previous=4, previous_hash=b"x" * 32), Reason.NOT_FORWARD),
    (lambda: envelope_by("a", 3, previous=4, previous_hash=b"x" * 32), Reason.NOT_FORWARD),
]


@pytest.mark.parametrize(("make", "reason"), FORGERIES, ids=[f"{row[1]}-{i}" for i, row in enumerate(FORGERIES)])
def test_what_is_wrong_is_rejected_and_leaves_no_trace(make: Callable[[], Envelope], reason: Reason) -> None:
    store = MemoryChainStore()
    roster = roster_of("a", "b", "muted")
    silent = Roster(1, {**roster.authors, "muted": Author(public_bytes(key_of("muted")), 0)})
    auditor = Auditor(silent, lambda: NOW_MS, store)
    verdict = auditor.admit(make())
    assert (verdict.kind, verdict.reason, verdict.joins) == (Kind.REJECT, reason, False)
    assert (store.rows(), auditor.parked, auditor.quarantined) == ([], 0, {})
    accept(auditor, envelope_by("a", ms=NOW_MS + 60_000))


def test_every_reason_but_two_is_in_the_table_above() -> None:
    assert set(Reason) - {reason for _, reason in FORGERIES} == {Reason.QUARANTINED, Reason.FORGOTTEN}


def test_what_comes_before_its_past_waits_for_it() -> None:
    first, other = envelope_by("a", 1), envelope_by("b", 1)
    second = envelope_by("a", 2, first, deps=(other.dep,))
    third = envelope_by("a", 3, second)
    for order in permutations([first, other, second, third]):
        auditor = auditor_of("a", "b")
        joined: list[Envelope] = []
        for envelope in order:
            verdict = auditor.admit(envelope, envelope.hash[:4])
            assert verdict.kind in (Kind.ACCEPT, Kind.PARK)
            assert verdict.joins is (verdict.missing == ())
            joined += [envelope] if verdict.joins else []
            released = auditor.drain()
            assert all(payload == later.hash[:4] and answer.joins for later, payload, answer in released)
            joined += [later for later, _, _ in released]
        assert {one.hash for one in joined} == {one.hash for one in order}
        assert len(joined) == 4 and auditor.parked == 0
        places = [joined.index(envelope) for envelope in (first, second, third)]
        assert places == sorted(places) and joined.index(other) < joined.index(second)


def test_what_is_missing_is_named() -> None:
    auditor = auditor_of("a", "b")
    first, other = envelope_by("a", 1), envelope_by("b", 1)
    second = envelope_by("a", 2, first, deps=(other.dep,))
    assert auditor.admit(second).missing == (first.dep, other.dep)
    accept(auditor, other)
    assert auditor.drain() == []
    again = auditor.admit(second)
    assert (again.kind, again.missing, auditor.parked) == (Kind.PARK, (first.dep,), 1)


FIRST = envelope_by("a", 3)
SECOND = envelope_by("a", 6, FIRST)
HIDDEN = envelope_by("a", 6, FIRST, text=b"told to others")
LIES = {
    "same place": [FIRST, SECOND, HIDDEN],
    "same begin, other end": [FIRST, SECOND, envelope_by("a", 9, FIRST)],
    "overlap": [FIRST, SECOND, envelope_by("a", 8, previous=5, previous_hash=b"x" * 32)],
    "a link past what was sent": [FIRST, SECOND, envelope_by("a", 8, HIDDEN)],
    "two beginnings": [FIRST, envelope_by("a", 12, previous=10, previous_hash=bytes(32))],
    "both without their past": [envelope_by("a", 9, SECOND), envelope_by("a", 9, SECOND, text=b"other")],
}


@pytest.mark.parametrize("envelopes", LIES.values(), ids=LIES)
def test_a_lie_is_proven_in_any_order_and_ends_its_author(envelopes: list[Envelope]) -> None:
    for order in permutations(envelopes):
        store = MemoryChainStore()
        auditor = auditor_of("a", "b", store=store)
        verdicts = [verdict for envelope in order for verdict in (auditor.admit(envelope), *(row[2] for row in auditor.drain()))]
        proofs = [verdict.proof for verdict in verdicts if verdict.proof]
        assert len(proofs) == 1 and proofs[0].verify(auditor.roster)
        assert {verdict.kind for verdict in verdicts if verdict.proof} == {Kind.EQUIVOCATION}
        assert auditor.quarantined == {"a": proofs[0]}
        assert (auditor.trust("a"), auditor.trust("b")) == (0, 100)
        assert store.proofs() == [proofs[0].to_bytes()]
        late = auditor.admit(envelope_by("a", 50, previous=40, previous_hash=b"y" * 32))
        assert (late.kind, late.reason) == (Kind.REJECT, Reason.QUARANTINED)
        accept(auditor, envelope_by("b"))


def test_both_sides_of_a_lie_are_shown() -> None:
    auditor = auditor_of("a")
    accept(auditor, FIRST, SECOND)
    verdict = auditor.admit(HIDDEN)
    assert verdict.kind is Kind.EQUIVOCATION and verdict.joins
    assert auditor.admit(HIDDEN).kind is Kind.KNOWN


def test_a_quarantine_outlives_a_restart_and_ends_with_a_new_key() -> None:
    store = MemoryChainStore()
    auditor = auditor_of("a", store=store)
    accept(auditor, FIRST, SECOND)
    auditor.admit(HIDDEN)
    again = auditor_of("a", store=store)
    assert again.quarantined == auditor.quarantined != {}
    renewed = Roster(2, {"a": Author(public_bytes(key_of("a, renewed")))})
    with pytest.raises(FieldInvalid, match="does not follow"):
        again.replace_roster(roster_of("a", "b"))
    assert "a" in again.quarantined
    again.replace_roster(renewed)
    assert again.quarantined == {}
    assert again.admit(envelope_by("a", 9, SECOND)).reason is Reason.BAD_SIGNATURE
    accept(again, envelope_by("a", 9, SECOND, key="a, renewed"))


def test_a_proof_is_taken_from_anybody_and_a_false_one_from_nobody() -> None:
    auditor = auditor_of("a", "b")
    forged = Proof(SECOND, replace(HIDDEN, signature=bytes(64)))
    assert not auditor.learn(forged) and auditor.quarantined == {}
    proof = Proof(SECOND, HIDDEN)
    assert auditor.learn(Proof.from_bytes(proof.to_bytes()))
    assert not auditor.learn(proof)
    assert auditor.admit(FIRST).reason is Reason.QUARANTINED
    assert auditor.admit(SECOND).missing == (FIRST.dep,)
    accept(auditor, FIRST)
    assert [row[2].kind for row in auditor.drain()] == [Kind.ACCEPT]


def test_replicas_that_heard_of_the_lie_at_different_times_meet_again() -> None:
    third = envelope_by("a", 9, SECOND)
    early, late = auditor_of("a", "b", "c"), auditor_of("a", "b", "c")
    accept(early, FIRST, SECOND, third)
    early.admit(HIDDEN)
    accept(late, FIRST, SECOND)
    late.admit(HIDDEN)
    assert late.admit(third).reason is Reason.QUARANTINED
    assert not late.take(vouch(key_of("c"), "b", third.hash))
    assert not late.take(vouch(key_of("stranger"), "stranger", third.hash))
    assert not late.take(vouch(key_of("a"), "a", third.hash))
    assert late.admit(third).reason is Reason.QUARANTINED
    word = vouch(key_of("b"), "b", third.hash)
    assert late.take(Vouch.from_bytes(word.to_bytes()))
    accept(late, third)


def test_an_honest_dependency_vouches_for_what_it_names() -> None:
    third = envelope_by("a", 9, SECOND)
    auditor = auditor_of("a", "b")
    accept(auditor, FIRST, SECOND)
    auditor.admit(HIDDEN)
    after = envelope_by("b", 1, deps=(third.dep,))
    assert auditor.admit(after).missing == (third.dep,)
    accept(auditor, third)
    assert [(row[0], row[2].kind) for row in auditor.drain()] == [(after, Kind.ACCEPT)]


def test_what_was_parked_before_the_lie_is_rejected_after_it() -> None:
    auditor = auditor_of("a", "b")
    other = envelope_by("b", 1)
    parked = envelope_by("a", 9, SECOND, deps=(other.dep,))
    accept(auditor, FIRST, SECOND)
    assert auditor.admit(parked).kind is Kind.PARK
    auditor.admit(HIDDEN)
    accept(auditor, other)
    assert [row[2].reason for row in auditor.drain()] == [Reason.QUARANTINED]
    assert auditor.parked == 0


def gap(name: str, number: int) -> Envelope:
    return envelope_by(name, 2 * number + 2, previous=2 * number + 1, previous_hash=b"x" * 32)


def test_who_floods_loses_its_own() -> None:
    auditor = auditor_of("a", "b", limits=Limits(pending_per_author=3, pending=5))
    theirs = [gap("b", number) for number in range(2)]
    ours = [gap("a", number) for number in range(6)]
    for envelope in (*theirs, *ours):
        assert auditor.admit(envelope).kind is Kind.PARK
    assert auditor.parked == 5
    assert [auditor.admit(envelope).kind for envelope in theirs] == [Kind.PARK] * 2
    assert auditor.parked == 5


def test_what_waits_is_bounded_in_bytes() -> None:
    auditor = auditor_of("a", "b", limits=Limits(pending_bytes=3000))
    small = gap("b", 0)
    auditor.admit(small, b"x")
    for number in range(9):
        auditor.admit(gap("a", number), b"x" * 1000)
    assert auditor.parked == 3
    auditor.admit(gap("a", 20), b"x" * 4000)
    assert auditor.parked == 1
    assert auditor.admit(small).kind is Kind.PARK and auditor.parked == 1


def test_what_is_older_than_what_is_remembered_has_no_effect() -> None:
    store = MemoryChainStore(keep=2)
    auditor = auditor_of("a", store=store)
    chain = [envelope_by("a", 1)]
    for counter in (2, 3, 4, 5):
        chain.append(envelope_by("a", counter, chain[-1]))
    accept(auditor, *chain)
    assert store.floor(*OWNER, chain[0].replica) == 3
    assert [auditor.admit(envelope).kind for envelope in chain] == [Kind.KNOWN] * 5
    assert auditor.admit(envelope_by("a", 2, chain[0], text=b"other")).kind is Kind.KNOWN
    reborn = envelope_by("a", 9, previous=8, previous_hash=bytes(32))
    assert auditor.admit(reborn).reason is Reason.FORGOTTEN
    accept(auditor, envelope_by("a", 6, chain[-1]))


def test_a_fork_that_spans_what_was_forgotten_is_proven_by_what_is_kept() -> None:
    auditor = auditor_of("a", store=MemoryChainStore(keep=2))
    chain = [envelope_by("a", 1)]
    for counter in (2, 3, 4, 5):
        chain.append(envelope_by("a", counter, chain[-1]))
    accept(auditor, *chain)
    assert auditor.admit(envelope_by("a", 4, chain[1], text=b"other")).kind is Kind.EQUIVOCATION


def test_a_copied_owner_goes_on_where_its_source_was() -> None:
    chain = [envelope_by("a", 1)]
    for counter in (2, 3, 4, 5):
        chain.append(envelope_by("a", counter, chain[-1]))
    other = envelope_by("b", 4, previous=3, previous_hash=b"x" * 32, deps=(chain[3].dep,))
    auditor = auditor_of("a", "b")
    assert auditor.admit(chain[4]).kind is Kind.PARK
    assert auditor.adopt([other, chain[3], envelope_by("a", 9, chain[4], key="b")]) == 2
    assert [(row[0], row[2].kind) for row in auditor.drain()] == [(chain[4], Kind.ACCEPT)]
    assert [auditor.admit(envelope).kind for envelope in (*chain, other)] == [Kind.KNOWN] * 6
    assert auditor.adopt(chain) == 0


def test_adopting_finds_lies_too() -> None:
    auditor = auditor_of("a")
    accept(auditor, FIRST, SECOND)
    assert auditor.adopt([HIDDEN]) == 1
    assert set(auditor.quarantined) == {"a"}


def test_without_bound_numbers_the_first_to_write_has_the_chain() -> None:
    auditor = auditor_of("a", "b", limits=Limits(bound_replicas=False))
    accept(auditor, envelope_by("a", 1, replica=5), envelope_by("b", 1, replica=6))
    assert auditor.admit(envelope_by("b", 1, replica=5)).reason is Reason.FOREIGN_REPLICA
    assert auditor.admit(envelope_by("b", 9, previous=8, previous_hash=bytes(32), replica=5)).reason is Reason.FOREIGN_REPLICA
    assert auditor.quarantined == {}


def test_an_honest_signer_names_its_past_and_what_is_new_of_others() -> None:
    store = MemoryChainStore()
    auditor, mine, theirs = auditor_of("a", "b", store=store), signer_of("a", store), signer_of("b", MemoryChainStore())
    made = []
    for counter in range(1, 4):
        envelope = mine.seal(*OWNER, counter - 1, counter, clock_at(NOW_MS), [leaf(b"record")])
        made.append(envelope)
        store.put(row_of(envelope))
        if counter == 1:
            other = theirs.seal(*OWNER, 0, 1, clock_at(NOW_MS), [leaf(b"another")])
            accept(auditor, other)
    assert [envelope.deps for envelope in made] == [(), (other.dep,), ()]
    accept(auditor_of("a", "b"), made[0], other, *made[1:])
    with pytest.raises(FieldInvalid, match="ends at 3, not 7"):
        mine.seal(*OWNER, 7, 8, clock_at(NOW_MS), [])


def test_signatures_are_checked_in_parallel_in_their_order() -> None:
    roster = roster_of("a", "b")
    good = [envelope_by("a", counter) for counter in range(1, 30)]
    mixed = [*good, envelope_by("stranger"), envelope_by("b", key="a"), envelope_by("b")]
    with ThreadPoolExecutor(2) as pool:
        assert verify_many(roster, mixed, pool, 2) == verify_many(roster, mixed) == [True] * 29 + [False, False, True]
    assert verify_many(roster, []) == []


@given(st.binary(max_size=900))
@settings(max_examples=150, deadline=None)
def test_hostile_evidence_is_an_error_of_ours(data: bytes) -> None:
    for read in (Proof.from_bytes, Vouch.from_bytes):
        try:
            assert read(data).to_bytes() == data
        except RequestMalformed as error:
            assert error.violations
    base = Proof(SECOND, HIDDEN).to_bytes()
    for hostile in (base[: len(data)], base + data[:1], data[:4] + base[4:], base[: len(base) // 2] + data):
        try:
            assert Proof.from_bytes(hostile).to_bytes() == hostile
        except RequestMalformed as error:
            assert error.violations


def test_two_envelopes_that_agree_are_no_proof() -> None:
    with pytest.raises(FieldInvalid, match="no contradiction"):
        Proof(FIRST, SECOND)
