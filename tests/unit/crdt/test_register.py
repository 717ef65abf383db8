"""Multi-value register: who replaces whom."""

from __future__ import annotations

from ndml.crdt.causal import Dot
from ndml.crdt.register import MVRegister

A, B = 1, 2


def test_concurrent_writes_stay_until_one_saw_both() -> None:
    born = MVRegister[str]().write(Dot(A, 1), "born", [])
    at_a = born.joined(born.write(Dot(A, 2), "a", born.versions))
    at_b = born.joined(born.write(Dot(B, 1), "b", born.versions))
    both = at_a.joined(at_b)
    assert sorted(both.versions.values()) == ["a", "b"]
    assert list(both.joined(both.write(both.context.next(B), "settled", both.versions)).versions.values()) == ["settled"]


def test_a_write_replaces_what_it_names_and_no_sibling() -> None:
    siblings = MVRegister({Dot(A, 1): "a", Dot(B, 1): "b"}, MVRegister().context.with_dots([Dot(A, 1), Dot(B, 1)]))
    after = siblings.joined(siblings.write(Dot(A, 2), "a2", [Dot(A, 1)]))
    assert after.versions == {Dot(B, 1): "b", Dot(A, 2): "a2"}
    assert after.joined(siblings) == after


def test_a_replaced_version_does_not_come_back() -> None:
    old = MVRegister[str]().write(Dot(A, 1), "old", [])
    new = old.write(Dot(A, 2), "new", [Dot(A, 1)])
    assert new.joined(old).versions == old.joined(new).versions == {Dot(A, 2): "new"}


def test_one_dot_with_two_values_is_decided_alike_everywhere() -> None:
    one, other = (MVRegister[str](order=len).write(Dot(A, 1), value, []) for value in ("long", "abc"))
    assert one.joined(other) == other.joined(one) == one


def test_a_delta_holds_what_the_other_lacks() -> None:
    old = MVRegister[str]().write(Dot(A, 1), "old", [])
    full = old.joined(old.write(Dot(B, 1), "new", [Dot(A, 1)]))
    delta = full.delta_since(old)
    assert delta.versions == {Dot(B, 1): "new"}
    assert old.joined(delta) == full
    assert full.delta_since(full) == MVRegister()
