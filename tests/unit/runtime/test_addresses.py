"""Lists of addresses, fixed and changing."""

from __future__ import annotations

from ndml.runtime.addresses import Addresses, follow


class Changing(Addresses):
    def become(self, *addresses: str) -> None:
        self._replace(addresses)


def test_a_fixed_list_is_a_sequence() -> None:
    fixed = Addresses(["a:1", "b:2"])
    assert list(fixed) == ["a:1", "b:2"] and len(fixed) == 2 and fixed[1] == "b:2" and "a:1" in fixed
    assert fixed.expected and not Addresses().expected and fixed.zone_of("a:1") == ""
    assert Addresses.of(fixed) is fixed and list(Addresses.of(["c:3"])) == ["c:3"]


def test_who_follows_hears_of_each_that_comes_or_goes_once() -> None:
    heard: list[str] = []
    changing = Changing(["a:1", "b:2"])
    follow(changing, lambda address: heard.append(f"+{address}"), lambda address: heard.append(f"-{address}"))
    changing.become("b:2", "c:3")
    changing.become("c:3", "b:2")
    changing.become()
    changing.become("a:1")
    assert heard[:2] == ["+a:1", "+b:2"] and heard[2:4] == ["-a:1", "+c:3"]
    assert sorted(heard[4:6]) == ["-b:2", "-c:3"] and heard[6:] == ["+a:1"]
