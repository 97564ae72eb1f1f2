"""The Node, the cluster's information and its first pools, written before the speaker runs.

Source: node/pkg/lifecycle/startup. Variables as Calico's: NODENAME, IP, IP6, IP_AUTODETECTION_METHOD, AS, CALICO_IPV4POOL_… .
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bgp.families import IPAddress
from integration.datastore.client import ResourceClient
from integration.datastore.errors import AlreadyExists, DatastoreError, DoesNotExist, Unavailable, UpdateConflict
from integration.node.logs import EventLog
from integration.node.startup.autodetection import DetectionError, Interface, detect, interfaces, on_interface
from integration.resources.models.ipam import IPPool
from integration.resources.models.nodes import ClusterInformation, Node, NodeBGPSpec
from integration.version import VERSION

NAME_FILE = Path("/var/lib/calico/nodename")
FAMILIES = (4, 6)
Answer = TypeVar("Answer")


class StartUpError(Exception):
    """Why this node cannot start; names the variable or resource, and the fix."""


def node_name(environment: Mapping[str, str], name_file: Path = NAME_FILE) -> str:
    """NODENAME, what an earlier start wrote down, HOSTNAME in lower case, or the machine's name."""
    if given := environment.get("NODENAME", "").strip():
        return given
    try:
        if written := name_file.read_text().strip():
            return written
    except OSError:
        pass
    return (environment.get("HOSTNAME") or socket.gethostname()).strip().lower()


class StartUp:
    """`run` once before the speaker starts, `monitor` beside it."""

    def __init__(
        self,
        client: ResourceClient,
        name: str,
        environment: Mapping[str, str],
        log: EventLog,
        *,
        known: Callable[[], Sequence[Interface]] = interfaces,
    ) -> None:
        self._client = client
        self._name = name
        self._environment = environment
        self._log = log
        self._known = known

    async def run(self) -> None:
        """Waits as long as the datastore is away. Raises StartUpError."""
        await self._patiently(self._put_node)
        self._remember_name()
        await self._patiently(self._put_cluster_information)
        for version in FAMILIES:
            await self._patiently(lambda version=version: self._put_pool(version))  # type: ignore[misc]

    async def monitor(self) -> None:
        """Detected addresses again and again: the machine may get others. What fails is logged."""
        pause_s = _seconds(self._environment.get("AUTODETECT_POLL_INTERVAL", "60s"))
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._put_node()
            except (StartUpError, DatastoreError) as error:
                self._log.event("address_check_failed", level="warning", error=str(error))

    async def _patiently(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        pause_s = 0.1
        while True:
            try:
                return await work()
            except UpdateConflict:
                continue  # somebody else wrote the Node meanwhile: look again
            except Unavailable as error:
                if pause_s == 0.1:
                    self._log.event("datastore_waited_for", level="warning", error=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(5.0, pause_s * random.uniform(1.5, 2.5))
            except DatastoreError as error:
                raise StartUpError(str(error)) from None

    def _remember_name(self) -> None:
        """For the CNI plugin and the next start, where the directory is there (a mount of the host's)."""
        try:
            if NAME_FILE.parent.is_dir():
                NAME_FILE.write_text(self._name)
        except OSError as error:
            self._log.event("node_name_not_written", level="warning", file=str(NAME_FILE), error=error.strerror)

    # --- the Node ---------------------------------------------------------------------------------------------------

    async def _put_node(self) -> None:
        nodes = {node.metadata.name: node for node in await self._client.list(Node)}
        node = nodes.get(self._name)
        is_new = node is None
        if node is None:
            node = Node.from_json({"metadata": {"name": self._name}, "spec": {}})
        before = node.to_json()
        bgp = node.spec.bgp.model_copy() if node.spec.bgp is not None else NodeBGPSpec()
        known = self._known()
        for version in FAMILIES:
            self._put_address(bgp, version, known, node)
        if (
            not bgp.ipv4_address
            and not bgp.ipv6_address
            and self._environment.get("CALICO_NETWORKING_BACKEND") != "none"
        ):
            raise StartUpError(
                "this node has no address: none was found or given; set IP or IP6 to an address, or "
                "IP_AUTODETECTION_METHOD to a method that finds one"
            )
        if asn := self._environment.get("AS", ""):
            bgp.as_number = _asn(asn)
        self._check_conflict(bgp, nodes)
        node.spec.bgp = bgp
        if reference := self._environment.get("CALICO_K8S_NODE_REF", ""):
            others = [one for one in node.spec.orch_refs if one.orchestrator != "k8s"]
            fresh = Node.from_json({"spec": {"orchRefs": [{"nodeName": reference, "orchestrator": "k8s"}]}})
            node.spec.orch_refs = [*others, *fresh.spec.orch_refs]
        if is_new:
            await self._client.create(node)
        elif node.to_json() != before:
            await self._client.apply(node)
        else:
            return
        self._log.event(
            "node_written", node=self._name, ipv4=bgp.ipv4_address or None, ipv6=bgp.ipv6_address or None,
            asn=bgp.as_number,
        )  # fmt: skip

    def _put_address(self, bgp: NodeBGPSpec, version: int, known: Sequence[Interface], node: Node) -> None:
        variable = "IP" if version == 4 else "IP6"
        attribute = f"ipv{version}_address"
        wanted, held = self._environment.get(variable, "").strip(), getattr(bgp, attribute)
        if wanted == "none" or (not wanted and (held or version == 6)):
            return
        if wanted not in ("", "autodetect"):
            setattr(bgp, attribute, _given(variable, wanted, version, known))
            return
        method = self._environment.get(f"{variable}_AUTODETECTION_METHOD", "").strip()
        internal = [ipaddress.ip_address(one.address) for one in node.spec.addresses if one.type == "InternalIP"]
        try:
            found = detect(method, version, known, internal)
        except DetectionError as error:
            raise StartUpError(f"{variable}_AUTODETECTION_METHOD: {error}") from None
        if found is not None:
            setattr(bgp, attribute, str(found))
        elif not held and version == 4:
            raise StartUpError(
                f"{variable}_AUTODETECTION_METHOD={method or 'first-found'} finds no IPv{version} address on this machine; "
                f"set another method, or {variable} to an address or to none"
            )

    def _check_conflict(self, bgp: NodeBGPSpec, nodes: Mapping[str, Node]) -> None:
        if self._environment.get("DISABLE_NODE_IP_CHECK", "").lower() == "true":
            return
        mine = {_address(text) for text in (bgp.ipv4_address, bgp.ipv6_address)} - {None}
        for name, node in nodes.items():
            if name == self._name or node.spec.bgp is None:
                continue
            both = mine & {_address(text) for text in (node.spec.bgp.ipv4_address, node.spec.bgp.ipv6_address)}
            if both:
                raise StartUpError(
                    f"the address {both.pop()} of this node is that of node {name} too; give one of them another, delete "
                    f"the Node {name} if it is gone, or set DISABLE_NODE_IP_CHECK=true"
                )

    # --- what a new cluster lacks -----------------------------------------------------------------------------------

    async def _put_cluster_information(self) -> None:
        kind = self._environment.get("CLUSTER_TYPE", "")
        try:
            information = await self._client.get(ClusterInformation, "default")
        except DoesNotExist:
            information = ClusterInformation.from_json(
                {"metadata": {"name": "default"}, "spec": {"datastoreReady": True}}
            )
        before = information.to_json()
        spec = information.spec
        spec.cluster_guid = spec.cluster_guid or secrets.token_hex(16)
        spec.calico_version = spec.calico_version or f"catbird-{VERSION}"
        types = [part for part in spec.cluster_type.split(",") if part]
        spec.cluster_type = ",".join(dict.fromkeys([*types, *(part for part in kind.split(",") if part)]))
        if information.to_json() != before or not information.metadata.uid:
            await self._client.apply(information)

    async def _put_pool(self, version: int) -> None:
        """Only where the family has none."""
        variable = f"CALICO_IPV{version}POOL_"
        cidr = self._environment.get(f"{variable}CIDR", "").strip()
        no_pools = self._environment.get("NO_DEFAULT_POOLS", "").lower() == "true"
        if no_pools or cidr == "none" or (version == 6 and not cidr and not self._environment.get("IP6")):
            return
        if any(_version(pool.spec.cidr) == version for pool in await self._client.list(IPPool)):
            return
        values: dict[str, Any] = {
            "cidr": cidr or _default_cidr(version, self._known()),
            "ipipMode": self._environment.get(f"{variable}IPIP") or "Never",
            "vxlanMode": self._environment.get(f"{variable}VXLAN") or "Never",
            "natOutgoing": self._flag(f"{variable}NAT_OUTGOING", version == 4),
        }
        if size := self._environment.get(f"{variable}BLOCK_SIZE"):
            values["blockSize"] = _number(f"{variable}BLOCK_SIZE", size)
        if selector := self._environment.get(f"{variable}NODE_SELECTOR"):
            values["nodeSelector"] = selector
        if self._flag(f"{variable}DISABLE_BGP_EXPORT", False):
            values["disableBGPExport"] = True
        name = f"default-ipv{version}-ippool"
        try:
            await self._client.create(IPPool.from_json({"metadata": {"name": name}, "spec": values}))
        except AlreadyExists:
            return  # another node was faster
        self._log.event("pool_created", pool=name, cidr=values["cidr"])

    def _flag(self, variable: str, default: bool) -> bool:
        text = self._environment.get(variable, "").lower()
        if text not in ("", "true", "false", "1", "0"):
            raise StartUpError(f"{variable} is {text!r}; true or false")
        return text in ("true", "1") if text else default


def _given(variable: str, text: str, version: int, known: Sequence[Interface]) -> str:
    try:
        found = ipaddress.ip_interface(text) if "/" in text else on_interface(ipaddress.ip_address(text), known)
    except ValueError as error:
        raise StartUpError(f"{variable}: {error}; an address, ADDRESS/LENGTH, autodetect or none") from None
    if found.version != version:
        raise StartUpError(f"{variable} is {text!r}, which is not of IPv{version}")
    return str(found) if "/" in text or found.network.prefixlen != found.max_prefixlen else str(found.ip)


def _asn(text: str) -> int:
    """Plain or dotted."""
    high, dot, low = text.strip().partition(".")
    try:
        value = (int(high) << 16) + int(low) if dot else int(high)
    except ValueError:
        value = -1
    if not 0 < value < 1 << 32 or (dot and int(low) > 65535):
        raise StartUpError(f"AS is {text!r}; a number from 1 to 4294967295, or dotted as 1.10")
    return value


def _number(variable: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise StartUpError(f"{variable} is {text!r}; a number") from None


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_interface(text).ip if text else None
    except ValueError:
        return None


def _version(cidr: str) -> int:
    return 6 if ":" in cidr else 4


def _default_cidr(version: int, known: Sequence[Interface]) -> str:
    """192.168.0.0/16, or a private network in which no address of this machine lies; IPv6: a random ULA (RFC 4193)."""
    if version == 6:
        return str(ipaddress.IPv6Network((b"\xfd" + secrets.token_bytes(5) + bytes(10), 48)))
    candidates = ["192.168.0.0/16", *(f"172.{second}.0.0/16" for second in range(16, 32))]
    held = [address.ip for one in known for address in one.addresses if address.version == 4]
    free = (text for text in candidates if not any(ip in ipaddress.ip_network(text) for ip in held))
    return next(free, candidates[0])


def _seconds(text: str) -> float:
    """Go's simple durations: 60s, 5m, 1h."""
    factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        found = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        found = 0
    if found <= 0:
        raise StartUpError(f"AUTODETECT_POLL_INTERVAL is {text!r}; as 60s or 5m")
    return found
