"""get: resources as tables, YAML, JSON or names."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.cli.outcome import Failed, complain
from integration.cli.resource_tables import CLUSTER_ASN, columns_of, table
from integration.cli.writing import Job
from integration.datastore.api import Datastore, Entry
from integration.datastore.client import ResourceClient
from integration.datastore.errors import BrokenStore, DatastoreError, Unavailable
from integration.resources.keys import Key
from integration.resources.kinds import KINDS, Kind
from integration.resources.yaml_text import dump_all

DEFAULT_ASN = 64512
OF_ONE_CLUSTER = (
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """How it is shown. `output`: ps, wide, yaml, json or name."""

    output: str = "ps"
    with_namespace: bool = False
    export: bool = False


async def get_named(client: ResourceClient, jobs: Sequence[Job], shape: Shape) -> None:
    """Those that are there, on stdout; each that is not is told, and is Failed."""
    found: list[Entry] = []
    failures: list[str] = []
    for job in jobs:
        try:
            found.append(await client.datastore.get(job.key))
        except (Unavailable, BrokenStore):
            raise
        except DatastoreError as error:
            failures += job.told(error)
    if found or not failures:
        values = [_exported(entry.value) if shape.export else entry.value for entry in found]
        keys = [entry.key for entry in found]
        if shape.output in ("yaml", "json"):
            whole = values[0] if len(values) == 1 else values
            put(whole, shape.output)
        else:
            await _put_lines(client.datastore, keys, values, shape)
    if failures:
        what = "these resources" if len(failures) > 1 else "the resource"
        complain(f"failed to get {what}", failures)
        raise Failed


async def get_all(client: ResourceClient, kind: Kind, namespace: str | None, shape: Shape) -> None:
    """All of a kind; what lies there and cannot be understood is told, and is Failed."""
    listing = await client.datastore.list(kind.name, namespace=namespace)
    values = [entry.value for entry in listing.entries]
    if shape.output in ("yaml", "json"):
        whole = {
            "kind": f"{kind.json_kind}List",
            "apiVersion": kind.api_version,
            "metadata": {"resourceVersion": listing.revision},
            "items": values,
        }
        put(whole, shape.output)
    else:
        keys = [entry.key for entry in listing.entries] or [Key(kind.name, "")]
        await _put_lines(client.datastore, keys, values, shape)
    if listing.unreadable:
        complain("some resources cannot be read", [str(error) for error in listing.unreadable])
        raise Failed


def put(whole: Any, output: str) -> None:
    print(json.dumps(whole, indent=2, ensure_ascii=False) if output == "json" else dump_all([whole]).rstrip("\n"))
    sys.stdout.flush()


async def _put_lines(
    datastore: Datastore, keys: Sequence[Key], values: Sequence[Mapping[str, Any]], shape: Shape
) -> None:
    if shape.output == "name":
        for key, _ in zip(keys, values, strict=False):
            print(f"{key.kind.lower()}/{key.name}")
        return
    is_wide = shape.output == "wide"
    for kind in dict.fromkeys(key.kind for key in keys):
        shown = [_named(key, value) for key, value in zip(keys, values, strict=False) if key.kind == kind]
        if kind == "Node" and is_wide:
            asn = await _cluster_asn(datastore)
            shown = [{**value, CLUSTER_ASN: asn} for value in shown]
        with_namespace = shape.with_namespace and KINDS[kind].namespaced
        for line in table(columns_of(kind, is_wide=is_wide, with_namespace=with_namespace), shown):
            print(line)


def _named(key: Key, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """IPAM's own objects do not say what they are called."""
    return value if isinstance(value.get("metadata"), Mapping) else {**value, "metadata": _identity(key)}


def _identity(key: Key) -> dict[str, str]:
    return {"name": key.name, "namespace": key.namespace}


async def _cluster_asn(datastore: Datastore) -> object:
    """`unknown` if it cannot be read, as calicoctl says."""
    from integration.datastore.errors import DoesNotExist

    try:
        value = (await datastore.get(Key("BGPConfiguration", "default"))).value
    except DoesNotExist:
        return DEFAULT_ASN
    except DatastoreError:
        return "unknown"
    spec = value.get("spec")
    return (spec.get("asNumber") if isinstance(spec, Mapping) else None) or DEFAULT_ASN


def _exported(value: Mapping[str, Any]) -> dict[str, Any]:
    """Without what belongs to this cluster alone, so that it can be created in another."""
    metadata = value.get("metadata") or {}
    return {**value, "metadata": {name: part for name, part in metadata.items() if name not in OF_ONE_CLUSTER}}


def named_kinds(targets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`KIND NAME NAME…` or `KIND/NAME KIND/NAME…` → kind and name; a kind alone has the name ""."""
    first, *rest = targets
    if "/" not in first:
        yield from ((first, name) for name in rest or [""])
        return
    for target in targets:
        kind, _, name = target.partition("/")
        yield kind, name
