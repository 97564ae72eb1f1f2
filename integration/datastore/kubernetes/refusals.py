"""The API server's answers in the words of `errors.py`."""

from __future__ import annotations

from integration.datastore.errors import (
    AlreadyExists,
    DatastoreError,
    DoesNotExist,
    Invalid,
    RevisionGone,
    Unauthorized,
    Unavailable,
    Unsupported,
    UpdateConflict,
)
from integration.datastore.kubernetes.connection import ApiError
from integration.datastore.kubernetes.places import Collection
from integration.resources.base import Problem
from integration.resources.keys import Key


def refusal(error: ApiError, key: Key, collection: Collection) -> DatastoreError:
    """What the caller is told. `key` without a name is the whole kind."""
    match error.code:
        case 401:
            return Unauthorized(f"the API server does not know us: {error.message}", "see token or certificate")
        case 403:
            return Unauthorized(f"the API server does not let us: {error.message}", "see the roles of this account")
        case 404:
            return not_found(error, key, collection)
        case 409 if error.reason == "AlreadyExists":
            return AlreadyExists(key)
        case 409:
            return UpdateConflict(key)
        case 422 if any(cause.get("field") == "metadata.uid" for cause in error.causes):
            return UpdateConflict(key)  # of that name there is another object by now
        case 410:
            return RevisionGone("")
        case 400 | 413 | 422:
            return Invalid(key, problems(error))
        case 405 | 406 | 415 | 501:
            return Unsupported(f"the API server cannot do that with {collection}: {error.message}")
    return Unavailable(f"the API server fails: {error.message} (HTTP {error.code})")


def not_found(error: ApiError, key: Key, collection: Collection) -> DatastoreError:
    name = error.details.get("name")
    if not name:
        hint = "install the CRD manifests" if "projectcalico.org" in collection.group_version else ""
        return Unsupported(f"the API server has no {collection}", hint)
    if error.details.get("kind") == "namespaces" and collection.plural != "namespaces":
        return DoesNotExist(Key("Namespace", str(name)))
    return DoesNotExist(key)


def problems(error: ApiError) -> list[Problem]:
    found = [Problem(str(cause.get("field") or ""), None, str(cause.get("message") or "")) for cause in error.causes]
    return found or [Problem("", None, error.message)]
