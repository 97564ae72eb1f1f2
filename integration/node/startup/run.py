"""`calico-node -startup` and `calico-node -monitor-addresses`, in one process with the speaker.

Source: node/pkg/lifecycle/startup/startup.go. What differs is in DESIGN.md.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

from bgp.ports import EventSink
from integration.datastore.client import ResourceClient
from integration.datastore.errors import DatastoreError, DoesNotExist
from integration.node.startup.addresses import (
    DETECT,
    FAMILIES,
    Family,
    address_in,
    check_variables,
    conflicts,
    place,
    read_asn,
    refuse,
)
from integration.node.startup.cluster import make_cluster
from integration.node.startup.interfaces import Interface, read_interfaces
from integration.node.startup.kubernetes import NODE_REF, KubernetesFacts, KubernetesReader, is_kubernetes
from integration.node.startup.node_name import name_file, node_name, remember_name
from integration.node.startup.pools import make_pools, read_wishes
from integration.node.startup.retrying import WAIT, Patience
from integration.node.startup.variables import StartUpError, Variables
from integration.resources.fields import duration_s
from integration.resources.models.nodes import Node

PATIENCE_S = 30.0  # with a datastore that does not answer, if WAIT_FOR_DATASTORE is not true
POLL_S = 60.0
POLL = "AUTODETECT_POLL_INTERVAL"


async def start_up(
    client: ResourceClient, environment: Mapping[str, str], log: EventSink, *, patience_s: float | None = PATIENCE_S
) -> str:
    """Make this node's Node and what a cluster begins with; returns the node's name.

    Everything is left as it is found where it is there already. Raises StartUpError, which names the variable and what
    to do: for the environment's own mistakes before the datastore is asked anything. `patience_s` None: the datastore is
    waited for as if WAIT_FOR_DATASTORE were true.
    """
    variables = Variables(environment)
    name = node_name(variables)
    if variables.has_networking:
        check_variables(variables)
    wishes = read_wishes(variables)
    variables.switch("DISABLE_NODE_IP_CHECK")
    poll_interval_s(variables)
    patience = Patience(None if variables.switch(WAIT) else patience_s, log)
    await patience.until_done(client.datastore.check)
    reader = KubernetesReader(client.datastore, variables, name, log)
    try:
        facts = await patience.until_done(reader.read)
    finally:
        await reader.close()
    interfaces = kernels_interfaces()
    await patience.until_done(lambda: settle(client, name, variables, interfaces, facts, log))
    subnets = facts.pod_subnets if facts else []
    await patience.until_done(lambda: make_pools(client, variables, wishes, interfaces, subnets, log))
    types = [variables.text("CLUSTER_TYPE"), *(facts.cluster_types if facts else [])]
    in_kubernetes = is_kubernetes(client.datastore)
    await patience.until_done(lambda: make_cluster(client, name, types, is_kubernetes=in_kubernetes, log=log))
    if not remember_name(variables, name):
        log.event("node_name_not_written", file=str(name_file(variables)), reason="its folder is not there")
    log.event("node_ready", node=name)
    return name


async def monitor_addresses(
    client: ResourceClient, environment: Mapping[str, str], name: str, log: EventSink, *, patience_s: float = PATIENCE_S
) -> None:
    """Detect the node's addresses again every AUTODETECT_POLL_INTERVAL (default 60 s), until cancelled.

    Returns at once if nothing is to be detected. Raises StartUpError if another node has the new address: Calico's node
    exits then. That the datastore is away or a detection fails is told, and tried again at the next round.
    """
    variables = Variables(environment)
    interval_s = poll_interval_s(variables)
    if interval_s <= 0 or not detects(variables):
        return
    reader = KubernetesReader(client.datastore, variables, name, log)
    patience = Patience(patience_s, log)
    try:
        while True:
            await asyncio.sleep(interval_s)
            try:
                facts = await patience.until_done(lambda: reader.read(with_cluster=False))
                interfaces = kernels_interfaces()
                await patience.until_done(lambda: settle(client, name, variables, interfaces, facts, log))  # noqa: B023
            except AddressConflict:
                raise
            except StartUpError as error:
                log.event("addresses_not_checked", level="warning", error=str(error), kept="what the Node says")
    finally:
        await reader.close()


class AddressConflict(StartUpError):
    """Another node has the address that this one was about to take."""


def detects(variables: Variables) -> bool:
    """Calico looks again also where IP is empty, but then finds an address stored and keeps it."""
    return variables.has_networking and any(variables.text(family.variable) == DETECT for family in FAMILIES)


def poll_interval_s(variables: Variables) -> float:
    text = variables.text(POLL)
    try:
        return duration_s(text) if text else POLL_S
    except ValueError as error:
        raise StartUpError(POLL, f"{text!r} {error}", "give a duration such as 60s or 5m, or 0 to look once") from None


def kernels_interfaces() -> list[Interface]:
    try:
        return read_interfaces()
    except OSError as error:
        raise StartUpError(
            "IP", f"the kernel does not tell this node's addresses: {error}", "allow netlink sockets to this process"
        ) from error


async def settle(
    client: ResourceClient,
    name: str,
    variables: Variables,
    interfaces: list[Interface],
    facts: KubernetesFacts | None,
    log: EventSink,
) -> None:
    """The Node as it must be now, written if it is another. Raises StartUpError and DatastoreError."""
    try:
        value = (await client.get(Node, name)).to_json()
    except DoesNotExist:
        value = {"metadata": {"name": name}}
    is_new = not value["metadata"].get("resourceVersion")
    before = copy.deepcopy(value)
    spec: dict[str, Any] = value.setdefault("spec", {})
    if variables.has_networking:
        await place(spec, variables, interfaces, facts.internal_ips if facts else None, log)
        asn = read_asn(variables)
        if asn is not None:
            spec["bgp"]["asNumber"] = asn
    identify(value, variables, client, facts)
    if value == before and not is_new:
        return
    if moved(before, value) and variables.has_networking and not variables.switch("DISABLE_NODE_IP_CHECK"):
        await check_conflicts(client, name, before, value, variables, log)
    if is_new and is_kubernetes(client.datastore):
        raise StartUpError(
            "NODENAME", f"Kubernetes has no node {name!r}", "set NODENAME to a name that `kubectl get nodes` shows"
        )
    write = client.create if is_new else client.replace
    await write(Node.from_json(value))
    log.event("node_created" if is_new else "node_updated", node=name, asn=spec.get("bgp", {}).get("asNumber"),
              **{family.field: spec.get("bgp", {}).get(family.field) for family in FAMILIES})  # fmt: skip


def identify(
    value: dict[str, Any], variables: Variables, client: ResourceClient, facts: KubernetesFacts | None
) -> None:
    """Who Kubernetes says this is. Where Kubernetes is the datastore, the driver says it."""
    reference = variables.text(NODE_REF)
    if is_kubernetes(client.datastore):
        return
    if reference:
        value["spec"]["orchRefs"] = [{"nodeName": reference, "orchestrator": "k8s"}]
    if facts and facts.labels:
        value["metadata"]["labels"] = {**value["metadata"].get("labels", {}), **facts.labels}


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Family]:
    """The families whose address is another than before."""
    old, new = before.get("spec") or {}, after.get("spec") or {}
    return [family for family in FAMILIES if address_in(old, family) != address_in(new, family)]


async def check_conflicts(
    client: ResourceClient,
    name: str,
    before: dict[str, Any],
    value: dict[str, Any],
    variables: Variables,
    log: EventSink,
) -> None:
    """Raises AddressConflict. A detected address is taken out of our Node first, so that the rightful node may have it."""
    for family in moved(before, value):
        old, new = (address_in(each.get("spec") or {}, family) for each in (before, value))
        if old is not None and new is not None:
            log.event("node_address_changed", level="warning", node=name, before=str(old), now=str(new),
                      hint="if it was not moved, two nodes have one name")  # fmt: skip
    listing = await client.datastore.list("Node")
    found = conflicts(name, value["spec"], ((each.key.name, each.value.get("spec") or {}) for each in listing.entries))
    if not found:
        return
    detected = [family for family in found if variables.text(family.variable) == DETECT]
    bgp = (before.get("spec") or {}).get("bgp") or {}
    if before["metadata"].get("resourceVersion") and any(bgp.pop(family.field, None) for family in detected):
        if not bgp:
            del before["spec"]["bgp"]
        try:
            await client.replace(Node.from_json(before))
        except DatastoreError as error:
            log.event("node_address_not_cleared", level="warning", node=name, error=str(error))
    refusal = refuse(name, found, value["spec"])
    raise AddressConflict(refusal.variable, refusal.reason, refusal.fix)
