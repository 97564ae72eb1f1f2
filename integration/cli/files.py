"""Files, directories and stdin full of resources, as `-f` names them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.cli.outcome import Failed, complain
from integration.resources.base import Problem
from integration.resources.documents import Document, DocumentError, DocumentProblem, Place, read

SUFFIXES = (".yaml", ".yml", ".json")  # of files in a directory; one that is named itself may be called anything
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Reading:
    """`recursive`: directories inside directories too. `skip_empty`: a file without resources is no error."""

    recursive: bool = False
    skip_empty: bool = False
    namespace: str = ""


def load(names: Sequence[str], how: Reading) -> list[Document]:
    """The resources of all files in their order, each with its namespace. Failed if anything cannot be used, all of it told."""
    documents: list[Document] = []
    problems: list[str] = []
    for name in names:
        try:
            found = list(_of_argument(name, how))
        except DocumentError as error:
            problems += map(str, error.problems)
            continue
        if not found and not how.skip_empty:
            where = "directory" if name != "-" and Path(name).is_dir() else "file"
            problems.append(f"no resources specified in {where} {name} (--skip-empty passes over it)")
        documents += found
    for document in documents:
        if problem := _put_into_namespace(document, how.namespace):
            problems.append(str(DocumentProblem(document.place(problem.field), problem)))
    if problems:
        complain("nothing was done, because of the files", problems)
        raise Failed
    return documents


def _of_argument(name: str, how: Reading) -> Iterator[Document]:
    if name == "-":
        yield from read(_text(sys.stdin.buffer.read(), "stdin"), "stdin")
        return
    path = Path(name)
    if not path.is_dir():
        yield from _of_file(path)
        return
    problems: list[DocumentProblem] = []
    try:
        inside = path.rglob("*") if how.recursive else path.iterdir()
        found = sorted(one for one in inside if one.suffix in SUFFIXES and one.is_file())
    except OSError as error:
        raise DocumentError([_unreadable(name, f"cannot be read: {error.strerror}")]) from None
    for each in found:
        try:
            yield from _of_file(each)
        except DocumentError as error:
            problems += error.problems
    if problems:
        raise DocumentError(problems)


def _of_file(path: Path) -> list[Document]:
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise DocumentError([_unreadable(str(path), f"cannot be read: {error.strerror}")]) from None
    return read(_text(octets, str(path)), str(path))


def _text(octets: bytes, source: str) -> str:
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError([_unreadable(source, f"is no UTF-8 text, from octet {error.start} on")]) from None


def _unreadable(source: str, why: str) -> DocumentProblem:
    return DocumentProblem(Place(source), Problem("", None, why))


def _put_into_namespace(document: Document, namespace: str) -> Problem | None:
    metadata = document.resource.metadata
    if not document.kind.namespaced:
        return None
    if namespace and metadata.namespace and metadata.namespace != namespace:
        reason = f"resource namespace does not match client namespace. {metadata.namespace} != {namespace}"
        return Problem("metadata.namespace", None, reason)
    metadata.namespace = metadata.namespace or namespace or DEFAULT_NAMESPACE
    return None
