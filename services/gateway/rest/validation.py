"""JSON bodies as pydantic models; every complaint with the path of its field."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ndml.errors import FieldInvalid, FieldUnknown, FieldViolation, RequestMalformed

_VIOLATIONS_SHOWN = 16  # a body can be wrong in millions of places; nobody reads more than a few

B = TypeVar("B", bound=BaseModel)


def validated(model: type[B], tree: Any) -> B:
    """`tree` as `model`. Raises FieldInvalid, FieldUnknown or RequestMalformed, naming the fields."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _as_ndml(error) from None


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
