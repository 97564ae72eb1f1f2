"""Bare keys beside the resources: what Felix reports in etcd about itself and its endpoints (OpenStack's driver reads it).

Not every datastore has them: `datastore.status_keys()` where it is there, None elsewhere. Kubernetes has no place for them.
"""

from __future__ import annotations

from typing import Any, Protocol


class StatusKeys(Protocol):
    """Texts by path. Every method raises DatastoreError and its kinds alone; whatever lies there is overwritten."""

    async def put(self, path: str, text: str, *, ttl_s: float | None = None) -> None:
        """With `ttl_s` it vanishes unless it is put again in time."""
        ...

    async def delete(self, path: str) -> None:
        """Nothing happens where nothing lies."""
        ...

    async def list(self, prefix: str) -> dict[str, str]:
        """All that begin so, by full path; what is no text is left out."""
        ...


def status_keys_of(datastore: Any) -> StatusKeys | None:
    offer = getattr(datastore, "status_keys", None)
    found: StatusKeys | None = offer() if callable(offer) else None
    return found


def escaped(component: str) -> str:
    """A component of a path of Calico's v1 model."""
    return component.replace("%", "%25").replace("/", "%2f")
