"""What the plugins do: ADD, DEL, CHECK (STATUS and GC: node_wide.py), over a datastore, IPAM and the kernel.

Source: cni-plugin/pkg/plugin and pkg/k8s of Calico, and the CNI specification 1.1.0. One Worker serves a whole node;
calls for one container wait for each other, others do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from integration.cni import node_wide, plumbing, results
from integration.cni.addresses import (
    AddressSource,
    CalicoIpam,
    DelegatedIpam,
    FixedAddresses,
    Granted,
    as_result,
)
from integration.cni.endpoints import endpoint_of, network_profile, single
from integration.cni.errors import (
    GENERIC,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    TRY_AGAIN_LATER,
    CNIError,
)
from integration.cni.gates import wait_for_policy, wait_for_readiness
from integration.cni.identity import Identity, identity_of, node_of
from integration.cni.namespaces import is_network_namespace
from integration.cni.network_config import NetworkConfig
from integration.cni.node_wide import MTU_FILE, Surroundings, demand_readiness, pod_cidrs
from integration.cni.pods import Wishes, wishes_of
from integration.cni.request import Request
from integration.cni.results import Address, Interface, Result, Route, read_result
from integration.datastore.api import Entry
from integration.datastore.errors import AlreadyExists, DatastoreError, DoesNotExist, UpdateConflict
from integration.resources.keys import Key

DEFAULT_MTU = 1500
DELETE_TRIES = 6
Answer = dict[str, Any] | None


@dataclass(slots=True)
class Call:
    """One request with what is needed all the way."""

    request: Request
    environment: Mapping[str, str]
    namespace: int | None  # the container's, open
    identity: Identity
    pod: Mapping[str, Any] | None = None
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def config(self) -> NetworkConfig:
        return self.request.config


class Worker:
    """`perform` any number of requests at once, from one event loop."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._busy: dict[str, asyncio.Lock] = {}

    async def perform(self, request: Request, environment: Mapping[str, str], namespace: int | None) -> Answer:
        """What is to be printed, None for nothing. `namespace` stays the caller's. Raises CNIError."""
        try:
            if request.command == "STATUS":
                await node_wide.status(self._around, request, environment)
                return None
            if request.command == "GC":
                await node_wide.collect_garbage(self._around, request, environment)
                return None
            node = node_of(request.config, self._around.node)
            identity = identity_of(request, node, self._around.interface_prefix)
            namespace = _usable(namespace, request)
            async with self._alone(f"{identity.container_id}/{identity.endpoint}"):
                call = Call(request, environment, namespace, identity)
                await demand_readiness(self._around.datastore)
                if request.is_for_ipam:
                    return await self._only_ipam(call)
                match request.command:
                    case "ADD":
                        return await self._add(call)
                    case "DEL":
                        return await self._delete(call)
                return await self._check(call)
        except DatastoreError as error:
            raise CNIError(TRY_AGAIN_LATER, f"the datastore: {error}") from error
        except OSError as error:
            raise CNIError(IO_FAILURE, str(error)) from error

    @asynccontextmanager
    async def _alone(self, container: str) -> AsyncIterator[None]:
        lock = self._busy.setdefault(container, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock._waiters:
                self._busy.pop(container, None)

    # --- ADD ----------------------------------------------------------------------------------------------------------

    async def _add(self, call: Call) -> Answer:
        if call.namespace is None:
            raise CNIError(3, f"the network namespace {call.request.netns} does not exist")
        await wait_for_readiness(call.config.readiness_gates)
        await self._learn_pod(call)
        existing = await self._endpoint_of(call.identity)
        if existing is not None and not call.identity.is_kubernetes:
            return await self._join_network(call, existing)
        if existing is not None:
            await self._release_former(call, existing)
        source = await self._source(call)
        granted = await source.add(call.identity, call.wishes, call.request)
        wiring = self._wiring(call, granted)
        try:
            link = await asyncio.to_thread(plumbing.lay, wiring, call.namespace)
            await self._write_endpoint(call, wiring, link.mac, existing)
            if not call.config.is_kubernetes_policy:
                await self._ensure_profile(call)
        except BaseException:
            # Cancelled too: a runtime that gave up will not call DEL for what it was never told of.
            await asyncio.shield(self._undo(call, source, wiring, existing))
            raise
        await wait_for_policy(call.config, call.identity, self._around.told)
        result = Result(
            tuple(Address(one, 1) for one in wiring.addresses),
            (Interface(wiring.host_interface), Interface(link.name, link.mac, call.request.netns, link.mtu)),
            tuple(Route(one) for one in wiring.routes),
        )
        return result.to_json(call.request.version)

    async def _learn_pod(self, call: Call) -> None:
        pod = namespace = None
        if call.config.is_kubernetes_policy and call.identity.is_kubernetes:
            store = self._around.kubernetes or self._around.datastore
            pod = (await store.get(Key("Pod", call.identity.pod, call.identity.namespace))).value
            try:
                namespace = (await store.get(Key("Namespace", call.identity.namespace))).value
            except DoesNotExist:
                pass
        call.pod = pod
        call.wishes = wishes_of(call.config, pod, namespace, call.request.arguments.get("IP", ""))

    async def _endpoint_of(self, identity: Identity) -> Entry | None:
        """One interface a workload: an endpoint of the same workload, whatever its interface, is the one."""
        listing = await self._around.datastore.list(
            "WorkloadEndpoint", namespace=identity.namespace, name_prefix=identity.prefix
        )
        for entry in listing.entries:
            spec = entry.value.get("spec", {})
            same = spec.get("pod") == identity.pod if identity.is_kubernetes else True
            if same and entry.key.name.startswith(identity.prefix) and spec.get("ipNetworks"):
                return entry
        return None

    async def _release_former(self, call: Call, existing: Entry) -> None:
        """The pod's sandbox was made anew without a DEL of the old one."""
        former = existing.value.get("spec", {}).get("containerID")
        if former and former != call.identity.container_id and call.config.uses_calico_ipam:
            await self._around.allocator.release(f"{call.identity.network}.{former}")

    async def _join_network(self, call: Call, existing: Entry) -> Answer:
        """A second network of one container: the endpoint gets its profile, nothing else."""
        value = dict(existing.value)
        profiles = [*value["spec"].get("profiles", [])]
        if call.config.name not in profiles:
            value["spec"] = {**value["spec"], "profiles": [*profiles, call.config.name]}
            await self._around.datastore.update(existing.key, value, revision=existing.revision)
        await self._ensure_profile(call)
        spec = value["spec"]
        result = Result(
            tuple(Address(one, 1) for one in spec.get("ipNetworks", [])),
            (
                Interface(spec.get("interfaceName", "")),
                Interface(spec["endpoint"], spec.get("mac", ""), call.request.netns),
            ),
        )
        return result.to_json(call.request.version)

    async def _source(self, call: Call) -> AddressSource:
        if call.wishes.addresses_without_ipam:
            return FixedAddresses()
        if call.config.uses_calico_ipam:
            return CalicoIpam(self._around.allocator)
        if not call.config.ipam_type:
            raise CNIError(INVALID_CONFIG, "ipam.type is missing", "calico-ipam, or another IPAM plugin's name")
        if call.wishes.addresses:
            raise CNIError(GENERIC, f"the annotation ipAddrs does not go with ipam.type {call.config.ipam_type}")
        return DelegatedIpam(
            call.environment, await pod_cidrs(self._around.datastore, call.request, call.identity.node)
        )

    def _wiring(self, call: Call, granted: Granted) -> plumbing.Wiring:
        return plumbing.Wiring(
            call.identity.host_interface, call.identity.endpoint, self._mtu(call.config),
            [single(one) for one in granted.addresses], granted.routes, call.wishes.mac.lower(), call.config.queues,
            call.config.allows_ip_forwarding,
        )  # fmt: skip

    def _mtu(self, config: NetworkConfig) -> int:
        if config.mtu:
            return config.mtu
        try:
            return int(self._around.mtu_file.read_text())
        except (OSError, ValueError):
            if config.requires_mtu_file:
                raise CNIError(
                    TRY_AGAIN_LATER, f"{self._around.mtu_file} is not there yet: Felix writes it",
                    "check that catbird node runs on this node, or set mtu",
                ) from None  # fmt: skip
            return DEFAULT_MTU

    async def _write_endpoint(self, call: Call, wiring: plumbing.Wiring, mac: str, existing: Entry | None) -> None:
        value = endpoint_of(call.identity, call.config, call.wishes, wiring.addresses, mac, call.pod)
        store, key = self._around.datastore, call.identity.key
        for _ in range(DELETE_TRIES):
            try:
                if existing is None:
                    await store.create(key, value)
                else:
                    # What Kubernetes' driver shows is the pod itself, which has a revision of its own all the time.
                    await store.update(existing.key, value, revision=existing.revision)
            except (AlreadyExists, UpdateConflict, DoesNotExist):
                existing = await self._endpoint_of(call.identity)
            else:
                return
        raise CNIError(TRY_AGAIN_LATER, f"{key} is being written by somebody else all the time")

    async def _ensure_profile(self, call: Call) -> None:
        try:
            await self._around.datastore.create(
                Key("Profile", call.config.name), network_profile(call.config, call.identity)
            )
        except AlreadyExists:
            pass

    async def _undo(self, call: Call, source: AddressSource, wiring: plumbing.Wiring, existing: Entry | None) -> None:
        """After a failed ADD nothing may be left. A failure of this is told, the first one is answered."""
        try:
            await asyncio.to_thread(plumbing.remove, wiring.interface, wiring.host_interface, call.namespace)
            await source.delete(call.identity, call.request)
            if existing is None:
                await self._delete_endpoint(call.identity)
        except (CNIError, DatastoreError, OSError) as error:
            self._around.told("cni_undo_failed", level="error", container=call.identity.container_id, why=str(error))

    # --- DEL ----------------------------------------------------------------------------------------------------------

    async def _delete(self, call: Call) -> Answer:
        """Whatever is missing was deleted before. Addresses are given back once nothing leads to them any more."""
        endpoint = await self._endpoint_of(call.identity)
        is_ours = await self._delete_endpoint(call.identity)
        host_interface = call.identity.host_interface if is_ours else ""
        if host_interface:
            addresses = endpoint.value["spec"].get("ipNetworks", []) if endpoint is not None else []
            plumbing.unroute(host_interface, addresses)
        # The kernel takes some 40 ms over a link; a failure of one must not keep the other from being done.
        results = await asyncio.gather(
            asyncio.to_thread(plumbing.remove, call.identity.endpoint, host_interface, call.namespace),
            self._release(call),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return None

    async def _delete_endpoint(self, identity: Identity) -> bool:
        """False: the endpoint belongs to a newer container of the same pod, and stays."""
        for _ in range(DELETE_TRIES):
            entry = await self._endpoint_of(identity)
            if entry is None:
                return True
            holder = entry.value.get("spec", {}).get("containerID")
            if holder and holder != identity.container_id:
                return False
            try:
                await self._around.datastore.delete(entry.key, revision=entry.revision)
            except DoesNotExist:
                return True
            except UpdateConflict:
                continue
            return True
        raise CNIError(TRY_AGAIN_LATER, f"{identity.key} is being written by somebody else all the time")

    async def _release(self, call: Call) -> None:
        if call.config.uses_calico_ipam:
            await CalicoIpam(self._around.allocator).delete(call.identity, call.request)
        elif call.config.ipam_type:
            await DelegatedIpam(call.environment).delete(call.identity, call.request)

    # --- the rest -----------------------------------------------------------------------------------------------------

    async def _check(self, call: Call) -> Answer:
        """Is everything as ADD's result (`prevResult`) says? Raises CNIError with all that is not."""
        if call.config.previous is None:
            raise CNIError(INVALID_CONFIG, "prevResult is missing: CHECK compares with it")
        if call.namespace is None:
            raise CNIError(3, f"the network namespace {call.request.netns} does not exist")
        previous = read_result(call.config.previous)
        addresses = [single(one.cidr) for one in previous.addresses]
        inner = next((one for one in previous.interfaces if one.sandbox), None)
        wiring = plumbing.Wiring(
            call.identity.host_interface, call.identity.endpoint, 0, addresses,
            [one.destination for one in previous.routes], inner.mac if inner else "",
        )  # fmt: skip
        problems = await asyncio.to_thread(plumbing.problems_of, wiring, call.namespace)
        problems += await self._endpoint_problems(call.identity, addresses)
        if call.config.uses_calico_ipam:
            problems += await CalicoIpam(self._around.allocator).check(call.identity, call.request, addresses)
        elif call.config.ipam_type:
            delegated = DelegatedIpam(
                call.environment, await pod_cidrs(self._around.datastore, call.request, call.identity.node)
            )
            problems += await delegated.check(call.identity, call.request, addresses)
        if problems:
            raise CNIError(GENERIC, "; ".join(problems), "DEL and ADD the container again")
        return None

    async def _endpoint_problems(self, identity: Identity, addresses: Sequence[str]) -> list[str]:
        entry = await self._endpoint_of(identity)
        if entry is None:
            return [f"the datastore has no {identity.key}"]
        spec = entry.value.get("spec", {})
        problems = []
        if spec.get("containerID") not in (None, identity.container_id):
            problems.append(f"{entry.key} belongs to the container {spec['containerID']}")
        if {single(one) for one in spec.get("ipNetworks", [])} != set(addresses):
            problems.append(f"{entry.key} has the addresses {', '.join(spec.get('ipNetworks', []))}")
        return problems

    async def _only_ipam(self, call: Call) -> Answer:
        """`calico-ipam` executed by itself."""
        source = CalicoIpam(self._around.allocator)
        match call.request.command:
            case "ADD":
                await self._learn_pod(call)
                granted = await source.add(call.identity, call.wishes, call.request)
                return as_result(granted).to_json(call.request.version)
            case "DEL":
                await source.delete(call.identity, call.request)
            case _:
                previous = read_result(call.config.previous or {})
                addresses = [one.cidr for one in previous.addresses]
                if problems := await source.check(call.identity, call.request, addresses):
                    raise CNIError(GENERIC, "; ".join(problems))
        return None


def _usable(namespace: int | None, request: Request) -> int | None:
    """Raises CNIError 4; for DEL what is no namespace is one that is gone."""
    if namespace is None or is_network_namespace(namespace):
        return namespace
    if request.command == "DEL":
        return None
    raise CNIError(INVALID_ENVIRONMENT, f"CNI_NETNS {request.netns} is no network namespace")


def open_container(request: Request) -> int | None:
    """The container's namespace by its path; None if it is gone or none was named. Raises CNIError 5."""
    return plumbing.open_namespace(request.netns) if request.netns else None


def version_answer(value: Mapping[str, Any]) -> dict[str, Any]:
    """VERSION asks in any version and is answered in it, or in the latest."""
    asked = value.get("cniVersion")
    version = asked if asked in results.VERSIONS else results.LATEST
    return {"cniVersion": version, "supportedVersions": list(results.VERSIONS)}


__all__ = ["MTU_FILE", "Surroundings", "Worker", "open_container", "version_answer"]
