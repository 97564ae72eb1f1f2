"""Typed resources over any datastore, with the rules of Calico's client: what must be said, what must not, what is filled in."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import TypeVar

from integration.datastore.api import Datastore, Entry, Value
from integration.datastore.cluster_rules import check_change, check_create, check_delete, check_write
from integration.datastore.errors import AlreadyExists, DoesNotExist, Invalid, Unreadable, UpdateConflict
from integration.resources.base import Problem, Resource, ResourceError
from integration.resources.keys import Key
from integration.resources.kinds import KINDS, Kind
from integration.resources.models.ipam import IPPool
from integration.resources.validate import defaulted, validate

AnyResource = TypeVar("AnyResource", bound=Resource)
Listed = list  # the class below has a method of that name
TRIES = 10  # of `apply` against others that write the same resource


def key_of(resource: Resource) -> Key:
    """Raises Invalid if it has no name, or a namespace where none belongs or none where one does."""
    kind, metadata = KINDS[type(resource).__name__], resource.metadata
    key = Key(kind.name, metadata.name, metadata.namespace)
    problems = list(_key_problems(kind, metadata.name, metadata.namespace))
    if metadata.generate_name:
        problems.append(Problem("metadata.generateName", metadata.generate_name, "is not supported", "a name"))
    if problems:
        raise Invalid(key, problems)
    return key


def _key_problems(kind: Kind, name: str, namespace: str) -> Iterator[Problem]:
    if not name:
        yield Problem("metadata.name", None, "is required")
    if kind.namespaced and not namespace:
        yield Problem("metadata.namespace", None, f"is required: a {kind.name} lives in a namespace")
    if not kind.namespaced and namespace:
        yield Problem("metadata.namespace", namespace, f"must be empty: a {kind.name} belongs to no namespace")


class ResourceClient:
    """Raises DatastoreError and its kinds; Invalid before anything is written, Unreadable for what is not of its shape.

    client = ResourceClient(datastore)
    peer = await client.create(BGPPeer.from_json({...}))     # validated, with defaults, uid, time, resourceVersion
    peer.spec.as_number = 65001
    peer = await client.update(peer)                         # UpdateConflict if somebody was quicker
    await client.delete(BGPPeer, "rack1")
    """

    def __init__(self, datastore: Datastore) -> None:
        self.datastore = datastore

    async def get(self, model: type[AnyResource], name: str, namespace: str = "") -> AnyResource:
        return read(model, await self.datastore.get(Key(model.__name__, name, namespace)))

    async def list(
        self, model: type[AnyResource], namespace: str | None = None, name_prefix: str = ""
    ) -> list[AnyResource]:
        """Those that can be read: one that is broken hides no other."""
        return (await self.listing(model, namespace, name_prefix))[0]

    async def listing(
        self, model: type[AnyResource], namespace: str | None = None, name_prefix: str = ""
    ) -> tuple[Listed[AnyResource], Listed[Unreadable]]:
        """Those that can be read, and what is wrong with the others."""
        listing = await self.datastore.list(model.__name__, namespace=namespace, name_prefix=name_prefix)
        found: list[AnyResource] = []
        broken = [*listing.unreadable]
        for entry in listing.entries:
            try:
                found.append(read(model, entry))
            except Unreadable as error:
                broken.append(error)
        return found, broken

    async def create(self, resource: AnyResource) -> AnyResource:
        """Written where nothing lies; the result has uid, creationTimestamp and resourceVersion."""
        key = key_of(resource)
        if resource.metadata.resource_version:
            field = Problem("metadata.resourceVersion", resource.metadata.resource_version, "must be empty on create")
            raise Invalid(key, [field])
        value = self._checked(key, resource)
        await check_create(self.datastore, key, resource)
        value["metadata"].setdefault("creationTimestamp", now_text())
        value["metadata"].setdefault("uid", str(uuid.uuid4()))
        return read(type(resource), await self.datastore.create(key, value))

    async def update(self, resource: AnyResource) -> AnyResource:
        """Overwrites what has the resource's resourceVersion. DoesNotExist, UpdateConflict."""
        key, metadata = key_of(resource), resource.metadata
        needed = {
            "metadata.resourceVersion": metadata.resource_version,
            "metadata.creationTimestamp": metadata.creation_timestamp,
            "metadata.uid": metadata.uid,
        }
        missing = [
            Problem(name, None, "is required on update: start from what was read")
            for name in needed
            if not needed[name]
        ]
        if missing:
            raise Invalid(key, missing)
        value = self._checked(key, resource)
        if isinstance(resource, IPPool):
            try:
                check_change(key, resource, (await self.datastore.get(key)).value)
            except Unreadable:
                pass
        return read(type(resource), await self.datastore.update(key, value, revision=metadata.resource_version))

    async def replace(self, resource: AnyResource) -> AnyResource:
        """`update` of what lies there, whatever its revision unless the resource says one, and though it be unreadable.

        DoesNotExist, UpdateConflict.
        """
        key = key_of(resource)
        for tries_left in reversed(range(TRIES)):
            try:
                current = await self.datastore.get(key)
            except Unreadable as error:
                current = Entry(key, {}, error.revision)
            try:
                return await self.update(_succeeding(resource, current))
            except UpdateConflict:
                if resource.metadata.resource_version or not tries_left:
                    raise
        raise AssertionError("unreachable")

    async def apply(self, resource: AnyResource) -> AnyResource:
        """Create it or overwrite what is there; a resourceVersion, if one is given, must be the present one."""
        for tries_left in reversed(range(TRIES)):
            try:
                return await self.replace(resource)
            except DoesNotExist:
                if not tries_left:
                    raise
            try:
                fresh = resource.model_copy(deep=True)
                fresh.metadata.resource_version = ""
                return await self.create(fresh)
            except AlreadyExists:
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    async def delete(
        self, model: type[AnyResource], name: str, namespace: str = "", *, revision: str = ""
    ) -> AnyResource:
        """What was there."""
        return read(model, await self.remove(Key(model.__name__, name, namespace), revision=revision))

    async def remove(self, key: Key, *, revision: str = "") -> Entry:
        """`delete` for whoever has a key, and wants to be rid also of what cannot be read."""
        await check_delete(self.datastore, key)
        return await self.datastore.delete(key, revision=revision)

    def _checked(self, key: Key, resource: Resource) -> Value:
        check_write(key, resource)
        filled = defaulted(resource)
        problems = validate(filled)
        if problems:
            raise Invalid(key, problems)
        value = filled.to_json()
        kind = KINDS[key.kind]
        value["kind"], value["apiVersion"] = kind.json_kind, kind.api_version
        value["metadata"].pop("resourceVersion", None)
        return value


def _succeeding(resource: AnyResource, current: Entry) -> AnyResource:
    """A copy that says what the present one must go on saying."""
    copy = resource.model_copy(deep=True)
    was = current.value.get("metadata") or {}
    metadata = copy.metadata
    metadata.resource_version = metadata.resource_version or current.revision
    # Older versions of Calico wrote neither; then there is no better time to begin than now.
    metadata.creation_timestamp = str(was.get("creationTimestamp") or metadata.creation_timestamp or now_text())
    metadata.uid = str(was.get("uid") or metadata.uid or uuid.uuid4())
    return copy


def read(model: type[AnyResource], entry: Entry) -> AnyResource:
    """Raises Unreadable if what is stored is not of the kind's shape."""
    try:
        return model.from_json(entry.value)
    except ResourceError as error:
        raise Unreadable(entry.key, str(error), entry.revision) from error


def now_text() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
