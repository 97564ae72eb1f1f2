"""The pools that a new cluster begins with: CALICO_IPV4POOL_… and CALICO_IPV6POOL_…, for families that have none."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import Any

from bgp.ports import EventSink
from integration.datastore.client import ResourceClient
from integration.datastore.errors import AlreadyExists
from integration.node.startup.interfaces import Interface
from integration.node.startup.variables import StartUpError, Variables
from integration.resources.fields import Network, parse_network
from integration.resources.models.ipam import IPPool
from integration.resources.selector import SelectorError, parse
from integration.resources.validation.pools import BLOCK_SIZES

# The first that holds none of the node's own addresses.
PREFERRED = ("192.168.0.0/16", *(f"172.{number}.0.0/16" for number in range(16, 32)))
MODES = {
    "": "Never", "off": "Never", "never": "Never", "always": "Always",
    "crosssubnet": "CrossSubnet", "cross-subnet": "CrossSubnet",
}  # fmt: skip
OFF = "NO_DEFAULT_POOLS"


@dataclass(frozen=True, slots=True)
class PoolWish:
    """What the variables say of one family. `cidr` None: nothing."""

    version: int
    is_wanted: bool
    cidr: Network | None
    block_size: int
    node_selector: str

    @property
    def prefix(self) -> str:
        return prefix_of(self.version)


def prefix_of(version: int) -> str:
    return f"CALICO_IPV{version}POOL_"


def read_wishes(variables: Variables) -> list[PoolWish]:
    """No wish at all with NO_DEFAULT_POOLS. Raises StartUpError."""
    if variables.switch(OFF):
        for version in (4, 6):
            name = f"{prefix_of(version)}CIDR"
            if variables.text(name) not in ("", "none"):
                raise StartUpError(OFF, f"no pools are wanted, but {name} names one", f"unset {OFF} or {name}")
        return []
    return [read_wish(variables, version) for version in (4, 6)]


def read_wish(variables: Variables, version: int) -> PoolWish:
    prefix = prefix_of(version)
    shortest, longest, usual = BLOCK_SIZES[version]
    text = variables.text(f"{prefix}CIDR")
    if text.lower() == "none":
        return PoolWish(version, False, None, usual, "")
    size = variables.text(f"{prefix}BLOCK_SIZE", str(usual))
    if not (size.isascii() and size.isdigit() and shortest <= int(size) <= longest):
        raise StartUpError(
            f"{prefix}BLOCK_SIZE", f"{size!r} is no block size of IPv{version}", f"give {shortest} to {longest}"
        )
    selector = variables.text(f"{prefix}NODE_SELECTOR")
    try:
        parse(selector)
    except SelectorError as error:
        raise StartUpError(
            f"{prefix}NODE_SELECTOR", f"{selector!r}: {error}", "write a selector such as rack == 'a', or all()"
        ) from None
    cidr = read_cidr(f"{prefix}CIDR", text, version, int(size)) if text else None
    return PoolWish(version, True, cidr, int(size), selector)


def read_cidr(name: str, text: str, version: int, block_size: int) -> Network:
    example = "192.168.0.0/16" if version == 4 else "fd00:1:2::/48"
    try:
        cidr = parse_network(text, version, bare=False)
    except ValueError as error:
        raise StartUpError(name, f"{text!r} {error}", f"give an IPv{version} CIDR such as {example}, or none") from None
    if cidr.prefixlen > block_size:
        raise StartUpError(
            name, f"{text} is smaller than a block (/{block_size})",
            f"give /{block_size} or larger, or set {prefix_of(version)}BLOCK_SIZE",
        )  # fmt: skip
    return cidr


async def make_pools(
    client: ResourceClient,
    variables: Variables,
    wishes: Sequence[PoolWish],
    interfaces: Sequence[Interface],
    pod_subnets: Sequence[str],
    log: EventSink,
) -> None:
    """`pod_subnets` are kubeadm's. Raises StartUpError and DatastoreError."""
    if not wishes:
        return
    present = {version_of(entry.value) for entry in (await client.datastore.list("IPPool")).entries}
    for wish in wishes:
        if not wish.is_wanted or wish.version in present or (wish.version == 6 and not has_ipv6(variables)):
            continue
        cidr = wish.cidr or subnet_of(wish.version, pod_subnets) or chosen(wish.version, interfaces)
        pool = IPPool.from_json({
            "metadata": {"name": f"default-ipv{wish.version}-ippool"},
            "spec": spec_of(variables, wish, cidr),
        })  # fmt: skip
        try:
            await client.create(pool)
        except AlreadyExists:
            continue  # another node was faster
        log.event("pool_created", pool=pool.metadata.name, cidr=str(cidr))


def version_of(pool: Mapping[str, Any]) -> int | None:
    """None: it cannot be read, and is reported by whoever uses pools."""
    try:
        return ip_network(pool["spec"]["cidr"], strict=False).version
    except (LookupError, TypeError, ValueError):
        return None


def spec_of(variables: Variables, wish: PoolWish, cidr: Network) -> dict[str, Any]:
    prefix = wish.prefix
    modes = {"vxlanMode": mode(variables, f"{prefix}VXLAN"), "ipipMode": "Never"}
    if wish.version == 4:
        modes["ipipMode"] = mode(variables, f"{prefix}IPIP")
        if "Never" not in modes.values():
            reason = f"a pool cannot have IPIP and VXLAN, and {prefix}VXLAN is {modes['vxlanMode']}"
            raise StartUpError(f"{prefix}IPIP", reason, "set one of the two to Never")
    return {
        "cidr": str(cidr),
        **modes,
        "natOutgoing": variables.switch(f"{prefix}NAT_OUTGOING", default=wish.version == 4),
        "blockSize": wish.block_size,
        **({"nodeSelector": wish.node_selector} if wish.node_selector else {}),
        "disableBGPExport": variables.switch(f"{prefix}DISABLE_BGP_EXPORT"),
    }


def mode(variables: Variables, name: str) -> str:
    word = variables.text(name)
    if word.lower() not in MODES:
        raise StartUpError(name, f"{word!r} is no mode", "set Never, Always or CrossSubnet")
    return MODES[word.lower()]


def subnet_of(version: int, subnets: Iterable[str]) -> Network | None:
    for text in subnets:
        try:
            return parse_network(text.strip(), version, bare=False)
        except ValueError:
            continue
    return None


def chosen(version: int, interfaces: Sequence[Interface]) -> Network:
    if version == 6:
        # A random unique local prefix (RFC 4193 §3.2).
        return IPv6Network((b"\xfd" + secrets.token_bytes(5) + bytes(10), 48))
    own = [one.ip for each in interfaces for one in each.addresses]
    candidates = [ip_network(text) for text in PREFERRED]
    return next((one for one in candidates if not any(address in one for address in own)), candidates[0])


def has_ipv6(variables: Variables) -> bool:
    return variables.switch("FELIX_IPV6SUPPORT", default=True) and Path("/proc/sys/net/ipv6").exists()
