"""From HTTP to a request message, by the protos' `google.api.http` annotations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from ndml.errors import FieldInvalid, FieldUnknown, RequestMalformed
from services.gateway.rest.codec import Tree, canonical, describe, find_field, is_map, is_plain_message, parse_json, to_message

_TEMPLATE = re.compile(r"(/([A-Za-z0-9._-]+|\{[a-z0-9_.]+\}))+(:[A-Za-z]+)?")
_VARIABLE = re.compile(r"\{([a-z0-9_.]+)\}")


@dataclass(frozen=True, slots=True)
class Binding:
    """One annotated method at one verb and path.

    template   "/v1/memories/{trace_id}", as in the proto
    variables  dotted fields that the path carries
    body       "*": all other fields; a field's name: that field; "": no body
    """

    verb: str
    template: str
    variables: tuple[str, ...]
    body: str
    method: MethodDescriptor

    @property
    def rpc(self) -> str:
        """ "/ndml.v1.MemoryService/AddMemory"."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def route(self) -> str:
        """The template with variables named by position: methods that name the same path differently share one route."""
        numbers = count()
        return _VARIABLE.sub(lambda _: f"{{v{next(numbers)}}}", self.template)


def bindings(services: Iterable[ServiceDescriptor]) -> list[Binding]:
    """All annotated methods. Raises ValueError at start-up for an annotation that this door cannot serve."""
    found = []
    for service in services:
        for method in service.methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            found += [_binding(method, each) for each in (rule, *rule.additional_bindings) if each.WhichOneof("pattern")]
    return found


def request_of(binding: Binding, path: Mapping[str, str], query: bytes, body: bytes, max_query_fields: int) -> Message:
    """Request message of a call. `path` has the names of `Binding.route`; `query` is the raw query string.

    Raises FieldUnknown, FieldInvalid and RequestMalformed, naming the field.
    """
    descriptor = binding.method.input_type
    tree = _body_tree(binding, body)
    carried = _query_tree(binding, query, max_query_fields)
    for number, name in enumerate(binding.variables):
        carried.append((_resolve(descriptor, name), path[f"v{number}"], name))
    for fields, value, name in carried:
        _put(tree, fields, value, name)
    return to_message(descriptor, canonical(descriptor, tree))


def _binding(method: MethodDescriptor, rule: Any) -> Binding:
    verb = rule.WhichOneof("pattern")
    template = getattr(rule, verb)
    where = f"{method.full_name}: google.api.http"
    if verb == "custom" or rule.response_body or not _TEMPLATE.fullmatch(template):
        raise ValueError(f"{where}: {template!r} with custom verb, response_body or path wildcards is not served")
    if method.client_streaming:
        raise ValueError(f"{where}: a client stream has no place in one HTTP request")
    variables = tuple(_VARIABLE.findall(template))
    for name in (*variables, *([rule.body] if rule.body not in ("", "*") else [])):
        _resolve(method.input_type, name)
    return Binding(verb.upper(), template, variables, rule.body, method)


def _body_tree(binding: Binding, body: bytes) -> Tree:
    descriptor = binding.method.input_type
    if not binding.body:
        if body:
            raise RequestMalformed(f"{binding.verb} {binding.template} takes no body; give the fields in the query string")
        return {}
    if binding.body == "*":
        return canonical(descriptor, parse_json(body)) if body else {}
    return canonical(descriptor, {binding.body: parse_json(body)}) if body else {}


Carried = tuple[list[FieldDescriptor], Any, str]


def _query_tree(binding: Binding, query: bytes, max_fields: int) -> list[Carried]:
    """Values of the query string with the fields they belong to."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=max_fields)
    except ValueError as error:
        raise RequestMalformed(f"the query string cannot be read: {error}") from None
    found: dict[str, Carried] = {}
    for name, text in pairs:
        if binding.body == "*":
            raise FieldUnknown(f"{name}: {binding.verb} {binding.template} takes its fields in the body", field=name)
        fields = _resolve(binding.method.input_type, name)
        _add_query_value(found, fields, text, name)
    return list(found.values())


def _add_query_value(found: dict[str, Carried], fields: list[FieldDescriptor], text: str, name: str) -> None:
    leaf = fields[-1]
    if is_map(leaf) or is_plain_message(leaf):
        raise FieldInvalid(f"{name} is an object and cannot stand in a query string; name its fields as {name}.field", field=name)
    path = ".".join(field.name for field in fields)
    value = _typed(leaf, text)
    if leaf.is_repeated:
        found.setdefault(path, (fields, [], path))[1].append(value)
    elif path in found:
        raise FieldInvalid(f"{path} is given twice; it takes {describe(leaf)}", field=path)
    else:
        found[path] = (fields, value, path)


def _typed(field: FieldDescriptor, text: str) -> Any:
    """protobuf JSON reads every scalar from a string but a bool."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"true": True, "false": False}.get(text, text)
    return text


def _resolve(descriptor: Descriptor, name: str) -> list[FieldDescriptor]:
    """Fields along a dotted name. Raises FieldUnknown."""
    fields: list[FieldDescriptor] = []
    inside: Descriptor | None = descriptor
    for part in name.split("."):
        field = find_field(inside, part) if inside is not None else None
        if field is None:
            raise FieldUnknown(f"unknown field: {name}; see /docs for the fields of {descriptor.name}", field=name)
        fields.append(field)
        inside = field.message_type if is_plain_message(field) and not field.is_repeated else None
    return fields


def _put(tree: Tree, fields: list[FieldDescriptor], value: Any, name: str) -> None:
    """Set a value from path or query in the (canonical) tree; the body may repeat it, not contradict it."""
    for field in fields[:-1]:
        tree = tree.setdefault(field.name, {})
    known = tree.setdefault(fields[-1].name, value)
    if known != value:
        raise FieldInvalid(f"{name} differs between the path and the rest of the request; give it once", field=name)
