"""What these commands leave to others. What a datastore's other resources forbid is `integration.datastore.cluster_rules`."""

from __future__ import annotations

from integration.datastore.errors import Unsupported
from integration.resources.keys import Key

KUBERNETES_POLICY = "knp.default."


def refuse_what_is_not_ours(key: Key) -> None:
    """Raises Unsupported."""
    if key.kind == "ClusterInformation":
        raise Unsupported(f"{key}: resource is readonly", "catbird node writes it")
    if key.kind.endswith("NetworkPolicy") and key.name.startswith(KUBERNETES_POLICY):
        raise Unsupported(f"{key}: kubernetes network policies must be managed through the kubernetes API")
