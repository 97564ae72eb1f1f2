"""What stands behind the fake API server: objects, one revision counter for all, and a history that can be compacted.

The rules are those of the Kubernetes API server over etcd (API concepts: resource versions, chunked lists, watches);
`test_fake_apiserver.py` holds the same requests against a real server if one is given.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


class ApiFailure(Exception):
    """An answer that is no success: becomes a Status object (meta/v1)."""

    def __init__(
        self, code: int, reason: str, message: str, details: Object | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.headers = code, headers or {}
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            **({"details": details} if details else {}),
            "code": code,
        }


@dataclass(frozen=True)
class ResourceType:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    has_status: bool = False
    is_custom: bool = False
    schema: Object | None = field(default=None, compare=False, repr=False)

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, order=True)
class Path:
    group: str
    plural: str
    namespace: str
    name: str

    def is_in(self, group: str, plural: str, namespace: str) -> bool:
        return self.group == group and self.plural == plural and namespace in ("", self.namespace)


@dataclass(frozen=True)
class Change:
    """One write: `current` is None for a deletion, `previous` for a creation."""

    revision: int
    path: Path
    previous: Object | None
    current: Object | None


@dataclass
class Store:
    revision: int = 100
    # The oldest revision that can still be listed at or watched from.
    compacted: int = 0
    changes: list[Change] = field(default_factory=list)
    objects: dict[Path, Object] = field(default_factory=dict)

    def write(self, path: Path, value: Object | None) -> Object:
        """Store `value` (None: delete) under the next revision; what is returned carries it."""
        self.revision += 1
        previous = self.objects.get(path)
        current = copy.deepcopy(value)
        if current is None:
            del self.objects[path]
        else:
            current["metadata"]["resourceVersion"] = str(self.revision)
            self.objects[path] = current
        self.changes.append(Change(self.revision, path, previous, current))
        if current is not None:
            return copy.deepcopy(current)
        assert previous is not None
        # A deleted object carries the revision of its deletion.
        gone = copy.deepcopy(previous)
        gone["metadata"]["resourceVersion"] = str(self.revision)
        return gone

    def at(self, revision: int) -> dict[Path, Object]:
        """All objects as they were at `revision`."""
        objects = dict(self.objects)
        for change in reversed(self.changes):
            if change.revision <= revision:
                break
            if change.previous is None:
                objects.pop(change.path, None)
            else:
                objects[change.path] = change.previous
        return objects

    def compact(self) -> None:
        """Forget the history: watches and chunked lists from before end in 410."""
        self.compacted = self.revision
        self.changes.clear()

    def since(self, revision: int) -> Iterator[Change]:
        return (change for change in self.changes if change.revision > revision)


def watch_event(
    change: Change, group: str, plural: str, namespace: str, selected: Callable[[Object], bool]
) -> tuple[str, Object] | None:
    """The event that a watch with this selection sees of `change`.

    An object that comes to match is ADDED, one that no longer does DELETED, whatever the write was.
    """
    if not change.path.is_in(group, plural, namespace):
        return None
    was = change.previous is not None and selected(change.previous)
    is_now = change.current is not None and selected(change.current)
    if is_now:
        assert change.current is not None
        return ("MODIFIED" if was else "ADDED"), change.current
    if not was:
        return None
    gone = copy.deepcopy(change.previous)
    assert gone is not None
    gone["metadata"]["resourceVersion"] = str(change.revision)
    return "DELETED", gone


def label_selector(text: str) -> Callable[[Object], bool]:
    """`a=b,c!=d,e,!f,g in (x,y),h notin (z)` (labels and selectors of the API concepts)."""
    tests = [_requirement(part) for part in re.split(r",(?![^(]*\))", text) if part.strip()]
    return lambda value: all(test(value.get("metadata", {}).get("labels") or {}) for test in tests)


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    text = text.strip()
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", text):
        key, values = found[1], {value.strip() for value in found[3].split(",")}
        if found[2] == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: labels.get(key) not in values
    if found := re.fullmatch(r"([^=!\s]+)\s*(==|=|!=)\s*(\S*)", text):
        key, value = found[1], found[3]
        if found[2] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if text.startswith("!"):
        return lambda labels: text[1:] not in labels
    return lambda labels: text in labels


def field_selector(text: str) -> Callable[[Object], bool]:
    """`metadata.name=x,spec.nodeName!=y`."""

    def value_at(value: Object, path: str) -> str:
        for part in path.split("."):
            value = value.get(part) or {}
        return str(value or "")

    tests: list[tuple[str, bool, str]] = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"([\w.]+)(==|=|!=)(.*)", part)
        if not found:
            raise ApiFailure(400, "BadRequest", f"unable to parse field selector {part!r}")
        tests.append((found[1], found[2] != "!=", found[3]))
    return lambda value: all((value_at(value, path) == wanted) is equal for path, equal, wanted in tests)
