"""Models to plain JSON values and back: what `--output json`, `ndml export` and `ndml add --file` speak. Pure.

The keys are the field names of the client's dataclasses. Times are RFC 3339 in UTC, durations seconds, vectors base64 of
little-endian float32.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ndml.client import Content, Embedding, Kind, Link, LinkType, Memory, NewMemory, Provenance, Scope
from ndml.errors import FieldInvalid, NdmlError

MOST_QUESTIONS = 5_000
"""Lines of feedback: each is searched for several times, some 20 ms a search."""
MOST_HELPFUL = 100
"""Memories that one line of feedback may name."""
_ID_DIGITS = 32
_JUDGED = {"query", "scope", "helpful", "at"}
_NEW = {item.name for item in dataclasses.fields(NewMemory)} | {"id"}
_STORED = {item.name for item in dataclasses.fields(Memory)}


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """A question that was asked, and the ids of the memories that helped. line: where it stands, from 1; at: when it was asked."""

    line: int
    query: str
    scope: Scope
    helpful: frozenset[str]
    at: datetime | None = None


def plain(value: Any) -> Any:
    """A model, or anything made of models, as JSON values."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return _short(value)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return round(value.total_seconds(), 3)
        case NdmlError():
            return plain_error(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise TypeError(f"no JSON form for {type(value).__name__}")


def plain_error(error: NdmlError) -> dict[str, Any]:
    """An error as a program wants it."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "fields": [{"field": row.field, "description": row.description} for row in error.violations],
        "retry_after_s": error.retry_after_s,
        "metadata": error.metadata,
    }


def new_memories(lines: Iterable[str]) -> Iterator[NewMemory]:
    """Conversation lines: the keys of NewMemory; `id`, where there is one, becomes the label "id".

    Raises FieldInvalid with the number of the line.
    """
    for number, row in _rows(lines, _NEW):
        with _at_line(number):
            labels = dict(_as(dict, row, "metadata", {}))
            if "id" in row:
                labels["id"] = str(row["id"])
            yield NewMemory(
                text=_as(str, row, "text", ""),
                speaker=_as(str, row, "speaker", ""),
                said_at=_time(row, "said_at"),
                kind=_as(str, row, "kind", ""),
                metadata=labels,
                salience=_as((int, float), row, "salience", 0.0),
                provenance=_provenance(row),
                embedding=_embedding(row),
                user=_as(str, row, "user", ""),
                agent=_as(str, row, "agent", ""),
                session=_as(str, row, "session", ""),
                protected=_as(bool, row, "protected", False),
                expires_at=_time(row, "expires_at"),
                ttl_s=_as((int, float), row, "ttl_s", None),
                valid_from=_time(row, "valid_from"),
                valid_until=_time(row, "valid_until"),
                links=tuple(_link(link) for link in _as(list, row, "links", [])),
                contents=tuple(_content(each) for each in _as(list, row, "contents", [])),
            )


def memories(lines: Iterable[str]) -> Iterator[Memory]:
    """Lines that `ndml export` wrote; gate, state, strength and history are left behind: the server that takes them in makes its own.

    Raises FieldInvalid with the number of the line.
    """
    for number, row in _rows(lines, _STORED):
        with _at_line(number):
            scope = _as(dict, row, "scope", {})
            yield Memory(
                trace_id=_as(str, row, "trace_id", ""),
                scope=Scope(*(_as(str, scope, name, "") for name in ("user", "agent", "session", "tenant"))),
                text=_as(str, row, "text", ""),
                kind=_kind(row),
                speaker=_as(str, row, "speaker", ""),
                said_at=_time(row, "said_at"),
                learned_at=_time(row, "learned_at"),
                updated_at=_time(row, "updated_at"),
                metadata=_as(dict, row, "metadata", {}),
                salience=_as((int, float), row, "salience", 0.0),
                provenance=_provenance(row),
                version=_as(int, row, "version", 0),
                embedding=_stored_embedding(row),
                protected=_as(bool, row, "protected", False),
                expires_at=_time(row, "expires_at"),
                links=tuple(_link(link) for link in _as(list, row, "links", [])),
                valid_from=_time(row, "valid_from"),
                valid_until=_time(row, "valid_until"),
                contents=tuple(_content(each) for each in _as(list, row, "contents", [])),
            )


def feedback(lines: Iterable[str]) -> Iterator[Judged]:
    """Lines of {"query", "helpful": [ids], "scope": {…}, "at"}; the last two may be left out.

    Raises FieldInvalid with the number of the line, also for one line more than MOST_QUESTIONS.
    """
    for count, (number, row) in enumerate(_rows(lines, _JUDGED, ""), 1):
        with _at_line(number):
            if count > MOST_QUESTIONS:
                raise FieldInvalid(f"more than {MOST_QUESTIONS:,} questions: give the last ones alone")
            scope = _as(dict, row, "scope", {})
            names = ("user", "agent", "session")  # one tenant a run: --tenant
            if unknown := sorted(set(scope) - set(names)):
                raise FieldInvalid(f"unknown key {unknown[0]!r} of scope; known: {', '.join(names)}", field="scope")
            query = _as(str, row, "query", "")
            if not query.strip():
                raise FieldInvalid("query is empty: give the words of the question", field="query")
            yield Judged(number, query, Scope(**{name: _as(str, scope, name, "") for name in scope}), _helpful(row), _time(row, "at"))


def time_of(field: str, text: str) -> datetime:
    """RFC 3339, or a date; without a zone it is UTC. Raises FieldInvalid."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise FieldInvalid(f"{field} is not a time: write 2026-05-01 or 2026-05-01T18:30:00Z, got {text!r}", field=field) from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _helpful(row: Mapping[str, Any]) -> frozenset[str]:
    ids = _as(list, row, "helpful", [])
    if not 1 <= len(ids) <= MOST_HELPFUL:
        raise FieldInvalid(f"helpful is a list of 1 to {MOST_HELPFUL} ids of memories, got {len(ids)}", field="helpful")
    for each in ids:
        if not (isinstance(each, str) and len(each) == _ID_DIGITS and set(each) <= set("0123456789abcdef")):
            shown = json.dumps(each)[:40]
            raise FieldInvalid(
                f"helpful holds ids of memories, {_ID_DIGITS} hexadecimal digits in lower case; got {shown}", field="helpful"
            )
    return frozenset(ids)


def _rows(
    lines: Iterable[str], known: set[str], hint: str = "labels of your own go under metadata; "
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        with _at_line(number):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FieldInvalid(f"not JSON: {error}", field="") from None
            if not isinstance(row, dict):
                raise FieldInvalid("each line is one JSON object", field="")
            if unknown := sorted(set(row) - known):
                raise FieldInvalid(f"unknown key {unknown[0]!r}: {hint}known: {', '.join(sorted(known))}")
        yield number, row


class _at_line:
    """Says in which line an error was."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, FieldInvalid):
            field = ".".join(filter(None, [f"line {self._number}", *(row.field for row in error.violations[:1])]))
            raise FieldInvalid(f"line {self._number}: {error.message}", field=field) from None


def _as(kind: Any, row: Mapping[str, Any], key: str, default: Any) -> Any:
    value = row.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {str: "a string", dict: "an object", int: "an integer", bool: "true or false", list: "a list"}
        raise FieldInvalid(f"{key} must be {names.get(kind, 'a number')}, got {json.dumps(value)[:40]}", field=key)
    return value


def _time(row: Mapping[str, Any], key: str) -> datetime | None:
    text = _as(str, row, key, "")
    return time_of(key, text) if text else None


def _kind(row: Mapping[str, Any]) -> Kind:
    word = _as(str, row, "kind", "episodic")
    if word not in set(Kind):
        raise FieldInvalid(f"kind must be one of {', '.join(Kind)}; got {word!r}", field="kind")
    return Kind(word)


def _link(link: Any) -> Link:
    found = _as(dict, {"links": link}, "links", {})
    word = _as(str, found, "type", "")
    if word not in set(LinkType):
        raise FieldInvalid(f"links.type must be one of {', '.join(LinkType)}; got {word!r}", field="links.type")
    weight = _as((int, float), found, "weight", 0.0)
    return Link(LinkType(word), _as(str, found, "trace_id", ""), weight, _as(str, found, "evidence", ""))


def _provenance(row: Mapping[str, Any]) -> Provenance | None:
    found = row.get("provenance")
    if found is None:
        return None
    found = _as(dict, row, "provenance", {})
    return Provenance(_as(str, found, "source", ""), _as((int, float), found, "trust", 0.0))


def _embedding(row: Mapping[str, Any]) -> object:
    """Numbers as a conversation file may give them, else as an export does."""
    value = row.get("embedding")
    return value if isinstance(value, list) else _stored_embedding(row)


def _stored_embedding(row: Mapping[str, Any]) -> Embedding | None:
    found = _as(dict, row, "embedding", None)
    if found is None:
        return None
    return Embedding(_bytes(found, "vector"), _as(str, found, "model", ""), _bytes(found, "word_vectors"))


def _content(found: Mapping[str, Any]) -> Content:
    if not isinstance(found, dict):
        raise FieldInvalid("contents must hold objects, as an export has them", field="contents")
    embeddings = tuple(
        Embedding(_bytes(each, "vector"), _as(str, each, "model", ""))
        for each in _as(list, found, "embeddings", [])
        if isinstance(each, dict)
    )
    uri, text = _as(str, found, "uri", ""), _as(str, found, "text", "")
    return Content(_as(str, found, "media_type", ""), _bytes(found, "data", "contents"), uri, text, embeddings)


def _bytes(found: Mapping[str, Any], name: str, of: str = "embedding") -> bytes:
    try:
        return base64.b64decode(_as(str, found, name, ""), validate=True)
    except ValueError as error:  # binascii.Error is one, and letters beyond ASCII are another
        raise FieldInvalid(f"{of}.{name} is not base64: {error}", field=f"{of}.{name}") from None


def _short(value: float) -> float:
    """The shortest decimal that is the same float32, since that is what travelled: 0.3 and not 0.30000001192092896."""
    wanted = struct.pack("<f", value)
    for digits in range(6, 9):
        shorter = float(f"{value:.{digits}g}")
        if struct.pack("<f", shorter) == wanted:
            return shorter
    return value
