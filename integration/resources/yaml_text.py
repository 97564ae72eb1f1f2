"""YAML ⇄ JSON values, with the line of every field, and without YAML 1.1's surprises.

Plain scalars mean what YAML 1.2's core schema says: `true`, `false`, `null`, decimal and 0x numbers; everything else is
a text. So `5663:12` (a community) is no sexagesimal number, `no` no boolean and a time stamp no date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
MAX_VALUES = 2_000_000  # aliases of aliases may stand for more than any memory holds
PLAIN = [
    (TAG + "bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    (TAG + "null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    (TAG + "int", re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+"), "-+0123456789"),
    (TAG + "float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), "-+.0123456789"),
]


class YamlError(ValueError):
    """Text that is no YAML, or no JSON value. `line` counts from 1; None: not known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


class Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # as PyYAML has it


class Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than a text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """YAML 1.1 takes these three for ends of lines, and would fold them."""
        style = '"' if any(end in text for end in "\x85\u2028\u2029") else None
        return self.represent_scalar(f"{TAG}str", text, style=style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


Dumper.add_representer(str, Dumper.represent_text)
for tag, pattern, first in PLAIN:
    whole = re.compile(f"(?:{pattern.pattern})$")
    Loader.add_implicit_resolver(tag, whole, list(first))
    Dumper.add_implicit_resolver(tag, whole, list(first))


class Document:
    """One document: its value, the line on which it starts, and the line of every JSON path in it."""

    def __init__(self, node: yaml.Node | None, line: int) -> None:
        self.line = line
        self.lines: dict[str, int] = {}
        self.values = 0
        self.value = None if node is None else self.build(node, "")

    def build(self, node: yaml.Node, path: str) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.values += 1
        if self.values > MAX_VALUES:
            raise YamlError(f"the document stands for more than {MAX_VALUES} values", line)
        if isinstance(node, yaml.MappingNode):
            return self.build_object(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
        return scalar(node)

    def build_object(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError("a field's name is not a text", line)
            key = key_node.value
            if key == "<<" and key_node.style is None:
                parts = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for part in parts:
                    value = self.build(part, path)
                    if not isinstance(value, dict):
                        raise YamlError("<< does not stand before an object", line)
                    merged = value | merged
                continue
            if key in made:
                raise YamlError(f"the field {key} stands here twice", line)
            place = f"{path}.{key}" if path else key
            self.lines[place] = line
            made[key] = self.build(value_node, place)
        return merged | made


def scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    match node.tag.removeprefix(TAG):
        case "str":
            return text
        case "bool":
            return text.lower() == "true"
        case "null":
            return None
        case "int":
            return int(text, 16) if text.startswith("0x") else int(text)
        case "float":
            return float(text)
    raise YamlError(f"{node.tag} is not a kind of value that JSON knows", node.start_mark.line + 1)


def load_all(text: str) -> list[Document]:
    """Every document of a YAML text; empty ones have the value None. Raises YamlError."""
    documents: list[Document] = []
    loader: Loader | None = None
    try:
        loader = Loader(text)
        while loader.check_node():
            node = loader.get_node()
            documents.append(Document(node, node.start_mark.line + 1 if node else 1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(reason or "is no YAML", mark.line + 1 if mark else None) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, YamlError):
            raise
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        raise YamlError(reason) from error
    finally:
        if loader is not None:
            loader.dispose()
    return documents


def dump_all(values: Iterable[Any]) -> str:
    """YAML with sorted fields, documents apart by `---`."""
    return str(
        yaml.dump_all(values, Dumper=Dumper, sort_keys=True, allow_unicode=True, default_flow_style=False, width=10_000)
    )
