"""Files of resources: YAML or JSON, many documents, lists; errors say file, document, line and field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.resources.base import Model, Problem, Resource, ResourceError
from integration.resources.kinds import OBJECTS, Kind, kind_of_object
from integration.resources.shapes import fields_of
from integration.resources.validate import validate
from integration.resources.yaml_text import YamlError, dump_all, load_all

# What YAML does not allow, or takes for the end of a line; all below U+10000.
NO_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
UNKNOWN_FIELD = "field in document is not recognized or is in the wrong location"


@dataclass(frozen=True)
class Place:
    """Where something stands: document and line count from 1, 0 means not known; `field` is a JSON path."""

    source: str = ""
    document: int = 0
    line: int = 0
    resource: str = ""  # kind and name

    def __str__(self) -> str:
        parts = [self.source, f"document {self.document}" if self.document else ""]
        parts += [f"line {self.line}" if self.line else "", self.resource]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class DocumentProblem:
    place: Place
    problem: Problem

    def __str__(self) -> str:
        text = str(self.problem) if self.problem.field else self.problem.reason
        return f"{self.place}: {text}" if str(self.place) else text


class DocumentError(ValueError):
    """Files that cannot be used; `problems` says all that is wrong with them."""

    def __init__(self, problems: Sequence[DocumentProblem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Document:
    """A resource and where it came from."""

    resource: Resource
    kind: Kind
    source: str = ""
    number: int = 0  # of the document in the source, from 1
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)  # path in the document → line
    path: str = ""  # of the resource in the document, if that is a list

    def place(self, at: str = "") -> Place:
        name = f"{self.kind.name} {self.resource.metadata.name}".strip()
        return Place(self.source, self.number, line_of(self.lines, join(self.path, at)), name)

    def problems(self) -> list[DocumentProblem]:
        """What validation finds."""
        return [DocumentProblem(self.place(problem.field), problem) for problem in validate(self.resource)]


def read(text: str, source: str = "", *, keep_unknown: bool = False) -> list[Document]:
    """The resources of a file in their order; empty documents are passed over, rules of validation not applied.

    Fields that the model does not know are an error, as to calicoctl (of Kubernetes' own kinds they never are); with
    `keep_unknown` they stay in the resource. Raises DocumentError with all that is wrong with any document.
    """
    documents: list[Document] = []
    problems: list[DocumentProblem] = []
    try:
        values = parsed(text)
    except YamlError as error:
        raise DocumentError(
            [DocumentProblem(Place(source, 0, error.line or 0), Problem("", None, error.reason))]
        ) from error
    for number, (value, lines) in enumerate(values, start=1):
        for path, entry in entries(value):
            try:
                documents.append(made(entry, source, number, lines, path, keep_unknown=keep_unknown))
            except ResourceError as error:
                name = described(entry)
                problems += [
                    DocumentProblem(Place(source, number, line_of(lines, join(path, problem.field)), name), problem)
                    for problem in error.problems
                ]
    if problems:
        raise DocumentError(problems)
    return documents


def parsed(text: str) -> list[tuple[Any, Mapping[str, int]]]:
    """Every document's value, and the lines of its fields (of JSON they are not known)."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            # JSON may be indented with tabs, which YAML refuses.
            return [(json.loads(text, object_pairs_hook=without_twins, parse_constant=no_constant), {})]
        except json.JSONDecodeError:
            pass  # several documents, or YAML in flow style
        except RecursionError:
            raise YamlError("is nested too deeply") from None
        except YamlError:
            raise
        except ValueError as error:  # a number of thousands of digits
            raise YamlError(str(error).partition(";")[0]) from None
    return [(document.value, document.lines) for document in load_all(text)]


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise YamlError(f"the field {twin} stands in one object twice")
    return made


def no_constant(text: str) -> Any:
    raise YamlError(f"{text} is no JSON")


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """The resources of a document, each with its path: one object, a list, or an object of a List kind."""
    if value is None:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from ((f"[{index}]{join('', path)}", entry) for path, entry in entries(item))
        return
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(value.get("items"), list):
        yield "", value
        return
    # Items of a list of one kind need not say it again.
    own = {} if kind == "List" else {"kind": kind.removesuffix("List"), "apiVersion": value.get("apiVersion")}
    for index, item in enumerate(value["items"]):
        yield f"items[{index}]", own | item if isinstance(item, dict) else item


def made(entry: Any, source: str, number: int, lines: Mapping[str, int], path: str, *, keep_unknown: bool) -> Document:
    if not isinstance(entry, dict):
        raise ResourceError([Problem("", entry, f"{entry!r} is not a resource: it should be an object")])
    for name in ("apiVersion", "kind"):
        if not isinstance(entry.get(name), str) or not entry[name]:
            known = sorted({str(key[0 if name == "apiVersion" else 1]) for key in OBJECTS})
            raise ResourceError([Problem(name, entry.get(name), "is required", ", ".join(known))])
    try:
        kind = kind_of_object(entry["apiVersion"], entry["kind"])
    except ValueError as error:
        raise ResourceError([Problem("", None, str(error))]) from error
    resource = kind.model.from_json(entry)
    assert isinstance(resource, Resource)
    if kind.group == "calico" and not keep_unknown and (unknown := list(unknown_fields(resource, ""))):
        raise ResourceError([Problem(each, None, UNKNOWN_FIELD) for each in unknown])
    return Document(resource, kind, source, number, lines, path)


def unknown_fields(model: Model, path: str) -> Iterator[str]:
    """Paths of what the model does not know. Metadata is Kubernetes', and open."""
    yield from (join(path, name) for name in model.model_extra or {})
    for each in fields_of(type(model)):
        value = getattr(model, each.attribute)
        place = join(path, each.name)
        if isinstance(value, Model) and place != "metadata":
            yield from unknown_fields(value, place)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Model):
                    yield from unknown_fields(item, f"{place}[{index}]")


def described(entry: Any) -> str:
    if not isinstance(entry, dict):
        return ""
    metadata = entry.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else ""
    return " ".join(str(part) for part in (entry.get("kind"), name) if part)


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name and not name.startswith("[") else path + name


def line_of(lines: Mapping[str, int], path: str) -> int:
    """The line of the field, or of the nearest thing around it that stands in the text."""
    while path not in lines and path:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, 0)


def as_object(value: Resource | Mapping[str, Any]) -> Any:
    return value.to_json() if isinstance(value, Model) else value


def to_yaml(resources: Iterable[Resource | Mapping[str, Any]]) -> str:
    """One document a resource, fields sorted."""
    return dump_all([as_object(each) for each in resources])


def to_json_text(resources: Sequence[Resource | Mapping[str, Any]]) -> str:
    """One resource as an object, several as an array, indented by two blanks. It is YAML too."""
    objects = [as_object(each) for each in resources]
    text = json.dumps(objects[0] if len(objects) == 1 else objects, indent=2, ensure_ascii=False)
    return NO_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
