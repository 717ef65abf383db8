"""Of contents that were written without knowledge of each other none is lost: each stays until a write that saw it replaces it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet


def lost_contents(
    acked: Mapping[str, AbstractSet[str]], displaced: Mapping[str, AbstractSet[str]], texts: Mapping[str, Mapping[str, Sequence[str]]]
) -> list[str]:
    """`acked`: texts of each trace that a caller was told stand; `displaced`: those that a later write was made in place of; `texts`: for
    each trace what each copy has of it in the end, the shown one first."""
    return [
        f"{copy} has lost {text!r} of {trace}, which nothing replaced; it has {list(held)}"
        for trace, names in acked.items()
        for text in sorted(names - displaced[trace])
        for copy, held in texts[trace].items()
        if text not in held
    ]


def shown_apart(texts: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Copies that have the same contents of a trace show the same one."""
    return [
        f"copies show different contents of {trace}: " + ", ".join(f"{copy} {held[0]!r}" for copy, held in sorted(copies.items()) if held)
        for trace, copies in texts.items()
        if len({held[0] for held in copies.values() if held}) > 1
    ]
