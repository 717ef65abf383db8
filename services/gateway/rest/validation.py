"""JSON bodies as pydantic models; every complaint with the path of its field."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ndml.errors import FieldInvalid, FieldUnknown, FieldViolation, RequestMalformed
from services.gateway.rest.codec import parse_json

_VIOLATIONS_SHOWN = 16  # a body can be wrong in millions of places; nobody reads more than a few
_PATH_SHOWN = 200

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair, or the pair: JSON can say the half alone, UTF-8 and so no message can."""

B = TypeVar("B", bound=BaseModel)


def validated(model: type[B], body: bytes) -> B:
    """JSON as `model`. Raises FieldInvalid, FieldUnknown or RequestMalformed, naming the fields."""
    tree = parse_json(body)
    if _HALF.search(body):
        _check_text(tree)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _as_ndml(error) from None


def _check_text(tree: Any) -> None:
    """Raises FieldInvalid for the first text, key or value, that UTF-8 cannot say. Without recursion: a tree may be a thousand deep."""
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{path}.{key}"[-_PATH_SHOWN:].lstrip("."), part) for key, part in value.items()]
            waiting += [(path, key) for key in value]
        elif isinstance(value, list):
            waiting += [(f"{path}[{place}]"[-_PATH_SHOWN:], part) for place, part in enumerate(value)]
        elif isinstance(value, str) and not _is_text(value):
            where = path.encode("utf-8", "backslashreplace").decode() or "the body"
            raise FieldInvalid(f"{where} must be a string of valid Unicode: half of a surrogate pair is none", field=where)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_ndml(error: ValidationError) -> FieldInvalid | FieldUnknown | RequestMalformed:
    shown = error.errors(include_url=False, include_context=False, include_input=False)[:_VIOLATIONS_SHOWN]
    violations = [_violation(dict(each)) for each in shown]
    first = violations[0]
    if not first.field:
        return RequestMalformed(first.description)
    unknown = [violation for violation in violations if violation.rule == FieldUnknown.reason]
    if unknown:
        return FieldUnknown(f"unknown field: {', '.join(v.field for v in unknown)}; remove it", violations=unknown)
    return FieldInvalid(f"{first.field}: {first.description}", violations=violations)


def _violation(error: dict[str, Any]) -> FieldViolation:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    rule = FieldUnknown.reason if error["type"] == "extra_forbidden" else FieldInvalid.reason
    text = str(error["msg"]).removeprefix("Value error, ")
    return FieldViolation(path.encode("utf-8", "backslashreplace").decode(), text, rule)
