"""A LangGraph store over NDML: what agents put there is a user's memory, found by meaning, kept by the suite.

    store = NdmlStore(NdmlClient("127.0.0.1:7700", user="ann"), fields=["text"])
    graph = builder.compile(store=store)

A store belongs to the user of its client: namespaces order that user's items, they do not separate users. An item is one memory. Its
text is the words of the value's `fields`, so that chats and searches of that user find it too; the value itself stands in the labels,
about 24 kB of JSON at most. What is put with `index=False` is hidden from the store's searches alone. Items do not expire (LangGraph's
base class refuses `ttl`), and filters look at the first `most` items.
"""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from langgraph.store.base import BaseStore, GetOp, Item, ListNamespacesOp, MatchCondition, Op, PutOp, Result, SearchItem, SearchOp
from langgraph.store.base.embed import get_text_at_path

from ndml.client import Filter, Memory, NdmlClient
from ndml.errors import FieldInvalid

KEY = "langgraph.key"
NAMESPACE = "langgraph.namespace"
HIDDEN = "langgraph.hidden"
VALUE = "langgraph.value."
_PART = "langgraph.part."
_LABELS = 32  # of one memory, and bytes of one label: the contract's limits
_LABEL_BYTES = 1024
_TEXT_BYTES = 65_536

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


class NdmlStore(BaseStore):
    """`fields`: paths of a value whose words are its text ("$": all of it). `most`: items that a filter or a search looks at, to 1,000."""

    def __init__(self, client: NdmlClient, *, fields: Sequence[str] = ("$",), most: int = 1000) -> None:
        self._client = client
        self._fields = tuple(fields)
        self._most = most

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carries the operations out, one after the other. Raises NdmlError."""
        return [self._run(op) for op in ops]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, off the event loop."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _run(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            return next((_item(memory) for memory in self._found(op.namespace, op.key)), None)
        if isinstance(op, PutOp):
            self._put(op)
            return None
        if isinstance(op, SearchOp):
            return self._search(op)
        return self._namespaces(op)

    def _found(self, namespace: tuple[str, ...], key: str) -> list[Memory]:
        """The item, newest first: two writers at the same moment make two."""
        return list(self._client.list(filter=Filter(metadata={NAMESPACE: json.dumps(namespace), KEY: key})))

    def _put(self, op: PutOp) -> None:
        found = self._found(op.namespace, op.key)
        if op.value is None:
            for memory in found:
                self._client.delete(memory.trace_id, allow_missing=True)
        elif found:
            self._client.update(found[0].trace_id, text=self._text(op), metadata=_labels(op, op.value))
        else:
            self._client.add(self._text(op), metadata=_labels(op, op.value))

    def _text(self, op: PutOp) -> str:
        fields = self._fields if op.index is None or op.index is False else tuple(op.index)
        words = "\n".join(text for field in fields for text in get_text_at_path(op.value, field))
        return words.encode()[:_TEXT_BYTES].decode(errors="ignore").strip() or op.key

    def _search(self, op: SearchOp) -> list[SearchItem]:
        labels: dict[str, str | bool] = {KEY: True, **{f"{_PART}{at}": part for at, part in enumerate(op.namespace_prefix)}}
        wanted = self._most if op.filter else min(self._most, op.offset + op.limit)
        if op.query:
            hits = self._client.search(op.query, k=max(1, wanted), filter=Filter(metadata={**labels, HIDDEN: False}))
            found: Iterable[tuple[Memory, float | None]] = ((hit.memory, hit.similarity) for hit in hits)
        else:
            found = ((memory, None) for memory in islice(self._client.list(filter=Filter(metadata=labels)), wanted))
        items = [item for memory, score in found if matches((item := _search_item(memory, score)).value, op.filter or {})]
        return items[op.offset : op.offset + op.limit]

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        memories = self._client.list(filter=Filter(metadata={KEY: True}), page_size=1000)
        known = {_namespace(memory) for memory in memories}
        kept = {namespace for namespace in known if all(fits(condition, namespace) for condition in op.match_conditions or ())}
        cut = sorted({namespace[: op.max_depth] for namespace in kept})
        return cut[op.offset : op.offset + op.limit]


def matches(value: Any, wanted: Any) -> bool:
    """The value is as the filter wants it: equal, or by operators ("$gt" and its kin), field by field."""
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    if any(name.startswith("$") for name in wanted):
        return value is not None and all(_COMPARE[name](value, other) for name, other in wanted.items())
    return isinstance(value, Mapping) and all(matches(value.get(name), other) for name, other in wanted.items())


def fits(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    """The namespace begins (or ends) as the condition says; "*" stands for any part."""
    size = len(condition.path)
    if len(namespace) < size:
        return False
    parts = namespace[:size] if condition.match_type == "prefix" else namespace[len(namespace) - size :]
    return all(wanted in ("*", part) for wanted, part in zip(condition.path, parts, strict=True))


def _labels(op: PutOp, value: Mapping[str, Any]) -> dict[str, str]:
    labels = {KEY: op.key, NAMESPACE: json.dumps(op.namespace)}
    labels |= {f"{_PART}{at}": part for at, part in enumerate(op.namespace)}
    if op.index is False:
        labels[HIDDEN] = "1"
    packed = json.dumps(value)
    room = _LABELS - len(labels)
    if len(packed) > room * _LABEL_BYTES:
        raise FieldInvalid(
            f"the value is {len(packed)} bytes of JSON, {room * _LABEL_BYTES} fit: split it over several keys", field="value"
        )
    return labels | {f"{VALUE}{at}": packed[at : at + _LABEL_BYTES] for at in range(0, len(packed), _LABEL_BYTES)}


def _value(memory: Memory) -> dict[str, Any]:
    parts = sorted((int(name.removeprefix(VALUE)), text) for name, text in memory.metadata.items() if name.startswith(VALUE))
    value: dict[str, Any] = json.loads("".join(text for _, text in parts))
    return value


def _namespace(memory: Memory) -> tuple[str, ...]:
    return tuple(json.loads(memory.metadata[NAMESPACE]))


def _about(memory: Memory) -> dict[str, Any]:
    times = {"created_at": memory.learned_at, "updated_at": memory.updated_at or memory.learned_at}
    return {"value": _value(memory), "key": memory.metadata[KEY], "namespace": _namespace(memory), **times}


def _item(memory: Memory) -> Item:
    return Item(**_about(memory))


def _search_item(memory: Memory, score: float | None) -> SearchItem:
    return SearchItem(score=score, **_about(memory))
