"""Which of this machine's addresses is the node's: Calico's methods (node/pkg/lifecycle/startup/autodetection)."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bgp.families import IPAddress
from felix.kernel.links import RTM_NEWADDR, RTM_NEWLINK, decode_address, decode_link, dump_addresses, dump_links
from felix.kernel.sockets import RequestSocket

IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# By the beginning of the name: what container runtimes and Calico itself make.
EXCLUDED = (
    "docker", "cbr", "dummy", "podman", "virbr", "lxcbr", "veth", "lo", "br-", "cali", "tunl", "flannel", "kube-ipvs", "cni",
    "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali", "nodelocaldns",
)  # fmt: skip
METHODS = "first-found, interface=REGEX,…, skip-interface=REGEX,…, cidr=CIDR,…, can-reach=HOST, kubernetes-internal-ip"


class DetectionError(ValueError):
    """A method that cannot be meant."""


@dataclass(frozen=True, slots=True)
class Interface:
    """`addresses` have their network's prefix length, in the kernel's order."""

    index: int
    name: str
    addresses: tuple[IPInterface, ...]


def interfaces() -> list[Interface]:
    """This network namespace's, by index. Raises OSError."""
    kernel = RequestSocket()
    try:
        names: dict[int, str] = {}
        held: dict[int, list[IPInterface]] = {}
        for data, frames in kernel.dump(dump_links):
            for kind, _, _, _, start, end in frames:
                link = decode_link(data, start, end) if kind == RTM_NEWLINK else None
                if link is not None:
                    names[link.index] = link.name
        for data, frames in kernel.dump(dump_addresses):
            for kind, _, _, _, start, end in frames:
                found = decode_address(data, start, end) if kind == RTM_NEWADDR else None
                if found is not None:
                    address = ipaddress.ip_interface((found[0].address, found[0].bits))
                    held.setdefault(found[0].ifindex, []).append(address)
    finally:
        kernel.close()
    return [Interface(index, names[index], tuple(held.get(index, ()))) for index in sorted(names)]


def detect(
    method: str, version: int, known: Sequence[Interface], internal_addresses: Sequence[IPAddress] = ()
) -> IPInterface | None:
    """The address of the family `version` (4 or 6); None: nothing fits. Raises DetectionError.

    `internal_addresses` are Kubernetes' InternalIPs of this node.
    """
    name, equals, value = method.partition("=")
    match name:
        case "" | "first-found" if not equals:
            return _first(known, version, lambda one: not one.name.startswith(EXCLUDED))
        case "interface":
            wanted = _expressions(method, value)
            return _first(known, version, lambda one: any(each.search(one.name) for each in wanted))
        case "skip-interface":
            skipped = _expressions(method, value)
            return _first(
                known,
                version,
                lambda one: not one.name.startswith(EXCLUDED) and not any(each.search(one.name) for each in skipped),
            )
        case "cidr":
            networks = _networks(method, value)
            found = (address for one in reversed(known) for address in one.addresses if _is_global(address, version))
            return next((address for address in found if any(address.ip in each for each in networks)), None)
        case "can-reach":
            return _with_length(_source_towards(method, value, version), known)
        case "kubernetes-internal-ip":
            return _with_length(next((one for one in internal_addresses if one.version == version), None), known)
    raise DetectionError(f"{method!r} is no autodetection method; one of {METHODS}")


def _first(known: Sequence[Interface], version: int, wanted: Callable[[Interface], bool]) -> IPInterface | None:
    """The last interface comes first, as in Calico."""
    candidates = (address for one in reversed(known) if wanted(one) for address in one.addresses)
    return next((address for address in candidates if _is_global(address, version)), None)


def _is_global(address: IPInterface, version: int) -> bool:
    """Go's IsGlobalUnicast: private addresses too."""
    return address.version == version and not (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    )


def _expressions(method: str, text: str) -> list[re.Pattern[str]]:
    try:
        found = [re.compile(part.strip()) for part in text.split(",") if part.strip()]
    except re.error as error:
        raise DetectionError(f"{method!r}: no regular expression: {error}") from None
    if not found:
        raise DetectionError(f"{method!r} names no interface")
    return found


def _networks(method: str, text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    try:
        found = [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise DetectionError(f"{method!r}: {error}") from None
    if not found:
        raise DetectionError(f"{method!r} names no network")
    return found


def _source_towards(method: str, host: str, version: int) -> IPAddress | None:
    """The address that packets to the host would have; nothing is sent."""
    if not host:
        raise DetectionError(f"{method!r} names no host")
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((host, 80))
            return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    except OSError:
        return None


def _with_length(address: IPAddress | None, known: Iterable[Interface]) -> IPInterface | None:
    """As it stands on an interface, with its prefix length."""
    return next((held for one in known for held in one.addresses if address is not None and held.ip == address), None)


def on_interface(address: IPAddress, known: Iterable[Interface]) -> IPInterface:
    """With its network's prefix length if an interface has it, else alone."""
    return _with_length(address, known) or ipaddress.ip_interface(address)
