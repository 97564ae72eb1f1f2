"""patch and label: a part of a resource changed, the rest as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.cli.cluster_rules import refuse_what_is_not_ours
from integration.cli.outcome import Failed, complain
from integration.cli.writing import Job, succeeding
from integration.datastore.api import Value
from integration.datastore.client import TRIES, ResourceClient
from integration.datastore.errors import DatastoreError, Invalid, Unsupported, UpdateConflict
from integration.resources.base import Problem, Resource, ResourceError
from integration.resources.documents import UNKNOWN_FIELD, unknown_fields
from integration.resources.keys import Key
from integration.resources.kinds import KINDS
from integration.resources.yaml_text import YamlError, load_all

Change = Callable[[Value], Value]


def patch_of(text: str) -> dict[str, Any]:
    """A merge patch (RFC 7396) in JSON or YAML. Raises ValueError."""
    try:
        values = [json.loads(text)] if text.lstrip().startswith("{") else [one.value for one in load_all(text)]
    except json.JSONDecodeError as error:
        raise ValueError(f"the patch is no JSON: {error}") from None
    except YamlError as error:
        raise ValueError(f"the patch is no YAML: {error.reason}") from None
    if len(values) != 1 or not isinstance(values[0], dict):
        raise ValueError('the patch is no object; for example \'{"spec": {"asNumber": 65001}}\'')
    return values[0]


def merged(value: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, null removes, everything else (lists too) takes the place of what was there."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(value) if isinstance(value, Mapping) else {}
    for name, part in patch.items():
        if part is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), part)
    return result


async def change(client: ResourceClient, key: Key, how: Change) -> Value:
    """Read, change and write, again if somebody else wrote meanwhile. Returns what there was before."""
    refuse_what_is_not_ours(key)
    if not KINDS[key.kind].is_resource:
        raise Unsupported(f"{key} is the allocator's own: nobody else writes it")
    for tries_left in reversed(range(TRIES)):
        entry = await client.datastore.get(key)
        KINDS[key.kind].model.from_json(entry.value)  # what is not of its kind's shape cannot be changed in part
        resource = _checked(key, entry.value, how(entry.value))
        try:
            await client.update(type(resource).from_json(succeeding(resource, entry.value["metadata"], entry.revision)))
            return entry.value
        except UpdateConflict:
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def _checked(key: Key, before: Value, after: Value) -> Resource:
    model = KINDS[key.kind].model
    for field in ("kind", "apiVersion"):
        if after.get(field) != before.get(field):
            raise Invalid(key, [Problem(field, after.get(field), "cannot be changed")])
    metadata = after.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise Invalid(key, [Problem("metadata", metadata, "is not an object")])
    for field in ("name", "namespace"):
        if (now := metadata.get(field)) != before["metadata"].get(field):
            raise Invalid(key, [Problem(f"metadata.{field}", now, "cannot be changed")])
    resource = model.from_json(after)
    assert isinstance(resource, Resource)
    if KINDS[key.kind].group == "calico":
        known = set(unknown_fields(model.from_json(before), ""))
        if unknown := [
            Problem(each, None, UNKNOWN_FIELD) for each in unknown_fields(resource, "") if each not in known
        ]:
            raise ResourceError(unknown)
    return resource


async def patch(client: ResourceClient, key: Key, with_what: Mapping[str, Any]) -> None:
    try:
        await change(client, key, lambda value: merged(value, with_what))
    except (DatastoreError, ResourceError) as error:
        complain(f"failed to patch '{key.kind}' resource", Job(key).told(error))
        raise Failed from None
    print(f"Successfully patched 1 '{key.kind}' resource")


@dataclass(frozen=True, slots=True)
class LabelChanges:
    """Labels to set and to remove."""

    put: Mapping[str, str]
    gone: Sequence[str]
    overwrite: bool = False

    def __call__(self, value: Value) -> Value:
        metadata = value["metadata"]
        labels = dict(metadata.get("labels") or {})
        taken = [name for name, new in self.put.items() if labels.get(name, new) != new]
        if taken and not self.overwrite:
            name = taken[0]
            raise LabelError(f"the label {name} is {labels[name]!r} already; use '--overwrite' to overwrite it")
        missing = [name for name in self.gone if name not in labels]
        if missing:
            raise LabelError(f"there is no label {missing[0]} to remove")
        kept = {name: text for name, text in labels.items() if name not in self.gone}
        return {**value, "metadata": {**metadata, "labels": {**kept, **self.put}}}


class LabelError(DatastoreError):
    """The labels that are there forbid the change."""


def label_changes(words: Sequence[str], *, remove: bool, overwrite: bool) -> LabelChanges:
    """`key=value` sets, `key-` (or `key` with --remove) removes. Raises ValueError."""
    put: dict[str, str] = {}
    gone: list[str] = []
    for word in words:
        name, sign, text = word.partition("=")
        if sign and not remove:
            put[name] = text
        elif not sign and (remove or word.endswith("-")):
            gone.append(word.removesuffix("-"))
        else:
            raise ValueError(f"{word!r} is no label; KEY=VALUE sets one, KEY- removes one")
    if both := [name for name in gone if name in put]:
        raise ValueError(f"the label {both[0]} cannot be set and removed at once")
    return LabelChanges(put, gone, overwrite)


async def label(client: ResourceClient, key: Key, changes: LabelChanges) -> None:
    try:
        before = await change(client, key, changes)
    except (DatastoreError, ResourceError) as error:
        complain(f"failed to update label of {key}", Job(key).told(error))
        raise Failed from None
    labels = before["metadata"].get("labels") or {}
    for name, text in changes.put.items():
        print(f"Successfully {'updated' if name in labels else 'set'} label {name}={text} on {key}")
    for name in changes.gone:
        print(f"Successfully removed label {name} from {key}")
