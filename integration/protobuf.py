"""Protobuf messages described at run time.

Generated modules are tied to one version of the protobuf runtime; descriptors are not. Enumerations are plain numbers,
which is the same on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

KINDS = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "bytes": KINDS.TYPE_BYTES,
    "string": KINDS.TYPE_STRING,
    "bool": KINDS.TYPE_BOOL,
    "int64": KINDS.TYPE_INT64,
    "uint64": KINDS.TYPE_UINT64,
    "int32": KINDS.TYPE_INT32,
}


def describe(fields: Mapping[str, str], package: str) -> dict[str, Any]:
    """Message classes by name.

    `fields`: message → its fields as `name number type`, comma-separated. `*` before a type: repeated; `type@choice`: of
    the fields with that choice at most one is set (oneof); `map`: text by text.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, text in fields.items():
        message = file.message_type.add(name=name)
        choices: list[str] = []
        for line in filter(None, text.split(", ")):
            field_name, number, of = line.split()
            of, _, choice = of.partition("@")
            field = message.field.add(name=field_name, number=int(number))
            if choice:
                if choice not in choices:
                    choices.append(choice)
                    message.oneof_decl.add(name=choice)
                field.oneof_index = choices.index(choice)
            field.label = KINDS.LABEL_REPEATED if of.startswith("*") or of == "map" else KINDS.LABEL_OPTIONAL
            of = _add_map(message, f"{package}.{name}", field_name) if of == "map" else of.removeprefix("*")
            field.type = SCALARS.get(of, KINDS.TYPE_MESSAGE)
            if of not in SCALARS:
                field.type_name = of if of.startswith(".") else f".{package}.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in fields}


def _add_map(message: Any, path: str, field_name: str) -> str:
    """The type of a map's entries, as protobuf nests it in the message."""
    name = "".join(word.capitalize() for word in field_name.split("_")) + "Entry"
    entry = message.nested_type.add(name=name)
    entry.options.map_entry = True
    for number, part in enumerate(("key", "value"), start=1):
        entry.field.add(name=part, number=number, label=KINDS.LABEL_OPTIONAL, type=KINDS.TYPE_STRING)
    return f".{path}.{name}"
