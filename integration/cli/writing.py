"""apply, create, replace and delete: resource by resource, as calicoctl does it and says it."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from integration.cli.cluster_rules import refuse_what_is_not_ours
from integration.cli.outcome import Failed, complain
from integration.datastore.api import Value
from integration.datastore.client import TRIES, ResourceClient, now_text
from integration.datastore.errors import (
    AlreadyExists,
    BrokenStore,
    DatastoreError,
    DoesNotExist,
    Invalid,
    Unavailable,
    Unreadable,
    UpdateConflict,
)
from integration.resources.base import Resource, ResourceError
from integration.resources.documents import Document, DocumentProblem
from integration.resources.keys import Key

Verb = Literal["apply", "create", "replace", "delete"]
DONE: dict[Verb, str] = {"apply": "applied", "create": "created", "replace": "replaced", "delete": "deleted"}
KEPT_METADATA = ("name", "namespace", "resourceVersion", "labels", "annotations")  # what a person writes


@dataclass(frozen=True, slots=True)
class Job:
    """One resource to do something with; `document` is where it was written, if it came from a file."""

    key: Key
    document: Document | None = None
    revision: str = ""

    def told(self, error: DatastoreError | ResourceError) -> list[str]:
        """The error, line by line, each with the place of what is wrong."""
        if self.document is None:
            return [str(error) if str(self.key) in str(error) else f"{self.key}: {error}"]
        if isinstance(error, Invalid | ResourceError):
            return [str(DocumentProblem(self.document.place(one.field), one)) for one in error.problems]
        text = str(error).removeprefix(f"{self.key} ")
        return [f"{self.document.place()}: {text}"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What is no failure."""

    skip_exists: bool = False
    skip_not_exists: bool = False


def jobs_of(documents: Iterable[Document]) -> list[Job]:
    found = []
    for document in documents:
        metadata = document.resource.metadata
        namespace = metadata.namespace if document.kind.namespaced else ""
        found.append(Job(Key(document.kind.name, metadata.name, namespace), document, metadata.resource_version))
    return found


async def carry_out(client: ResourceClient, verb: Verb, jobs: Sequence[Job], rules: Rules) -> None:
    """All of them, or with `replace` up to the first that fails; then what came of it is said. Failed if any failed."""
    failures: list[str] = []
    done = 0
    for job in jobs:
        try:
            await _one(client, verb, job)
        except AlreadyExists as error:
            if not rules.skip_exists:
                failures += job.told(error)
                continue
        except DoesNotExist as error:
            if not rules.skip_not_exists or verb != "delete":
                failures += job.told(error)
                if verb == "replace":
                    break
                continue
        except (Unavailable, BrokenStore) as error:  # the others would wait just as long for nothing
            failures += job.told(error)
            break
        except (DatastoreError, ResourceError) as error:
            failures += job.told(error)
            if verb == "replace":
                break
            continue
        done += 1
    report(verb, jobs, done, failures)


def report(verb: Verb, jobs: Sequence[Job], done: int, failures: Sequence[str]) -> None:
    kinds = {job.key.kind for job in jobs}
    kind = f"'{kinds.pop()}' " if len(kinds) == 1 else ""
    if not jobs:
        print("No resources specified")
    elif not failures:
        print(f"Successfully {DONE[verb]} {done} {kind}resource(s)")
    elif len(jobs) == 1:
        complain(f"failed to {verb} {kind}resource", failures)
    elif not done:
        complain(f"failed to {verb} any {kind}resources", failures)
    else:
        first = "the first " if verb == "replace" else ""
        print(f"Partial success: {DONE[verb]} {first}{done} out of {len(jobs)} {kind}resources", flush=True)
        complain("hit error", failures)
    if failures:
        raise Failed


async def _one(client: ResourceClient, verb: Verb, job: Job) -> None:
    refuse_what_is_not_ours(job.key)
    if verb == "delete":
        from integration.cli.deleting import delete  # brings IPAM with it, which the other verbs do without

        await delete(client, job.key, job.revision)
        return
    assert job.document is not None
    resource = written(job.document.resource)
    actions: dict[Verb, Callable[[], Awaitable[object]]] = {
        "create": lambda: client.create(resource),
        "replace": lambda: replace(client, job.key, resource),
        "apply": lambda: apply(client, job.key, resource),
    }
    await actions[verb]()


def written(resource: Resource) -> Resource:
    """A copy with no more metadata than people write; the rest is the datastore's to say."""
    value = resource.to_json()
    metadata = value.get("metadata", {})
    value["metadata"] = {name: metadata[name] for name in KEPT_METADATA if name in metadata}
    return type(resource).from_json(value)


async def replace(client: ResourceClient, key: Key, resource: Resource) -> None:
    """Overwrite what is there. A resourceVersion that it says must be the present one; without, others are overwritten."""
    wanted = resource.metadata.resource_version
    for tries_left in reversed(range(TRIES)):
        try:
            current = await client.datastore.get(key)
            metadata, revision = current.value.get("metadata") or {}, current.revision
        except Unreadable as error:
            metadata, revision = {}, error.revision
        if wanted and wanted != revision:
            raise UpdateConflict(key)
        try:
            await client.update(type(resource).from_json(succeeding(resource, metadata, revision)))
            return
        except UpdateConflict:
            if wanted or not tries_left:
                raise


def succeeding(resource: Resource, metadata: Value, revision: str) -> Value:
    """The resource with the metadata of what it takes the place of, but its own labels and annotations."""
    value = resource.to_json()
    own = value.get("metadata", {})
    kept = {name: part for name, part in metadata.items() if name not in ("labels", "annotations")}
    # Older versions of Calico wrote neither time nor uid; then there is no better time to begin than now.
    identity = {
        "creationTimestamp": metadata.get("creationTimestamp") or now_text(),
        "uid": metadata.get("uid") or str(uuid.uuid4()),
    }
    value["metadata"] = {**kept, **own, **identity, "resourceVersion": revision}
    return value


async def apply(client: ResourceClient, key: Key, resource: Resource) -> None:
    for tries_left in reversed(range(TRIES)):
        try:
            await replace(client, key, resource)
            return
        except DoesNotExist:
            pass
        fresh = resource.model_copy(deep=True)
        fresh.metadata.resource_version = ""
        try:
            await client.create(fresh)
            return
        except AlreadyExists:  # somebody was quicker
            if not tries_left:
                raise
