"""What every Calico cluster has and the first node makes: ClusterInformation, tiers, default configurations."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from bgp.ports import EventSink
from integration.datastore.client import ResourceClient, now_text
from integration.datastore.errors import AlreadyExists, DoesNotExist, Unauthorized
from integration.resources.base import API_VERSION, Resource
from integration.resources.keys import Key
from integration.resources.models.bgp import BGPConfiguration
from integration.resources.models.felix_configuration import FelixConfiguration
from integration.resources.models.nodes import ClusterInformation
from integration.resources.models.policy import Tier
from integration.version import VERSION

DEFAULT = "default"
# Name → order and what happens to what no policy of the tier speaks of.
TIERS = {"kube-admin": (1_000, "Pass"), DEFAULT: (1_000_000, "Deny"), "kube-baseline": (10_000_000, "Pass")}
FELIX_DEFAULTS = {"reportingInterval": "0s", "logSeverityScreen": "Info"}
# Workloads may speak to their host, if no policy says otherwise: they often need what runs there.
FELIX_NODE_DEFAULTS = {"defaultEndpointToHostAction": "Return"}


async def make_cluster(
    client: ResourceClient, node: str, types: Iterable[str], *, is_kubernetes: bool, log: EventSink
) -> None:
    """Fills in what is missing and changes nothing that is there. `types` are words for clusterType.

    `is_kubernetes`: the datastore is. Raises DatastoreError; UpdateConflict: do it again.
    """
    await inform(client, [*types, "kdd"] if is_kubernetes else list(types), log)
    for name, (order, action) in TIERS.items():
        tier = Tier.from_json({"metadata": {"name": name}, "spec": {"order": order, "defaultAction": action}})
        try:
            await make(client, tier)
        except Unauthorized as error:  # Calico's own manifests do not allow it to every node
            log.event("tier_not_made", level="warning", tier=name, error=str(error))
    await fill_in(client, DEFAULT, FELIX_DEFAULTS)
    if not is_kubernetes:
        await fill_in(client, f"node.{node}", FELIX_NODE_DEFAULTS)
    await make(client, BGPConfiguration.from_json({"metadata": {"name": DEFAULT}, "spec": {}}))


async def inform(client: ResourceClient, types: list[str], log: EventSink) -> None:
    """ClusterInformation. A calicoVersion that is there stays: it is that of Calico's own nodes, calicoctl compares it."""
    try:
        value = (await client.get(ClusterInformation, DEFAULT)).to_json()
    except DoesNotExist:
        value = {"metadata": {"name": DEFAULT}}
    spec: dict[str, Any] = value.setdefault("spec", {})
    before = dict(spec)
    spec["clusterGUID"] = spec.get("clusterGUID") or uuid.uuid4().hex
    spec.setdefault("datastoreReady", True)
    spec["calicoVersion"] = spec.get("calicoVersion") or f"v{VERSION}"
    words = ",".join([str(spec.get("clusterType", "")), *types]).split(",")
    known = list(dict.fromkeys(word.strip() for word in words if word.strip()))
    if known:
        spec["clusterType"] = ",".join(known)
    if spec == before:
        return
    if before:
        await client.update(ClusterInformation.from_json(value))
    else:
        await client.create(ClusterInformation.from_json(value))
    log.event("cluster_information_written", guid=spec["clusterGUID"], type=spec.get("clusterType"))


async def make(client: ResourceClient, resource: Resource) -> None:
    """Unless it is there, whatever it says."""
    try:
        await client.get(type(resource), resource.metadata.name)
    except DoesNotExist:
        try:
            await client.create(resource)
        except AlreadyExists:
            pass  # another node was faster, and wrote the same


async def fill_in(client: ResourceClient, name: str, defaults: dict[str, str]) -> None:
    """FelixConfiguration. Written past the client's defaults: a default in `node.NAME` would overrule the cluster's value."""
    key = Key(FelixConfiguration.__name__, name)
    try:
        entry = await client.datastore.get(key)
    except DoesNotExist:
        metadata = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": now_text()}
        value = {"kind": key.kind, "apiVersion": API_VERSION, "metadata": metadata, "spec": dict(defaults)}
        await client.datastore.create(key, value)
        return
    spec = entry.value.get("spec") or {}
    missing = {field: text for field, text in defaults.items() if not spec.get(field)}
    if missing:
        await client.datastore.update(key, {**entry.value, "spec": {**spec, **missing}}, revision=entry.revision)
