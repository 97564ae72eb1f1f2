"""One packet that somebody asks about, and what of this node it meets besides policy."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from felix.explain.state import Address

Conntrack = Literal["new", "established", "related", "invalid", "untracked"]

TCP, UDP, SCTP, UDPLITE, ICMP, ICMPV6, IPIP = 6, 17, 132, 136, 1, 58, 4
NUMBERS = {
    "icmp": ICMP, "igmp": 2, "ipip": IPIP, "tcp": TCP, "udp": UDP, "gre": 47, "esp": 50, "ah": 51, "icmpv6": ICMPV6,
    "sctp": SCTP, "udplite": UDPLITE,
}  # fmt: skip
NAMES = {number: name for name, number in NUMBERS.items()}
WITH_PORTS = frozenset({TCP, UDP, SCTP, UDPLITE})


def protocol_name(number: int) -> str:
    return NAMES.get(number, str(number))


def protocol_number(text: str) -> int:
    """`tcp`, `TCP` or `6`. Raises ValueError with what is allowed."""
    if text.lower() in NUMBERS:
        return NUMBERS[text.lower()]
    if text.isascii() and text.isdigit() and int(text) <= 255:
        return int(text)
    raise ValueError(f"unknown protocol {text!r}: a number up to 255, or one of {', '.join(NUMBERS)}")


@dataclass(frozen=True, slots=True)
class Flow:
    """A packet's addresses, ports and, where they do not follow from the addresses, its interfaces.

    A port None is one that no rule names (an ephemeral one). `arrives_by` and `leaves_by` are interfaces of this node;
    empty where they follow: from a local workload's address, a host's own address, or the way out to the other side.
    `before_dnat` is the destination and port as the sender wrote them where this node translates (a service).
    """

    source: Address
    destination: Address
    protocol: int = TCP
    source_port: int | None = None
    destination_port: int | None = None
    icmp: tuple[int, int] | None = None
    arrives_by: str = ""
    leaves_by: str = ""
    before_dnat: tuple[Address, int | None] | None = None
    conntrack: Conntrack = "new"

    @property
    def version(self) -> int:
        return self.source.version

    def as_sent(self) -> Flow:
        """The packet before translation: what untracked and pre-DNAT policies see."""
        if self.before_dnat is None:
            return self
        destination, port = self.before_dnat
        return Flow(
            self.source, destination, self.protocol, self.source_port, port, self.icmp, conntrack=self.conntrack
        )


def is_in(address: Address, nets: Iterable[str]) -> bool:
    """In any of them; of another IP version is in none."""
    networks = (ipaddress.ip_network(net, strict=False) for net in nets)
    return any(net.version == address.version and address in net for net in networks)


class Failsafe(NamedTuple):
    """A port of the host that no policy closes. `net` empty: whoever it is."""

    protocol: int
    port: int
    net: str = ""

    def covers(self, address: Address) -> bool:
        return not self.net or is_in(address, (self.net,))


def _ports(text: str) -> tuple[Failsafe, ...]:
    pairs = (item.partition(":") for item in text.split())
    return tuple(Failsafe(NUMBERS[protocol], int(port)) for protocol, _, port in pairs)


_BOTH_WAYS = "tcp:179 tcp:2379 tcp:2380 tcp:5473 tcp:6443 tcp:6666 tcp:6667"


@dataclass(frozen=True, slots=True)
class ExplainSettings:
    """What of Felix' configuration decides about packets; defaults are Calico's."""

    workload_prefixes: tuple[str, ...] = ("cali",)
    endpoint_to_host: str = "DROP"  # REJECT, RETURN, ACCEPT
    failsafe_in: tuple[Failsafe, ...] = _ports(f"tcp:22 udp:68 {_BOTH_WAYS}")
    failsafe_out: tuple[Failsafe, ...] = _ports(f"udp:53 udp:67 {_BOTH_WAYS}")
    honours_source_prefixes: bool = False  # WorkloadSourceSpoofing: Any
    vxlan_port: int = 4789
    allows_vxlan_from_workloads: bool = False
    allows_ipip_from_workloads: bool = False
    drops_invalid: bool = True
    stops_service_loops: bool = True  # ServiceLoopPrevention: Drop or Reject

    def is_workload(self, interface: str) -> bool:
        return interface.startswith(self.workload_prefixes)


def _unknown(_address: Address) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The node's own interfaces with their addresses (without length), and by which the kernel would send to an address."""

    interfaces: Mapping[str, frozenset[str]] = field(default_factory=dict)
    way_out: Callable[[Address], str] = _unknown

    def is_ours(self, address: Address) -> bool:
        return address.is_loopback or any(str(address) in addresses for addresses in self.interfaces.values())

    def interface_towards(self, address: Address) -> str:
        """Empty if nobody knows. With one interface besides lo it is that one."""
        if found := self.way_out(address):
            return found
        others = [name for name in self.interfaces if name != "lo"]
        return others[0] if len(others) == 1 else ""
