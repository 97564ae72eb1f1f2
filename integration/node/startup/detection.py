"""IP_AUTODETECTION_METHOD and IP6_AUTODETECTION_METHOD: which of the node's addresses is the one for BGP.

Source: node/pkg/lifecycle/startup/autodetection. Whether a link is up is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from integration.node.startup.interfaces import Interface, IPInterface, first_match, way_to, with_length
from integration.node.startup.variables import StartUpError, Variables
from integration.resources.fields import Network

# What Calico, Kubernetes and container runtimes make by themselves.
OF_MACHINERY = re.compile(
    r"docker|cbr|dummy|podman|virbr|lxcbr|veth|lo|br-|cali|tunl|flannel|kube-ipvs|cni|vxlan\.calico|vxlan-v6\.calico"
    r"|wireguard\.cali|wg-v6\.cali|nodelocaldns"
)
FIRST_FOUND, INTERNAL_IP = "first-found", "kubernetes-internal-ip"
PARAMETRIC = ("can-reach", "interface", "skip-interface", "cidr")
FORMS = f"{FIRST_FOUND}, {INTERNAL_IP}, can-reach=HOST, interface=REGEX[,…], skip-interface=REGEX[,…] or cidr=CIDR[,…]"


@dataclass(frozen=True, slots=True)
class Method:
    """`text` as the variable says it; only the field that belongs to `kind` is filled."""

    text: str
    kind: str
    names: re.Pattern[str] | None = None
    networks: tuple[Network, ...] = ()
    destination: str = ""


@dataclass(frozen=True, slots=True)
class Detected:
    """`address` None: `why` says what was found instead."""

    address: IPInterface | None
    why: str = ""
    interface: str = ""


def read_method(variables: Variables, name: str) -> Method:
    """Raises StartUpError."""
    text = variables.text(name, FIRST_FOUND)
    if text in (FIRST_FOUND, INTERNAL_IP):
        return Method(text, text)
    kind, equals, value = text.partition("=")
    if kind not in PARAMETRIC or not equals or not value.strip():
        raise StartUpError(name, f"{text!r} is no method", f"use {FORMS}")
    parts = [part for part in re.split(r"\s*,\s*", value.strip()) if part]
    if kind == "can-reach":
        return Method(text, kind, destination=value.strip())
    if kind == "cidr":
        try:
            return Method(text, kind, networks=tuple(ip_network(part, strict=False) for part in parts))
        except ValueError as error:
            raise StartUpError(name, f"{error}", "give CIDRs with commas between, as in cidr=10.0.0.0/8") from None
    try:
        return Method(text, kind, names=re.compile("|".join(f"(?:{part})" for part in parts)))
    except re.error as error:
        raise StartUpError(
            name, f"{value!r} is no regular expression: {error}", f"write it as in {kind}=eth0,en.*"
        ) from None


async def detect(
    method: Method, version: int, interfaces: Sequence[Interface], internal_ips: Sequence[str] | None
) -> Detected:
    """`internal_ips` are those of Kubernetes' Node, None where there is no Kubernetes."""
    if method.kind == "can-reach":
        return await reached(method.destination, version, interfaces)
    if method.kind == INTERNAL_IP:
        return internal(version, interfaces, internal_ips)
    candidates, whose = interfaces, "interface"
    if method.kind == "interface" and method.names is not None:
        candidates = [each for each in interfaces if method.names.search(each.name)]
        whose = "interface with a matching name"
    elif method.kind == "cidr":
        candidates = [replace(each, addresses=within(each, method.networks)) for each in interfaces]
        whose = "interface in these networks"
    else:
        candidates = [each for each in interfaces if not is_passed_over(each.name, method.names)]
        whose = "interface that is not passed over"
    found = first_match(candidates, version)
    if found is None:
        names = ", ".join(each.name for each in interfaces) or "none"
        return Detected(None, f"no {whose} has a global IPv{version} address (interfaces here: {names})")
    return Detected(found[1], interface=found[0].name)


def is_passed_over(name: str, more: re.Pattern[str] | None = None) -> bool:
    return bool(OF_MACHINERY.match(name) or (more and more.search(name)))


def within(interface: Interface, networks: Sequence[Network]) -> tuple[IPInterface, ...]:
    return tuple(
        one for one in interface.addresses if any(one.version == net.version and one.ip in net for net in networks)
    )


async def reached(destination: str, version: int, interfaces: Sequence[Interface]) -> Detected:
    try:
        own = await way_to(destination, version)
    except OSError as error:
        return Detected(None, f"no way to {destination} over IPv{version}: {error.strerror or error}")
    found = with_length(own, interfaces)
    return Detected(found, "" if found else f"{own}, which leads to {destination}, is on no interface")


def internal(version: int, interfaces: Sequence[Interface], internal_ips: Sequence[str] | None) -> Detected:
    if internal_ips is None:
        return Detected(None, "this node runs under no Kubernetes that could be asked")
    own = next((one for one in map(ip_address, internal_ips) if one.version == version), None)
    if own is None:
        return Detected(None, f"Kubernetes' Node has no InternalIP of IPv{version}")
    found = with_length(own, interfaces)
    return Detected(found, "" if found else f"the InternalIP {own} is on no interface")
