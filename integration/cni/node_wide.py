"""What is asked of a node and not of one container: STATUS and GC; and what a Worker stands on.

Source: the CNI specification 1.1.0, and cni-plugin/pkg/plugin of Calico.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.cni import plumbing
from integration.cni.addresses import Allocator, DelegatedIpam
from integration.cni.errors import (
    GENERIC,
    INVALID_CONFIG,
    LIMITED_CONNECTIVITY,
    NOT_AVAILABLE,
    TRY_AGAIN_LATER,
    CNIError,
)
from integration.cni.identity import HOST_PREFIX, node_of
from integration.cni.request import Request
from integration.datastore.api import Datastore
from integration.datastore.errors import DatastoreError, DoesNotExist
from integration.resources.keys import Key

MTU_FILE = Path("/var/lib/calico/mtu")


@dataclass(slots=True)
class Surroundings:
    """What a Worker stands on. `kubernetes` is where pods and namespaces are read; None: the datastore itself."""

    datastore: Datastore
    allocator: Allocator
    node: str = ""
    kubernetes: Datastore | None = None
    interface_prefix: str = HOST_PREFIX
    mtu_file: Path = MTU_FILE
    told: Callable[..., None] = lambda _name, **_fields: None


async def demand_readiness(datastore: Datastore) -> None:
    """Calico's components pause while ClusterInformation says so (an upgrade of the datastore)."""
    try:
        entry = await datastore.get(Key("ClusterInformation", "default"))
    except DoesNotExist:
        raise CNIError(
            TRY_AGAIN_LATER, "there is no ClusterInformation default: the cluster has not been set up",
            "start catbird node once",
        ) from None  # fmt: skip
    if entry.value.get("spec", {}).get("datastoreReady", True) is False:
        raise CNIError(
            TRY_AGAIN_LATER, "Calico is currently not ready to process requests",
            "ClusterInformation default says datastoreReady: false",
        )  # fmt: skip


async def pod_cidrs(datastore: Datastore, request: Request, node: str) -> Sequence[str]:
    """What `usePodCidr` in the configuration of another IPAM plugin stands for."""
    if "usePodCidr" not in str(request.config.raw.get("ipam")):
        return ()
    entry = await datastore.get(Key("Node", node))
    return entry.value.get("status", {}).get("podCIDRs") or []


async def status(around: Surroundings, request: Request, environment: Mapping[str, str]) -> None:
    """Could an ADD be done now, by the plugin that is delegated to as well? Raises CNIError 50, or 51 if that says so."""
    try:
        node = node_of(request.config, around.node)
        await demand_readiness(around.datastore)
        if request.config.delegates_ipam:
            await DelegatedIpam(environment, await pod_cidrs(around.datastore, request, node)).status(request)
    except (CNIError, DatastoreError, OSError) as error:
        code = error.code if isinstance(error, CNIError) and error.code == LIMITED_CONNECTIVITY else NOT_AVAILABLE
        raise CNIError(code, str(error)) from error


async def collect_garbage(around: Surroundings, request: Request, environment: Mapping[str, str]) -> None:
    """Remove whatever of this network and node belongs to no attachment that the runtime still knows."""
    if request.config.valid_attachments is None:
        # Nothing said is not "nothing is valid": that would take the network from every pod.
        raise CNIError(INVALID_CONFIG, "cni.dev/valid-attachments is missing: GC removes what is not in it")
    node = node_of(request.config, around.node)
    await demand_readiness(around.datastore)
    valid = {container for container, _ in request.config.valid_attachments}
    listing = await around.datastore.list("WorkloadEndpoint")
    prefix = f"{request.config.name}."
    problems: list[str] = []
    containers = {handle.removeprefix(prefix) for handle in await around.allocator.handles_of(node, prefix)}
    # Both names may have dots: `net.a.c1` may be of the network `net.a`, whose attachments nobody has told us.
    containers = {container for container in containers if "." not in container}
    for entry in listing.entries:
        spec = entry.value.get("spec", {})
        container = spec.get("containerID", "")
        if spec.get("node") != node or not container or container in valid or container not in containers:
            continue
        try:
            await asyncio.to_thread(plumbing.remove, "", spec.get("interfaceName", ""), None)
            await around.datastore.delete(entry.key, revision=entry.revision)
        except (CNIError, DatastoreError) as error:
            problems.append(f"{entry.key}: {error}")
    for container in sorted(containers - valid):
        try:
            await around.allocator.release(prefix + container)
            around.told("cni_garbage_released", container=container, network=request.config.name)
        except CNIError as error:
            problems.append(f"{prefix}{container}: {error}")
    if request.config.delegates_ipam:
        try:
            await DelegatedIpam(environment).collect_garbage(request)
        except CNIError as error:
            problems.append(str(error))
    if problems:
        raise CNIError(GENERIC, "; ".join(problems))
