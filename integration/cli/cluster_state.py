"""All that BGP depends on, from the datastore or from files."""

from __future__ import annotations

from collections.abc import Iterable

from integration.bgpconfig import WATCHED, Problem, Snapshot
from integration.cli.outcome import complain
from integration.cli.writing import jobs_of
from integration.datastore.api import Datastore
from integration.datastore.errors import Unauthorized, Unsupported
from integration.resources.documents import Document
from integration.resources.keys import Key


async def snapshot_of_datastore(datastore: Datastore, secret_namespace: str) -> tuple[Snapshot, list[Problem]]:
    """The resources, and what is wrong with those that cannot be read at all. Kinds that are kept from us are told."""
    snapshot, problems = Snapshot(), []
    for kind in WATCHED:
        try:
            listing = await datastore.list(kind, namespace=secret_namespace if kind == "Secret" else None)
        except Unsupported:
            continue  # this datastore has none
        except Unauthorized as error:
            complain(f"{kind}: {error.reason}; done without")
            continue
        for entry in listing.entries:
            snapshot.apply_json(entry.key, entry.value)
        problems += [Problem(error.key, "", error.reason) for error in listing.unreadable]
    return snapshot, problems


def snapshot_of_documents(documents: Iterable[Document]) -> tuple[Snapshot, list[Problem]]:
    """The same of files. A problem is also what `catbird apply` would refuse a resource for."""
    snapshot, problems = Snapshot(), []
    for document, job in zip(listed := list(documents), jobs_of(listed), strict=True):
        snapshot.apply(job.key, document.resource)
        problems += refusals(document, job.key)
    return snapshot, problems


def refusals(document: Document, key: Key) -> list[Problem]:
    """What validation has against it, with the place in the file."""
    return [
        Problem(key, found.problem.field, f"{_without_field(found.problem)} ({found.place}); apply refuses it")
        for found in document.problems()
    ]


def _without_field(problem: object) -> str:
    return str(problem).partition(": ")[2] or str(problem)
