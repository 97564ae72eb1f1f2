"""IP pools and IPAM's blocks: what addresses there are, how packets for them are carried, who has them."""

from __future__ import annotations

from typing import Literal, NamedTuple

from felix.calc.addresses import BITS, Net, read_net
from felix.calc.reading import Invalid, Json, entries, flag, one_of, part, required, text, texts
from felix.desired import Pool, PoolType
from integration.resources.keys import Key

MODES = {"": "", "Never": "", "Always": "always", "CrossSubnet": "cross-subnet"}


class PoolRecord(NamedTuple):
    net: Net
    pool: Pool
    type: PoolType
    is_cross_subnet: bool


def read_pool(_: Key, value: Json) -> PoolRecord:
    spec = part(value, "spec", "")
    net = read_net(required(spec, "cidr", "spec."), "spec.cidr")
    ipip, vxlan = one_of(spec, "ipipMode", "spec.", MODES), one_of(spec, "vxlanMode", "spec.", MODES)
    if ipip and vxlan:
        raise Invalid("spec.vxlanMode", spec["vxlanMode"], "cannot be set together with ipipMode", "Never")
    if ipip and net.version == 6:
        raise Invalid("spec.ipipMode", spec["ipipMode"], "is not possible for IPv6", "Never")
    pool = Pool(
        str(net),
        flag(spec, "natOutgoing", "spec."),
        ipip,  # type: ignore[arg-type]
        vxlan,  # type: ignore[arg-type]
        texts(spec, "allowedUses", "spec.") == ["LoadBalancer"],
    )
    kind: Literal["vxlan", "ipip", "none"] = "vxlan" if vxlan else "ipip" if ipip else "none"
    return PoolRecord(net, pool, kind, "cross-subnet" in (ipip, vxlan))


class Block(NamedTuple):
    """`borrowed`: single addresses in it that other nodes use than the one that has the block."""

    net: Net
    node: str  # empty: nobody's
    borrowed: tuple[tuple[Net, str], ...]


def read_block(_: Key, value: Json) -> Block | None:
    """None: it is marked as deleted."""
    if flag(value, "deleted", ""):
        return None
    net = read_net(required(value, "cidr", ""), "cidr")
    affinity = text(value, "affinity", "")
    node = affinity.removeprefix("host:") if affinity.startswith("host:") else ""
    strangers: dict[int, str] = {}
    for index, attribute in enumerate(entries(value, "attributes", "")):
        if not isinstance(attribute, dict):
            raise Invalid(f"attributes[{index}]", attribute, "is not an object")
        user = text(part(attribute, "secondary", f"attributes[{index}]."), "node", f"attributes[{index}].secondary.")
        if user and user != node:
            strangers[index] = user
    borrowed = []
    if strangers:
        size = 1 << (BITS[net.version] - net.length)
        for ordinal, index in enumerate(entries(value, "allocations", "")):
            if isinstance(index, int) and index in strangers and ordinal < size:
                borrowed.append((Net(net.version, net.value + ordinal, BITS[net.version]), strangers[index]))
    return Block(net, node, tuple(borrowed))
