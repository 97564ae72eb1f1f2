"""The datastore in Kubernetes' API."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from integration.datastore.api import Entry, Event, Listing, Step, Value
from integration.datastore.errors import (
    AlreadyExists,
    DatastoreError,
    DoesNotExist,
    Invalid,
    RevisionGone,
    Unavailable,
    Unreadable,
    Unsupported,
    UpdateConflict,
)
from integration.datastore.kubernetes import nodes, pods
from integration.datastore.kubernetes.connection import MERGE_PATCH, ApiError, Connection, KubernetesSettings
from integration.datastore.kubernetes.places import (
    GROUPS,
    CalicoResource,
    Collection,
    IPAMObject,
    NodePlace,
    Place,
    PodPlace,
    places_of,
)
from integration.datastore.kubernetes.refusals import refusal
from integration.datastore.kubernetes.watching import Change, changes
from integration.datastore.stored_form import DEFAULT_ALLOW, default_allow_profile, has_metadata, path_of
from integration.resources.base import API_VERSION, Problem
from integration.resources.keys import Key
from integration.resources.kinds import KINDS
from integration.resources.models.ipam_crds import CRD_VERSION

Object = dict[str, Any]
PAGE = 500
# How often a write that compares with what it has just read is tried again when somebody was faster.
ATTEMPTS = 20
READ_ONLY = {
    "Profile": "profiles are made from namespaces and service accounts",
    "Service": "use Kubernetes' own API",
}


class KubernetesDatastore:
    """`Datastore` over an API server: custom resources, and what Kubernetes' own objects say of Calico's kinds.

    Revisions are the server's resource versions; where a kind is made from two collections, a listing's revision and
    an event's are both, with `/` between.
    """

    def __init__(self, settings: KubernetesSettings | None = None) -> None:
        self.settings = settings or KubernetesSettings()
        if self.settings.api_group not in ("", *GROUPS):
            raise DatastoreError(
                f"there is no API group {self.settings.api_group!r}", f"use one of {', '.join(GROUPS)}"
            )
        self.connection = Connection(self.settings)
        self.group_version = self.settings.api_group
        self.places: dict[str, Sequence[Place]] = {}

    # Reading

    async def get(self, key: Key, *, revision: str = "") -> Entry:
        path_of(key)
        if revision:
            raise Unsupported("Kubernetes keeps no old values")
        if key == DEFAULT_ALLOW:
            self.connection.raise_if_closed()
            return default_allow_profile()
        return (await self.found(key))[1]

    async def list(self, kind: str, *, namespace: str | None = None, name_prefix: str = "") -> Listing:
        entries: builtins.list[Entry] = []
        unreadable: builtins.list[Unreadable] = []
        revisions = []
        for place in await self.places_of(kind):
            items, revision = await self.items(place, kind, namespace)
            revisions.append(revision)
            for item in items:
                try:
                    entry = place.entry(item)
                except Unreadable as error:
                    unreadable.append(error)
                    continue
                if entry and namespace in (None, entry.key.namespace):
                    entries.append(entry)
        if kind == DEFAULT_ALLOW.kind:
            entries.append(default_allow_profile())
        entries = [entry for entry in entries if entry.key.name.startswith(name_prefix)]
        entries.sort(key=lambda entry: (entry.key.namespace, entry.key.name))
        return Listing(entries, "/".join(revisions), unreadable)

    async def items(self, place: Place, kind: str, namespace: str | None) -> tuple[builtins.list[Object], str]:
        """The objects, and the oldest revision that any page of them shows."""
        collection, found, oldest = place.collection, [], ""
        path = collection.path(namespace or "")
        for selector in place.selectors(namespace):
            params = {"labelSelector": selector} if selector else {}
            with_pages, is_confirmed = True, False
            while True:
                try:
                    items, revision = await self.pages(path, params | ({"limit": str(PAGE)} if with_pages else {}))
                    break
                except ApiError as error:
                    if error.code in (403, 404) and not is_confirmed:
                        await self.refuse_starting(error)
                        is_confirmed = True
                        continue
                    if error.code == 403 and not await self.serves(collection):
                        raise Unsupported(f"the API server has no {collection}") from error
                    # The moment that the pages show was compacted away: all in one, then.
                    if not (error.is_gone and with_pages):
                        raise refusal(error, Key(kind, ""), collection) from error
                    with_pages = False
            found += items
            oldest = oldest or revision
        return found, oldest

    async def refuse_starting(self, error: ApiError) -> None:
        """A server that starts forbids everything and lacks what definitions add to it. Unavailable if this one does."""
        if not await self.connection.is_ready():
            raise Unavailable(f"the API server is starting: {error.message}") from error

    async def serves(self, collection: Collection) -> bool:
        """Discovery says so to everybody; the collection itself is forbidden to whoever has no role for it, there or not."""
        try:
            found = await self.connection.request("GET", collection.group_path)
        except ApiError as error:
            return error.code != 404
        return any(each.get("name") == collection.plural for each in found.get("resources") or ())

    async def pages(self, path: str, params: dict[str, str]) -> tuple[builtins.list[Object], str]:
        found: builtins.list[Object] = []
        while True:
            page = await self.connection.request("GET", path, params=params)
            found += page.get("items") or []
            if not page["metadata"].get("continue"):
                return found, page["metadata"]["resourceVersion"]
            params = params | {"continue": page["metadata"]["continue"]}

    async def found(self, key: Key) -> tuple[Place, Entry, Object]:
        """Where the resource is, and what is there. DoesNotExist, Unreadable."""
        for place in await self.places_of(key.kind):
            for address in place.addresses(key):
                with refused_as(key, place.collection):
                    try:
                        value = await self.connection.request("GET", place.collection.path(*address))
                    except ApiError as error:
                        if error.code == 404 and error.details.get("name"):
                            continue
                        raise
                entry = place.entry(value)
                if entry and entry.key == key:
                    return place, entry, value
        raise DoesNotExist(key)

    # Writing

    async def create(self, key: Key, value: Value, *, ttl_s: float | None = None) -> Entry:
        place = await self.writable(key, value)
        if ttl_s is not None:
            raise Unsupported("Kubernetes has no resources that vanish by themselves")
        if isinstance(place, NodePlace):
            raise Unsupported("a node is made by Kubernetes", "update it when it is there")
        if isinstance(place, PodPlace):
            return await self.patched_pod(place, key, value, "")
        for address in place.addresses(key)[1:]:
            await self.refuse_existing(place, key, address)
        for _ in range(ATTEMPTS):
            try:
                return await self.created(place, key, value)
            except AlreadyExists:
                if not (isinstance(place, IPAMObject) and await self.finished_deletion(place, key)):
                    raise
        raise UpdateConflict(key)

    async def update(self, key: Key, value: Value, *, revision: str) -> Entry:
        place = await self.writable(key, value)
        check_revision(key, revision)
        if isinstance(place, NodePlace):
            return await self.patched_node(place, key, value, revision)
        if isinstance(place, PodPlace):
            return await self.patched_pod(place, key, value, revision)
        return await self.replaced(place, key, value, revision)

    async def apply(self, key: Key, value: Value) -> Entry:
        place = await self.writable(key, value)
        if isinstance(place, NodePlace):
            return await self.patched_node(place, key, value, "")
        if isinstance(place, PodPlace):
            return await self.patched_pod(place, key, value, "")
        value = without_uid(value)
        for _ in range(ATTEMPTS):
            # The API server overwrites only what the writer has seen.
            with suppress(DoesNotExist):
                try:
                    found = (await self.found(key))[1]
                    return await self.replaced(place, key, value, found.revision)
                except UpdateConflict:
                    continue
                except Unreadable as error:
                    return await self.replaced(place, key, value, error.revision)
            with suppress(AlreadyExists):
                return await self.create(key, value)
        raise UpdateConflict(key)

    async def delete(self, key: Key, *, revision: str = "") -> Entry:
        if revision:
            check_revision(key, revision)
        place = await self.writable(key, None)
        if isinstance(place, NodePlace):
            raise Unsupported("a node is deleted by Kubernetes")
        for attempt in range(ATTEMPTS):
            _, entry, value = await self.found(key)
            if revision not in ("", entry.revision):
                raise UpdateConflict(key, entry)
            try:
                if isinstance(place, PodPlace):
                    await self.patch(place, key, pods.RELEASED, entry.revision)
                else:
                    await self.remove(place, key, value)
                return entry
            except UpdateConflict:
                if revision or attempt == ATTEMPTS - 1:
                    raise
        raise UpdateConflict(key)

    async def transact(self, steps: Sequence[Step]) -> Sequence[Entry]:
        raise Unsupported("Kubernetes has no transactions")

    async def created(self, place: CalicoResource | IPAMObject, key: Key, value: Value) -> Entry:
        body = place.written(key, without_uid(value))
        namespace = place.addresses(key)[0][0]
        with refused_as(key, place.collection):
            made = await self.connection.request("POST", place.collection.path(namespace), body=body)
            return self.as_written(place, key, await self.with_status(place, value, made))

    async def replaced(self, place: CalicoResource | IPAMObject, key: Key, value: Value, revision: str) -> Entry:
        last = place.addresses(key)[-1]
        for address in place.addresses(key):
            body = place.written(key, value)
            body["metadata"] |= {"resourceVersion": revision, "name": address[1]}
            try:
                with refused_as(key, place.collection):
                    made = await self.connection.request("PUT", place.collection.path(*address), body=body)
                    return self.as_written(place, key, await self.with_status(place, value, made))
            except DoesNotExist:
                if address == last:
                    raise
        raise DoesNotExist(key)

    async def with_status(self, place: Place, value: Value, made: Object) -> Object:
        """Where the definition keeps the status apart, it is written apart."""
        status = value.get("status")
        if not isinstance(place, CalicoResource) or not status or made.get("status") == status:
            return made
        metadata = made["metadata"]
        path = place.collection.path(metadata.get("namespace", ""), metadata["name"], "status")
        try:
            return await self.connection.request("PUT", path, body={**made, "status": status})
        except ApiError as error:
            if error.code in (404, 405):
                return made
            raise

    async def remove(self, place: Place, key: Key, value: Object) -> None:
        """Delete the object if it is still the one that was read."""
        metadata = value["metadata"]
        body = {"preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}}
        path = place.collection.path(metadata.get("namespace", ""), metadata["name"])
        with refused_as(key, place.collection):
            await self.connection.request("DELETE", path, body=body)

    async def finished_deletion(self, place: IPAMObject, key: Key) -> bool:
        """Calico marks what it deletes before it does; whoever meets such an object completes that."""
        try:
            with refused_as(key, place.collection):
                value = await self.connection.request("GET", place.collection.path(*place.addresses(key)[0]))
            if place.entry(value) is not None:
                return False
            await self.remove(place, key, value)
        except (DoesNotExist, UpdateConflict):
            pass
        return True

    async def refuse_existing(self, place: Place, key: Key, address: tuple[str, str]) -> None:
        with suppress(DoesNotExist), refused_as(key, place.collection):
            entry = place.entry(await self.connection.request("GET", place.collection.path(*address)))
            if entry and entry.key == key:
                raise AlreadyExists(key, entry)

    async def patched_node(self, place: NodePlace, key: Key, value: Value, revision: str) -> Entry:
        made = await self.patch(place, key, nodes.annotations_of(value), revision)
        return self.as_written(place, key, made)

    async def patched_pod(self, place: PodPlace, key: Key, value: Value, revision: str) -> Entry:
        made = await self.patch(place, key, pods.patch_of(value), revision, value["metadata"].get("uid", ""))
        return self.as_written(place, key, made)

    async def patch(
        self, place: Place, key: Key, annotations: Mapping[str, str | None], revision: str, uid: str = ""
    ) -> Object:
        """Annotations of a node or a pod, by way of its status: that is all that Calico's accounts may write."""
        metadata: Object = {"annotations": dict(annotations)}
        metadata |= {"resourceVersion": revision} if revision else {}
        metadata |= {"uid": uid} if uid else {}
        addresses = place.addresses(key)
        if not addresses:
            raise DoesNotExist(key)
        path = place.collection.path(*addresses[0], "status")
        with refused_as(key, place.collection):
            return await self.connection.request("PATCH", path, body={"metadata": metadata}, media=MERGE_PATCH)

    def as_written(self, place: Place, key: Key, made: Object) -> Entry:
        entry = place.entry(made)
        if entry is None:
            # Marked as deleted by the writer, or a pod that is no endpoint.
            raise DoesNotExist(key)
        return entry

    async def writable(self, key: Key, value: Value | None) -> CalicoResource | IPAMObject | NodePlace | PodPlace:
        path_of(key)
        if value is not None and has_metadata(key) and not isinstance(value.get("metadata"), dict):
            raise Invalid(key, [Problem("metadata", value.get("metadata"), "is not an object")])
        places = await self.places_of(key.kind)
        if any(place.addresses(key) for place in places[1:]) or not isinstance(
            places[0], CalicoResource | IPAMObject | NodePlace | PodPlace
        ):
            raise Unsupported(f"{key} is read only here", READ_ONLY.get(key.kind, READ_ONLY["Service"]))
        return places[0]

    # Watching

    async def watch(self, kind: str, *, revision: str, namespace: str | None = None) -> AsyncGenerator[Event, None]:
        places = await self.places_of(kind)
        revisions = revision.split("/")
        if len(revisions) != len(places):
            raise Invalid(Key(kind, ""), [Problem("metadata.resourceVersion", revision, "is no revision of this kind")])
        for each in revisions:
            check_revision(Key(kind, ""), each)
        streams = [
            changes(self.connection, place.collection, namespace or "", since)
            for place, since in zip(places, revisions, strict=True)
        ]
        try:
            async with merged(streams) as both:
                async for index, change in both:
                    revisions[index] = change.revision
                    event = event_of(places[index], change, "/".join(revisions))
                    if event.entry is None or namespace in (None, event.entry.key.namespace):
                        yield event
        except RevisionGone as error:
            raise RevisionGone(revision) from error
        except ApiError as error:
            if error.code in (403, 404):
                await self.refuse_starting(error)
            raise refusal(error, Key(kind, ""), places[0].collection) from error

    # The rest

    async def check(self) -> None:
        place = (await self.places_of("ClusterInformation"))[0]
        with refused_as(Key("ClusterInformation", ""), place.collection):
            await self.connection.request("GET", place.collection.path(), params={"limit": "1"})

    async def close(self) -> None:
        await self.connection.close()

    async def places_of(self, kind: str) -> Sequence[Place]:
        self.connection.raise_if_closed()
        if kind not in KINDS:
            raise Unsupported(f"the kind {kind!r} is not known")
        if kind not in self.places:
            if not self.group_version:
                self.group_version = await self.served_group()
            self.places[kind] = places_of(kind, self.group_version, self.settings)
        return self.places[kind]

    async def served_group(self) -> str:
        """The native resources if they are there and the older ones are not; what answers for both is Calico's API."""
        groups = Collection("", "")
        with refused_as(Key("ClusterInformation", ""), groups):
            found = await self.connection.request("GET", "/apis")
        served = {version["groupVersion"] for group in found["groups"] for version in group["versions"]}
        return API_VERSION if API_VERSION in served and CRD_VERSION not in served else CRD_VERSION


class refused_as:
    """Turn the server's refusal of what is done inside into an error of `errors.py`."""

    def __init__(self, key: Key, collection: Collection) -> None:
        self.key, self.collection = key, collection

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ApiError):
            raise refusal(error, self.key, self.collection) from error


def check_revision(key: Key, revision: str) -> None:
    if not (revision.isascii() and revision.isdigit()):
        raise Invalid(key, [Problem("metadata.resourceVersion", revision, "is no revision of this datastore")])


def without_uid(value: Value) -> Value:
    """The server gives the new object an identity of its own."""
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or "uid" not in metadata:
        return value
    return {**value, "metadata": {name: part for name, part in metadata.items() if name != "uid"}}


TYPES: Mapping[str, Any] = {"ADDED": "added", "MODIFIED": "modified", "DELETED": "deleted"}


def event_of(place: Place, change: Change, revision: str) -> Event:
    if change.type not in TYPES:
        return Event("bookmark", None, revision)
    try:
        entry = place.entry(change.value)
    except Unreadable as error:
        if change.type == "DELETED":
            return Event("deleted", Entry(error.key, {}, error.revision), revision)
        return Event("unreadable", None, revision, error)
    if entry is None and isinstance(place, IPAMObject) and change.type != "DELETED":
        return Event("deleted", place.stored(change.value), revision)
    if entry is None:
        return Event("bookmark", None, revision)
    return Event(TYPES[change.type], entry, revision)


@asynccontextmanager
async def merged(
    streams: Sequence[AsyncGenerator[Change, None]],
) -> AsyncIterator[AsyncGenerator[tuple[int, Change], None]]:
    """All streams as one, each change with its stream's index; the first error of any ends it."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only, aclosing(numbered(only)) as both:
            yield both
        return
    queue: asyncio.Queue[tuple[int, Change | BaseException]] = asyncio.Queue(100)

    async def fill(index: int, stream: AsyncGenerator[Change, None]) -> None:
        try:
            async with aclosing(stream):
                async for change in stream:
                    await queue.put((index, change))
        except Exception as error:
            await queue.put((index, error))

    async def drain() -> AsyncGenerator[tuple[int, Change], None]:
        while True:
            index, change = await queue.get()
            if isinstance(change, BaseException):
                raise change
            yield index, change

    tasks = [asyncio.create_task(fill(*pair)) for pair in enumerate(streams)]
    try:
        async with aclosing(drain()) as both:
            yield both
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def numbered(stream: AsyncGenerator[Change, None]) -> AsyncGenerator[tuple[int, Change], None]:
    async for change in stream:
        yield 0, change
