"""Keys and envelopes: one form, one hash; whatever is changed is noticed; hostile bytes are a clear error."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ndml.crdt import envelope as envelopes
from ndml.crdt import keys
from ndml.crdt.envelope import Dep, Envelope, check_items, check_some, conflict, items_hash, leaf, owns_replica, replica_number
from ndml.errors import FieldInvalid, RequestMalformed
from tests.unit.crdt.signed_world import envelope_by, key_of

RECORDS = [b"first", b"second", b"third"]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
POSITION = st.integers(1, envelopes.MAX_POSITION)
HASH = st.binary(min_size=32, max_size=32)


def batch() -> Envelope:
    made = envelope_by("node-1", 9, previous=4, previous_hash=b"p" * 32, deps=(Dep(3, 8, b"d" * 32), Dep(11, 2, b"e" * 32)))
    leaves = [leaf(record) for record in RECORDS]
    return replace(made, items=3, items_hash=items_hash(leaves)).sign(key_of("node-1"))


@st.composite
def any_envelope(draw: st.DrawFn) -> Envelope:
    deps = draw(st.dictionaries(st.integers(2, envelopes.MAX_POSITION), st.tuples(st.integers(1, 1 << 40), HASH), max_size=5))
    made = Envelope(
        tenant=draw(NAMES),
        user=draw(NAMES),
        node_id=draw(NAMES.filter(bool)),
        replica=1,
        previous=draw(POSITION),
        counter=draw(POSITION),
        clock=draw(POSITION),
        items_hash=draw(HASH),
        items=draw(st.integers(0, envelopes.MAX_ITEMS)),
        previous_hash=draw(HASH),
        deps=tuple(Dep(replica, *rest) for replica, rest in sorted(deps.items())),
    )
    return replace(made, signature=draw(st.binary(min_size=64, max_size=64)))


@given(any_envelope())
@settings(max_examples=80, deadline=None)
def test_an_envelope_comes_back_from_its_bytes(sent: Envelope) -> None:
    got = Envelope.from_bytes(sent.to_bytes())
    assert got == sent
    assert got.hash == sent.hash
    assert len(sent.to_bytes()) <= envelopes.MAX_ENVELOPE_BYTES


@given(st.binary(max_size=800) | st.binary(max_size=800).map(lambda tail: b"NDU1" + tail))
@settings(max_examples=200, deadline=None)
def test_hostile_bytes_are_an_error_of_ours_or_an_envelope(data: bytes) -> None:
    try:
        got = Envelope.from_bytes(data)
    except RequestMalformed as error:
        assert error.violations[0].field in ("envelope", "signature")
    else:
        assert got.to_bytes() == data


def test_every_single_flipped_bit_is_noticed() -> None:
    sent = batch()
    public = key_of("node-1").public_key()
    data = sent.to_bytes()
    assert sent.verify(public)
    unnoticed = []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            if Envelope.from_bytes(bytes(flipped)).verify(public):
                unnoticed.append(bit)
        except RequestMalformed:
            continue
    assert not unnoticed


def test_the_format_is_what_other_releases_sign() -> None:
    """Put together by hand: a change of it is a change of the protocol, and old envelopes would no longer verify."""

    def number(value: int, width: int) -> bytes:
        return value.to_bytes(width, "big")

    sent = batch()
    leaves = b"".join(blake2b(record, digest_size=16).digest() for record in RECORDS)
    by_hand = [
        b"NDU1",
        *(number(value, 8) for value in (replica_number("node-1", 7), 4, 9, 1_700_000_000_000 << 16)),
        b"p" * 32,
        sha256(leaves).digest(),
        number(3, 4) + number(4, 1) + number(4, 2) + number(6, 1) + number(2, 1),
        b"acme" + b"anna" + b"node-1",
        number(3, 8) + number(8, 8) + b"d" * 32 + number(11, 8) + number(2, 8) + b"e" * 32,
    ]
    assert sent.canonical == b"".join(by_hand)
    assert sent.signature == key_of("node-1").sign(b"ndml-update-1" + sha256(sent.canonical).digest())


def test_a_signature_is_valid_for_updates_alone() -> None:
    sent = batch()
    key = key_of("node-1")
    assert not replace(sent, signature=key.sign(sent.hash)).verify(key.public_key())
    assert not replace(sent, signature=key.sign(b"ndml-vouch-1" + sent.hash)).verify(key.public_key())
    assert not replace(sent, signature=b"").verify(key.public_key())
    assert not sent.verify(key_of("node-2").public_key())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenant": "t" * 129}, "tenant"),
        ({"user": "u" * 257}, "user"),
        ({"user": "\ud800"}, "user"),
        ({"node_id": ""}, "node_id"),
        ({"node_id": "n" * 129}, "node_id"),
        ({"replica": 0}, "replica"),
        ({"replica": 1 << 63}, "replica"),
        ({"previous": -1}, "previous"),
        ({"counter": 1 << 63}, "counter"),
        ({"counter": 0}, "counter"),
        ({"previous": 0}, "previous_hash"),
        ({"clock": 1 << 63}, "clock"),
        ({"items": envelopes.MAX_ITEMS + 1}, "items"),
        ({"items_hash": b"short"}, "items_hash"),
        ({"previous_hash": b"p" * 33}, "previous_hash"),
        ({"signature": b"s" * 63}, "signature"),
        ({"deps": (Dep(5, 1, b"d" * 32), Dep(4, 1, b"d" * 32))}, "deps[1].replica"),
        ({"deps": (Dep(5, 1, b"d" * 32), Dep(5, 2, b"d" * 32))}, "deps[1].replica"),
        ({"deps": (Dep(replica_number("node-1", 7), 1, b"d" * 32),)}, "deps[0].replica"),
        ({"deps": (Dep(5, 0, b"d" * 32),)}, "deps[0]"),
        ({"deps": tuple(Dep(number, 1, b"d" * 32) for number in range(1, 66))}, "deps"),
    ],
)
def test_a_field_beyond_its_bound_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        replace(batch(), **change)
    assert caught.value.violations[0].field == field


def test_records_are_those_that_were_signed_in_their_order() -> None:
    sent = batch()
    check_items(sent, RECORDS)
    for wrong in ([], RECORDS[:2], RECORDS[::-1], [*RECORDS, b"fourth"], [b"first", b"second", b"changed"]):
        with pytest.raises(FieldInvalid, match="not what node 'node-1' signed"):
            check_items(sent, wrong)


def test_one_record_travels_with_the_leaves_of_its_job() -> None:
    sent = batch()
    leaves = [leaf(record) for record in RECORDS]
    check_some(sent, leaves, {1: b"second"})
    for bad_leaves, items in (
        (leaves, {1: b"changed"}),
        (leaves, {3: b"second"}),
        (leaves, {-1: b"third"}),
        ([leaf(b"changed"), *leaves[1:]], {0: b"changed"}),
        ([leaves[0] + leaves[1][:8], leaves[1][8:], leaves[2]], {2: b"third"}),
    ):
        with pytest.raises(FieldInvalid, match="not what node 'node-1' signed"):
            check_some(sent, bad_leaves, items)


def test_what_contradicts_and_what_does_not() -> None:
    first = envelope_by("node-1", 3)
    second = envelope_by("node-1", 6, first)
    unlike = {
        "same position": envelope_by("node-1", 6, first, text=b"other"),
        "same begin": envelope_by("node-1", 9, first),
        "overlap": envelope_by("node-1", 8, previous=5, previous_hash=b"x" * 32),
        "inside": envelope_by("node-1", 5, previous=4, previous_hash=b"x" * 32),
        "link past it": envelope_by("node-1", 8, previous=6, previous_hash=b"x" * 32),
    }
    assert {name for name, other in unlike.items() if conflict(second, other) and conflict(other, second)} == set(unlike)
    assert conflict(first, envelope_by("node-1", 12, previous=10, previous_hash=bytes(32)))
    fine = [
        first,
        envelope_by("node-1", 9, second),
        envelope_by("node-1", 12, previous=10, previous_hash=b"x" * 32),
        envelope_by("node-2", 6),
        envelope_by("node-1", 6, owner=("acme", "bert")),
        envelope_by("node-1", 6, replica=replica_number("node-1", 8)),
        second,
    ]
    assert not [other for other in fine if conflict(second, other) or conflict(other, second)]


@given(st.integers(1, (1 << 32) - 1), NAMES.filter(bool))
@settings(max_examples=50, deadline=None)
def test_a_store_number_names_its_node(random: int, name: str) -> None:
    number = replica_number(name, random)
    assert 0 < number < 1 << 63
    assert owns_replica(name, number)
    assert not owns_replica(name + "'", number)


def test_a_store_number_needs_randomness_in_its_range() -> None:
    for random in (0, 1 << 32):
        with pytest.raises(FieldInvalid, match="give 1 to"):
            replica_number("node-1", random)


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "node.pem"
    made = keys.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.public_bytes(keys.load_or_create(path)) == keys.public_bytes(made)
    assert [file.name for file in path.parent.iterdir()] == ["node.pem"]
    assert keys.is_signed(keys.public_key(keys.public_bytes(made)), made.sign(b"m"), b"m")


def test_processes_that_make_a_key_together_have_one(tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    script = (
        "import sys, pathlib; from ndml.crdt import keys; print(keys.public_bytes(keys.load_or_create(pathlib.Path(sys.argv[1]))).hex())"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {child.communicate(timeout=60)[0].strip() for child in children}
    assert answers == {keys.public_bytes(keys.load(path)).hex()}
    assert list(tmp_path.iterdir()) == [path]


def pem(key: Any, *, password: bytes | None = None) -> bytes:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not an unencrypted private key"),
        (b"not a key", "not an unencrypted private key"),
        (pem(Ed25519PrivateKey.generate(), password=b"secret"), "not an unencrypted private key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "signed with Ed25519"),
        (b"x" * 5000, "larger than a key file"),
    ],
)
def test_a_file_that_is_no_key_is_refused_and_left_alone(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "node.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(FieldInvalid, match=what):
        keys.load_or_create(path)
    assert path.read_bytes() == data


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0o604, 0o620, 0o644, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.pem"
    keys.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(FieldInvalid, match="chmod 600"):
        keys.load(path)
    path.chmod(0o640)
    keys.load(path)
