"""The three patch types of the Kubernetes API: JSON merge patch, strategic merge patch, JSON patch."""

from __future__ import annotations

import copy
from typing import Any

from tests.integration.datastore.api_store import ApiFailure

# Lists that a strategic merge patch merges, by the key that identifies their items (patchMergeKey of the API types).
MERGE_KEYS = {"conditions": "type", "addresses": "type", "containers": "name", "podIPs": "ip", "ownerReferences": "uid"}


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def strategic_merge_patch(target: Any, patch: Any, field: str = "") -> Any:
    """Objects merge, null deletes, lists that have a merge key merge by it; other lists are replaced.

    Directives (`$patch`, `$deleteFromPrimitiveList` …) are not spoken here and are refused, so that nobody relies on them.
    """
    if isinstance(patch, list):
        return _merge_lists(target, patch, field)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            raise ApiFailure(501, "NotImplemented", f"this server does not know the patch directive {name}")
        if value is None:
            result.pop(name, None)
        else:
            result[name] = strategic_merge_patch(result.get(name), value, name)
    return result


def _merge_lists(target: Any, patch: list[Any], field: str) -> Any:
    key = MERGE_KEYS.get(field)
    if key is None:
        return copy.deepcopy(patch)
    items = list(target) if isinstance(target, list) else []
    places = {item[key]: place for place, item in enumerate(items)}
    for item in patch:
        if item[key] in places:
            items[places[item[key]]] = strategic_merge_patch(items[places[item[key]]], item)
        else:
            items.append(copy.deepcopy(item))
    return items


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. A `test` that fails, or a path that is not there, is 422 Invalid, as the API server says it."""
    if not isinstance(operations, list):
        raise ApiFailure(400, "BadRequest", "error decoding patch: json: cannot unmarshal object into Go value")
    result = copy.deepcopy(target)
    for operation in operations:
        try:
            result = _apply(result, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            reason = "the server rejected our request due to an error in our request"
            raise ApiFailure(422, "Invalid", reason, {"causes": [{"message": str(error)}]}) from error
    return result


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    op, path = operation["op"], _pointer(operation["path"])
    if op == "test":
        if _look_up(document, path) != operation["value"]:
            raise ValueError(f"testing path {operation['path']} value failed")
    elif op == "add":
        document = _insert(document, path, copy.deepcopy(operation["value"]))
    elif op == "remove":
        _remove(document, path)
    elif op == "replace":
        _look_up(document, path)
        if path:
            _remove(document, path)
        document = _insert(document, path, copy.deepcopy(operation["value"]))
    elif op in ("move", "copy"):
        value = copy.deepcopy(_look_up(document, _pointer(operation["from"])))
        if op == "move":
            _remove(document, _pointer(operation["from"]))
        document = _insert(document, path, value)
    else:
        raise ValueError(f"unexpected kind: {op}")
    return document


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _look_up(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _insert(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _look_up(document, path[:-1])
    if not isinstance(parent, list):
        parent[path[-1]] = value
    elif path[-1] == "-":
        parent.append(value)
    else:
        parent.insert(int(path[-1]), value)
    return document


def _remove(document: Any, path: list[str]) -> None:
    parent = _look_up(document, path[:-1])
    if isinstance(parent, list):
        parent.pop(int(path[-1]))
    else:
        del parent[path[-1]]
