"""IP, IP6, AS: what the Node says of this node's place in BGP, and that no other node says the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from bgp.ports import EventSink
from integration.node.startup.detection import Detected, detect, is_passed_over, read_method
from integration.node.startup.interfaces import Interface, with_length
from integration.node.startup.variables import StartUpError, Variables
from integration.resources.fields import parse_as_number, parse_network

Object = dict[str, Any]
DETECT, NONE = "autodetect", "none"


@dataclass(frozen=True, slots=True)
class Family:
    version: int
    variable: str
    method: str
    field: str


FAMILIES = (
    Family(4, "IP", "IP_AUTODETECTION_METHOD", "ipv4Address"),
    Family(6, "IP6", "IP6_AUTODETECTION_METHOD", "ipv6Address"),
)


def check_variables(variables: Variables) -> None:
    """Raises StartUpError for what is wrong whatever the datastore and the kernel say."""
    for family in FAMILIES:
        word = variables.text(family.variable)
        if word not in ("", DETECT, NONE):
            given_address(family, word)
        if word in ("", DETECT):
            read_method(variables, family.method)
    read_asn(variables)


def given_address(family: Family, text: str) -> str:
    try:
        parse_network(text, family.version)
    except ValueError as error:
        raise StartUpError(
            family.variable, f"{text!r} {error}",
            f"give an IPv{family.version} address with its prefix length, {DETECT} or {NONE}",
        ) from None  # fmt: skip
    return text


def read_asn(variables: Variables) -> int | None:
    """None: the Node keeps what it has. Raises StartUpError."""
    text = variables.text("AS")
    if not text:
        return None
    try:
        asn = parse_as_number(text)
    except ValueError as error:
        raise StartUpError("AS", f"{text!r} {error}", "give a number, or leave AS empty for the cluster's") from None
    if asn == 0:
        raise StartUpError("AS", "AS 0 belongs to nobody (RFC 7607)", "give 1 to 4294967295")
    return asn


async def place(
    spec: Object,
    variables: Variables,
    interfaces: Sequence[Interface],
    internal_ips: Sequence[str] | None,
    log: EventSink,
) -> None:
    """Put addresses and interfaces into the Node's spec (JSON). Raises StartUpError if there is no address at all."""
    bgp = spec.setdefault("bgp", {})
    for family in FAMILIES:
        stored = str(bgp.get(family.field) or "")
        word = variables.text(family.variable)
        if word == DETECT or (word == "" and not stored and family.version == 4):
            address = await detected(family, stored, variables, interfaces, internal_ips, log)
        elif word in ("", NONE):
            address = stored
        else:
            address = with_found_length(given_address(family, word), interfaces)
        if address:
            bgp[family.field] = address
            if with_length(ip_interface(address).ip, interfaces) is None:
                log.event("node_address_elsewhere", level="warning", address=address, variable=family.variable,
                          reason="is on no interface of this node")  # fmt: skip
    if not any(bgp.get(family.field) for family in FAMILIES):
        raise StartUpError(
            "IP", "the node has neither an IPv4 nor an IPv6 address",
            f"set IP or IP6 to an address or {DETECT}, or CALICO_NETWORKING_BACKEND=none if somebody else routes",
        )  # fmt: skip
    list_interfaces(spec, variables, interfaces)


async def detected(
    family: Family,
    stored: str,
    variables: Variables,
    interfaces: Sequence[Interface],
    internal_ips: Sequence[str] | None,
    log: EventSink,
) -> str:
    """A failed detection keeps the address that the Node has: interfaces come and go."""
    method = read_method(variables, family.method)
    found: Detected = await detect(method, family.version, interfaces, internal_ips)
    if found.address is not None:
        if str(found.address) != stored:
            log.event("node_address_detected", address=str(found.address), method=method.text,
                      interface=found.interface or None)  # fmt: skip
        return str(found.address)
    if not stored:
        others = f"or set {family.variable} to the address" + (f" or {NONE}" if family.version == 6 else "")
        raise StartUpError(
            family.method, f"{method.text!r} finds nothing: {found.why}", f"use another method, {others}"
        )
    log.event("node_address_kept", level="warning", address=stored, method=method.text, reason=found.why)
    return stored


def with_found_length(text: str, interfaces: Sequence[Interface]) -> str:
    """A bare address with the length of the network that it is in here, else as a host's."""
    given = ip_interface(text)
    if "/" in text:
        return str(given)
    return str(with_length(given.ip, interfaces) or given)


def list_interfaces(spec: Object, variables: Variables, interfaces: Sequence[Interface]) -> None:
    """spec.interfaces: those that Calico did not make, for the families whose variable says something."""
    versions = {family.version for family in FAMILIES if variables.text(family.variable) not in ("", NONE)}
    listed = [
        {"name": each.name, "addresses": [str(one.ip) for one in each.addresses if one.version in versions]}
        for each in sorted(interfaces, key=lambda one: one.name)
        if not is_passed_over(each.name)
    ]
    spec.pop("interfaces", None)
    if versions and listed:
        spec["interfaces"] = [{name: value for name, value in each.items() if value} for each in listed]


def conflicts(name: str, spec: Mapping[str, Any], others: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[Family, str]:
    """The families whose address another node (name, spec) has as well, and which node. `name` is our own."""
    found: dict[Family, str] = {}
    for other, their_spec in others:
        for family in FAMILIES:
            ours, theirs = address_in(spec, family), address_in(their_spec, family)
            if other != name and ours is not None and ours == theirs:
                found.setdefault(family, other)
    return found


def address_in(spec: Mapping[str, Any], family: Family) -> object:
    text = (spec.get("bgp") or {}).get(family.field)
    try:
        return ip_interface(text).ip if text else None
    except ValueError:
        return None  # somebody else's mistake, which is reported where it matters


def refuse(name: str, found: Mapping[Family, str], spec: Mapping[str, Any]) -> StartUpError:
    family, other = next(iter(found.items()))
    address = address_in(spec, family)
    return StartUpError(
        family.variable, f"{address} of node {name} is also the address of node {other}",
        f"give one of them another address, delete the Node {other} if it is gone, or set DISABLE_NODE_IP_CHECK=true",
    )  # fmt: skip
