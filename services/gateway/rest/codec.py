"""JSON to message and back as protobuf JSON says, every complaint with the path of its field. Field names: snake_case out, both in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2  # noqa: F401  # errors inside batch answers hold Any: json_format must know these types

from ndml.errors import FieldInvalid, FieldUnknown, FieldViolation, RequestMalformed

Tree = dict[str, Any]

# json_format wraps most of these into ParseError, but not all of them on every path.
_REJECTED = (json_format.ParseError, ValueError, TypeError, AttributeError, OverflowError)
_VIOLATIONS_SHOWN = 16  # a body can hold millions of wrong keys; nobody reads more than a few
_VALUE_SHOWN = 60
_DEEPEST = 32  # messages within messages; a trace may hold siblings, which are traces, so the protos alone set no bound
_FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_NUMBER = re.compile(r"\s*[+-]?[\d_]{1,40}\s*")

_HINTS = {
    "google.protobuf.Timestamp": "a time as RFC 3339 text, for example 2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "a duration in seconds, for example 1.5s",
    "google.protobuf.FieldMask": "field names joined by commas, for example text,metadata",
    FieldDescriptor.TYPE_STRING: "a string of valid Unicode",
    FieldDescriptor.TYPE_BYTES: "a base64 string",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_INT32: "a whole number of at most 32 bits",
    FieldDescriptor.TYPE_INT64: "a whole number of at most 64 bits",
    FieldDescriptor.TYPE_UINT64: "a whole number from 0, of at most 64 bits",
    FieldDescriptor.TYPE_FLOAT: "a number in the range of a 32-bit float",
    FieldDescriptor.TYPE_DOUBLE: "a number",
}


def parse_json(body: bytes) -> Any:
    """The JSON value in `body`. Stricter than `json.loads`: UTF-8 only, no NaN, no key twice. Raises RequestMalformed."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise RequestMalformed(f"the body is not UTF-8: byte {error.start} is wrong; encode the JSON as UTF-8") from None
    except json.JSONDecodeError as error:
        raise RequestMalformed(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise RequestMalformed("the JSON is nested too deep; no message needs more than ten levels") from None
    except ValueError as error:
        raise RequestMalformed(f"the body is not JSON: {error}") from None


def to_tree(message: Message) -> Tree:
    """Message as JSON value. Fields without presence are always there, so a client may read `hits` of an empty answer."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def to_json(tree: Any) -> bytes:
    """Compact UTF-8."""
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def canonical(descriptor: Descriptor, tree: Any, path: str = "") -> Tree:
    """`tree` with proto field names. Raises FieldUnknown for every unknown key at once, FieldInvalid for a name or a oneof given twice,
    RequestMalformed past 32 levels of messages."""
    unknown: list[FieldViolation] = []
    result = _canonical(descriptor, tree, path, unknown, _DEEPEST)
    if unknown:
        names = ", ".join(violation.field for violation in unknown)
        raise FieldUnknown(f"unknown field: {names}; remove it or see /docs for the fields of {descriptor.name}", violations=unknown)
    return result


def to_message(descriptor: Descriptor, tree: Tree) -> Message:
    """Message from a canonical tree. Raises FieldInvalid that names the first wrong field."""
    message = GetMessageClass(descriptor)()
    try:
        json_format.ParseDict(tree, message)
    except _REJECTED:
        _raise_located(descriptor, tree, "")
    return message


def is_plain_message(field: FieldDescriptor) -> bool:
    """The field's values are JSON objects with the message's own fields (not a Timestamp or another well-known type)."""
    return field.message_type is not None and field.message_type.file.package != "google.protobuf" and not is_map(field)


def is_map(field: FieldDescriptor) -> bool:
    """The field is a protobuf map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def inner_type(field: FieldDescriptor) -> Descriptor:
    """Type of a message field."""
    return cast(Descriptor, field.message_type)


def find_field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """Field by its snake_case or camelCase name."""
    if not name.isascii():  # protobuf breaks down at half of a surrogate pair
        return None
    return descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)


def describe(field: FieldDescriptor) -> str:
    """What a single value of the field has to be, for people."""
    if field.enum_type is not None:
        return "one of " + ", ".join(value.name for value in field.enum_type.values)
    if field.message_type is not None:
        return _HINTS.get(field.message_type.full_name, "an object")
    return _HINTS.get(field.type, "a valid value")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> Tree:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        last = {key: place for place, (key, _) in enumerate(pairs)}
        twice = next(key for place, (key, _) in enumerate(pairs) if last[key] != place)
        raise ValueError(f"key {twice!r:.{_VALUE_SHOWN}} stands twice in one object")
    return tree


def _canonical(descriptor: Descriptor, tree: Any, path: str, unknown: list[FieldViolation], deepest: int) -> Tree:
    if not deepest:
        raise RequestMalformed(f"the JSON is nested deeper than {_DEEPEST} messages; no message needs more than ten")
    if not isinstance(tree, dict):
        text = f"{path or 'the body'} must be a JSON object"
        raise FieldInvalid(text, field=path) if path else RequestMalformed(text)
    result: Tree = {}
    chosen: dict[str, str] = {}
    for key, value in tree.items():
        field = find_field(descriptor, key)
        where = f"{path}.{key:.{_VALUE_SHOWN}}" if path else f"{key:.{_VALUE_SHOWN}}"
        if field is None:
            if len(unknown) < _VIOLATIONS_SHOWN:
                unknown.append(FieldViolation(_printable(where), f"{descriptor.name} has no such field", FieldUnknown.reason))
            continue
        if field.name in result:
            raise FieldInvalid(f"{where} is given twice, as snake_case and as camelCase; keep one", field=where)
        if value is None:
            continue
        oneof = field.containing_oneof
        if oneof is not None and chosen.setdefault(oneof.full_name, field.name) != field.name:
            raise FieldInvalid(f"{where}: {chosen[oneof.full_name]} is given too; only one of them may be set", field=where)
        result[field.name] = _canonical_value(field, value, f"{path}.{field.name}" if path else field.name, unknown, deepest - 1)
    return result


def _canonical_value(field: FieldDescriptor, value: Any, path: str, unknown: list[FieldViolation], deepest: int) -> Any:
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.FieldMask":
        return _camel_mask(value)
    if not is_plain_message(field):
        _refuse_bent(field, value, path)
        return value
    if field.is_repeated:
        if not isinstance(value, list):
            raise FieldInvalid(f"{path} must be a JSON array", field=path)
        return [_canonical(inner_type(field), item, f"{path}[{i}]", unknown, deepest) for i, item in enumerate(value)]
    return _canonical(inner_type(field), value, path, unknown, deepest)


def _refuse_bent(field: FieldDescriptor, value: Any, path: str) -> None:
    """Refuse what json_format would bend into another value: true as the number 1, of an enum's number the low 32 bits alone."""
    if field.enum_type is None and field.type not in _FLOATS:
        return
    if field.is_repeated and not isinstance(value, list):
        return  # json_format refuses that itself
    for index, item in enumerate(value if field.is_repeated else [value]):
        if isinstance(item, bool) or (field.enum_type is not None and not _names_enum(item)):
            _raise_value(field, item, f"{path}[{index}]" if field.is_repeated else path)


def _names_enum(item: Any) -> bool:
    """A name (whether there is such a one is found out later), or a number that an enum can hold, which a query string gives as text."""
    if isinstance(item, str) and not _NUMBER.fullmatch(item):
        return item.isascii()  # at half of a surrogate pair json_format breaks down
    return isinstance(item, int | str) and -(1 << 31) <= int(item) < 1 << 31


def _camel_mask(value: Any) -> Any:
    """json_format takes masks in camelCase only, while every name this door gives out is snake_case."""
    if not isinstance(value, str):
        return value
    head, *rest = value.split("_")
    return head + "".join(part[:1].upper() + part[1:] if part[:1].islower() else f"_{part}" for part in rest)


def _parses(descriptor: Descriptor, tree: Tree) -> bool:
    try:
        json_format.ParseDict(tree, GetMessageClass(descriptor)())
    except _REJECTED:
        return False
    return True


def _raise_located(descriptor: Descriptor, tree: Tree, path: str) -> NoReturn:
    """Find the field that json_format refused: its own messages name neither path nor remedy."""
    for name, value in tree.items():
        if not _parses(descriptor, {name: value}):
            _raise_in_field(descriptor.fields_by_name[name], value, f"{path}.{name}" if path else name)
    raise RequestMalformed(f"{path or 'the body'} is not a {descriptor.name}")


def _raise_in_field(field: FieldDescriptor, value: Any, path: str) -> NoReturn:
    owner = cast(Descriptor, field.containing_type)
    if is_map(field):
        if not isinstance(value, dict):
            raise FieldInvalid(f"{path} must be a JSON object of {describe(inner_type(field).fields_by_name['value'])} values", field=path)
        items = list(value.items())
        key, inner = items[_first_bad(items, lambda part: _parses(owner, {field.name: dict(part)}))]
        _raise_value(inner_type(field).fields_by_name["value"], inner, _printable(f'{path}["{key:.{_VALUE_SHOWN}}"]'))
    if field.is_repeated:
        if not isinstance(value, list):
            raise FieldInvalid(f"{path} must be a JSON array", field=path)
        index = _first_bad(value, lambda part: _parses(owner, {field.name: list(part)}))
        path, value = f"{path}[{index}]", value[index]
    if is_plain_message(field) and isinstance(value, dict):
        _raise_located(inner_type(field), value, path)
    _raise_value(field, value, path)


def _raise_value(field: FieldDescriptor, value: Any, path: str) -> NoReturn:
    shown = _printable(json.dumps(value)[:_VALUE_SHOWN])
    raise FieldInvalid(f"{path} must be {describe(field)}, not {shown}", field=path)


def _first_bad(items: Sequence[Any], parses: Callable[[Sequence[Any]], bool]) -> int:
    """Index of the first item that does not parse, in log2(n) tries: a body may hold millions of items."""
    low, high = 0, len(items)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parses(items[low:middle]) else (low, middle)
    return low


def _printable(text: str) -> str:
    """Text that can be sent: a lone surrogate of the client's JSON cannot be encoded."""
    return text.encode("utf-8", "backslashreplace").decode()


def leaf_names(descriptor: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Dotted names of all fields that a query string can carry."""
    for field in descriptor.fields:
        if is_map(field) or (field.is_repeated and is_plain_message(field)):
            continue
        if is_plain_message(field):
            yield from leaf_names(inner_type(field), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field
