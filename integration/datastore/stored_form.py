"""How a resource looks where it is stored, in etcd as Calico stores it and in the local file likewise."""

from __future__ import annotations

import json
from collections.abc import Sequence

from integration.datastore.api import MAX_STEPS, Entry, Step, Value
from integration.datastore.errors import Invalid, Unreadable
from integration.resources.base import API_VERSION, Problem
from integration.resources.keys import Key, etcd_path
from integration.resources.kinds import KINDS

NAME_ANNOTATION = "projectcalico.org/metadata"
# Calico remembers a policy's name beside it: earlier versions stored another name than the one people gave.
NAMED_BY_ANNOTATION = {"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"}
OLD_PREFIX = "default."

DEFAULT_ALLOW = Key("Profile", "projectcalico-default-allow")
DEFAULT_ALLOW_REVISION = "1"


def path_of(key: Key) -> str:
    """`etcd_path`, but raises Invalid for a key that names nothing storable."""
    try:
        return etcd_path(key)
    except ValueError as error:
        raise Invalid(key, [Problem("metadata.name", key.name, str(error).removeprefix(f"{key}: "))]) from None


def encode(key: Key, value: Value) -> bytes:
    """What is stored: no resourceVersion, and a policy's name in an annotation. Raises Invalid, also for no JSON."""
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        metadata = {name: part for name, part in metadata.items() if name != "resourceVersion"}
        if key.kind in NAMED_BY_ANNOTATION:
            name = json.dumps({"name": metadata.get("name") or key.name}, separators=(",", ":"))
            metadata["annotations"] = {**(metadata.get("annotations") or {}), NAME_ANNOTATION: name}
        value = {**value, "metadata": metadata}
    elif has_metadata(key):
        raise Invalid(key, [Problem("metadata", metadata, "is not an object")])
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise Invalid(key, [Problem("", None, f"cannot be written as JSON: {error}")]) from error


def decode(key: Key, stored: bytes, revision: str) -> Entry:
    """What `encode` made, with its revision as resourceVersion. Raises Unreadable."""
    if not stored and key.kind == "BlockAffinity":
        return Entry(key, {}, revision)  # from before affinities had a state
    try:
        value = json.loads(stored)
    except (ValueError, RecursionError) as error:  # nested deeper than Python follows
        raise Unreadable(key, f"no JSON: {error}", revision) from None
    if not isinstance(value, dict):
        raise Unreadable(key, "no JSON object", revision)
    if has_metadata(key):
        metadata = value.get("metadata")
        if not isinstance(metadata, dict):
            raise Unreadable(key, "metadata is no object", revision)
        if key.kind in NAMED_BY_ANNOTATION:
            restore_name(value, metadata)
        metadata["resourceVersion"] = revision
    return Entry(key, value, revision)


def has_metadata(key: Key) -> bool:
    return key.kind in KINDS and KINDS[key.kind].is_resource


def restore_name(value: Value, metadata: Value) -> None:
    annotations = metadata.get("annotations")
    remembered = annotations.pop(NAME_ANNOTATION, None) if isinstance(annotations, dict) else None
    if annotations == {}:
        del metadata["annotations"]
    spec = value.get("spec")
    tier = spec.get("tier") if isinstance(spec, dict) else None
    name = metadata.get("name")
    if remembered is None:
        if isinstance(name, str) and name.startswith(OLD_PREFIX) and tier in (None, "", "default"):
            metadata["name"] = name.removeprefix(OLD_PREFIX)
        return
    try:
        metadata["name"] = json.loads(remembered)["name"]
    except (TypeError, ValueError, LookupError):
        pass  # the annotation is somebody else's: the name as stored is the best there is


def default_allow_profile() -> Entry:
    """The profile that Calico always shows and never stores: everything is allowed."""
    spec = {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}
    metadata = {"name": DEFAULT_ALLOW.name, "resourceVersion": DEFAULT_ALLOW_REVISION}
    value = {"kind": "Profile", "apiVersion": API_VERSION, "metadata": metadata, "spec": spec}
    return Entry(DEFAULT_ALLOW, value, DEFAULT_ALLOW_REVISION)


def revision_number(key: Key, revision: str) -> int:
    """Raises Invalid if it is no revision of these datastores."""
    if revision.isascii() and revision.isdigit() and len(revision) < 20:
        return int(revision)
    raise Invalid(key, [Problem("metadata.resourceVersion", revision, "is no revision of this datastore")])


def check_steps(steps: Sequence[Step]) -> None:
    """Raises Invalid if they cannot be one transaction."""
    seen: set[Key] = set()
    for step in steps:
        if step.key in seen:
            raise Invalid(step.key, [Problem("", None, "comes twice in one transaction")])
        seen.add(step.key)
        if step.value is None and step.revision == "":
            raise Invalid(step.key, [Problem("", None, "is removed where nothing may lie")])
    if len(steps) > MAX_STEPS:
        reason = f"is one of {len(steps)} steps in one transaction"
        raise Invalid(steps[MAX_STEPS].key, [Problem("", None, reason, f"at most {MAX_STEPS}")])
