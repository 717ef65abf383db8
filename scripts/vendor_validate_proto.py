"""Write protos/third_party/buf/validate/validate.proto from the descriptor that the protovalidate package carries.

The package ships no .proto file, and buf and protoc need one to resolve the `(buf.validate.*)` options. Names, numbers, types and
oneofs are those of the descriptor; the CEL text of the predefined rules is left out, the validator carries its own copy of it.

    python scripts/vendor_validate_proto.py > protos/third_party/buf/validate/validate.proto
"""

import re
from pathlib import Path

import protovalidate
from google.protobuf import descriptor_pb2 as pb

SCALARS = {v: k.removeprefix("TYPE_").lower() for k, v in pb.FieldDescriptorProto.Type.items()}
LABELS = {1: "optional ", 2: "required ", 3: "repeated "}


def load_descriptor() -> pb.FileDescriptorProto:
    source = (Path(protovalidate.__file__).parent / "_gen/buf/validate/validate_pb.py").read_text()
    literal = re.search(r"^\s*b'(\\n.*)',$", source, re.MULTILINE)
    if literal is None:
        raise SystemExit("this protovalidate release stores its descriptor elsewhere: update the pattern")
    return pb.FileDescriptorProto.FromString(eval("b'" + literal.group(1) + "'"))


def type_name(field: pb.FieldDescriptorProto) -> str:
    return field.type_name if field.type_name else SCALARS[field.type]


def field_line(field: pb.FieldDescriptorProto, entry: pb.DescriptorProto | None, in_oneof: bool) -> str:
    deprecated = " [deprecated = true]" if field.options.deprecated else ""
    if entry is not None:
        key, value = entry.field
        return f"map<{type_name(key)}, {type_name(value)}> {field.name} = {field.number}{deprecated};"
    default = f" [default = {field.default_value}]" if field.default_value else ""
    return f"{'' if in_oneof else LABELS[field.label]}{type_name(field)} {field.name} = {field.number}{deprecated or default};"


def enum_lines(enum: pb.EnumDescriptorProto, pad: str) -> list[str]:
    body = [f"{pad}  {v.name} = {v.number};" for v in enum.value]
    body += [f"{pad}  reserved {r.start};" for r in enum.reserved_range]
    return [f"{pad}enum {enum.name} {{", *body, f"{pad}}}"]


def message_lines(message: pb.DescriptorProto, pad: str = "") -> list[str]:
    entries = {m.name: m for m in message.nested_type if m.options.map_entry}
    out = [f"{pad}message {message.name} {{"]
    for nested in message.nested_type:
        if not nested.options.map_entry:
            out += message_lines(nested, pad + "  ")
    for enum in message.enum_type:
        out += enum_lines(enum, pad + "  ")
    done: set[int] = set()
    for field in message.field:
        entry = entries.get(field.type_name.rsplit(".", 1)[-1])
        if not field.HasField("oneof_index"):
            out.append(f"{pad}  {field_line(field, entry, False)}")
        elif field.oneof_index not in done:
            done.add(field.oneof_index)
            out.append(f"{pad}  oneof {message.oneof_decl[field.oneof_index].name} {{")
            members = [f for f in message.field if f.HasField("oneof_index") and f.oneof_index == field.oneof_index]
            out += [f"{pad}    {field_line(f, None, True)}" for f in members]
            out.append(f"{pad}  }}")
    out += [f"{pad}  reserved {r.start} to {r.end - 1};" for r in message.reserved_range]
    out += [f"{pad}  extensions {r.start} to {'max' if r.end > 500_000_000 else r.end - 1};" for r in message.extension_range]
    return [*out, f"{pad}}}"]


def main() -> None:
    file = load_descriptor()
    print("// Vendored from protovalidate (Apache-2.0, Copyright Buf Technologies) by scripts/vendor_validate_proto.py. Do not edit.")
    print(f'syntax = "proto2";\n\npackage {file.package};\n')
    for dependency in file.dependency:
        print(f'import "{dependency}";')
    for extension in file.extension:
        print(f"\nextend {extension.extendee} {{\n  {field_line(extension, None, False)}\n}}")
    for message in file.message_type:
        print("\n" + "\n".join(message_lines(message)))
    for enum in file.enum_type:
        print("\n" + "\n".join(enum_lines(enum, "")))


if __name__ == "__main__":
    main()
