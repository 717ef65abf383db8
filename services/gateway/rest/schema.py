"""JSON Schema of the messages: shape from the descriptors, words from the protos' comments, limits from their validation rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.gateway.rest.codec import inner_type, is_map

Schema = dict[str, Any]

COMMENTS: dict[str, str] = json.loads((Path(__file__).parent / "comments.json").read_text(encoding="utf-8"))

_RULES: Any = validate_pb2  # generated without types

_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00Z"]},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$", "examples": ["1.5s"]},
    "google.protobuf.FieldMask": {"type": "string", "examples": ["text"]},
    "google.protobuf.Any": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
}
# protobuf JSON: a JSON number would lose digits beyond 2^53.
_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_UINT64: Schema = {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}
_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
}
# Rule in the proto -> keyword. A limit in bytes bounds the characters too.
_STRING = {"min_len": "minLength", "max_len": "maxLength", "max_bytes": "maxLength", "pattern": "pattern"}
_NUMBER = {"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_KEYWORDS = {
    "string": _STRING,
    "int32": _NUMBER,
    "float": _NUMBER,
    "double": _NUMBER,
    "repeated": {"min_items": "minItems", "max_items": "maxItems"},
    "map": {"min_pairs": "minProperties", "max_pairs": "maxProperties"},
}


class Schemas:
    """Gathers the schema of every message that is referred to, under its name without the package."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def ref(self, descriptor: Descriptor | EnumDescriptor) -> Schema:
        """Reference to a message or enum, which is added if it is new."""
        name = descriptor.full_name.removeprefix("ndml.v1.")
        if name not in self.components:
            self.components[name] = {}  # stands there already while its own fields are walked: messages may be recursive
            self.components[name] = self._enum(descriptor) if isinstance(descriptor, EnumDescriptor) else self._message(descriptor)
        return {"$ref": f"#/components/schemas/{name}"}

    def field(self, field: FieldDescriptor) -> Schema:
        """Schema of a field with its comment and limits."""
        schema = self._shape(field) | _limits(_rules(field))
        comment = COMMENTS.get(field.full_name)
        return schema | {"description": comment} if comment else schema

    def _message(self, descriptor: Descriptor) -> Schema:
        schema: Schema = {"type": "object", "additionalProperties": False}
        if descriptor.full_name in COMMENTS:
            schema["description"] = COMMENTS[descriptor.full_name]
        schema["properties"] = {field.name: self.field(field) for field in descriptor.fields}
        required = [field.name for field in descriptor.fields if _required(field)]
        if required:
            schema["required"] = required
        for oneof in descriptor.oneofs:
            if oneof.GetOptions().Extensions[_RULES.oneof].required:
                schema["oneOf"] = [{"required": [field.name]} for field in oneof.fields]
        return schema

    def _enum(self, descriptor: EnumDescriptor) -> Schema:
        lines = [f"{value.name}: {COMMENTS.get(f'{descriptor.full_name}.{value.name}', '')}" for value in descriptor.values]
        text = "\n".join([COMMENTS.get(descriptor.full_name, ""), *lines])
        return {"type": "string", "enum": [value.name for value in descriptor.values], "description": text}

    def _shape(self, field: FieldDescriptor) -> Schema:
        if is_map(field):
            rules = _rules(field).map
            shape: Schema = {"type": "object", "additionalProperties": self._single(inner_type(field).fields_by_name["value"])}
            shape["additionalProperties"] |= _limits(rules.values)
            names = _limits(rules.keys)
            return shape | ({"propertyNames": names} if names else {})
        if field.is_repeated:
            return {"type": "array", "items": self._single(field) | _limits(_rules(field).repeated.items)}
        return self._single(field)

    def _single(self, field: FieldDescriptor) -> Schema:
        if field.enum_type is not None:
            return self.ref(field.enum_type)
        if field.message_type is None:
            return _SCALARS[field.type]
        return _WELL_KNOWN.get(field.message_type.full_name) or self.ref(field.message_type)


def _rules(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[_RULES.field]


def _required(field: FieldDescriptor) -> bool:
    """Marked so, or left out it would be the zero value, which its rule refuses."""
    rules = _rules(field)
    if rules.required or field.has_presence:
        return bool(rules.required)
    refuses_empty = bool(rules.string.pattern) and re.search(rules.string.pattern, "") is None
    return refuses_empty or max(rules.string.min_len, rules.bytes.min_len, rules.repeated.min_items) > 0 or 0 in rules.enum.not_in


def _limits(rules: Any) -> Schema:
    """Of a field, of an item, or of a key or a value: buf.validate has the same rules for each."""
    kind = rules.WhichOneof("type")
    if kind == "bytes":
        return _bytes_limits(rules.bytes)
    group = getattr(rules, kind) if kind in _KEYWORDS else None
    return {} if group is None else {word: getattr(group, rule) for rule, word in _KEYWORDS[kind].items() if _set(group, rule)}


def _bytes_limits(group: Any) -> Schema:
    pairs = (("min_len", "minLength"), ("max_len", "maxLength"))
    return {word: 4 * -(-getattr(group, rule) // 3) for rule, word in pairs if _set(group, rule)}


def _set(group: Any, rule: str) -> bool:
    return rule in group.DESCRIPTOR.fields_by_name and group.HasField(rule)
