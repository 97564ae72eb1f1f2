"""Denied packets as events: what a rule's prefix and the first octets of a packet say, told not too often. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from felix.desired import TierPolicies
from felix.explain.decide import Direction
from felix.explain.flow import ICMP, ICMPV6, WITH_PORTS, protocol_name
from felix.explain.state import DesiredState

PREFIX = "D|"
NO_POLICY = "none"
PROFILES = "profile"  # in the place of a tier: a profile's rule, or the end of all profiles
_EXTENSIONS = frozenset({0, 43, 60, 135, 139, 140})  # headers that give their own length in 8 octets (RFC 8200 §4)
_FRAGMENT, _AUTHENTICATION = 44, 51
_MOST_EXTENSIONS = 8


@dataclass(frozen=True, slots=True)
class DeniedBy:
    """`rule` None: the end of a tier, or of all profiles. Long names are shortened by who writes the rules."""

    tier: str
    policy: str
    rule: int | None
    direction: Direction


@dataclass(frozen=True, slots=True)
class DeniedFlow:
    """A packet that policy denied. Ports None where the protocol has none or the packet was cut or a later fragment."""

    source: str
    destination: str
    protocol: int
    by: DeniedBy
    source_port: int | None = None
    destination_port: int | None = None
    icmp: tuple[int, int] | None = None
    in_interface: str = ""
    out_interface: str = ""
    endpoint: str = ""

    def view(self) -> dict[str, Any]:
        """For logs and JSON; what is not known is left out."""
        found: dict[str, Any] = {
            "source": self.source,
            "destination": self.destination,
            "protocol": protocol_name(self.protocol),
            "source_port": self.source_port,
            "destination_port": self.destination_port,
            "icmp_type": self.icmp[0] if self.icmp else None,
            "icmp_code": self.icmp[1] if self.icmp else None,
            "direction": "ingress" if self.by.direction == "in" else "egress",
            "endpoint": self.endpoint or self.in_interface or self.out_interface,
            **self._by_view(),
        }
        return {name: value for name, value in found.items() if value not in (None, "")}

    def _by_view(self) -> dict[str, Any]:
        by = self.by
        name = "" if by.policy == NO_POLICY else by.policy
        if by.tier == PROFILES:
            return {"profile": name, "rule": "no profile allowed it" if by.rule is None else by.rule}
        return {"tier": by.tier, "policy": name, "rule": "end of tier" if by.rule is None else by.rule}


def denied_by(prefix: str) -> DeniedBy | None:
    """`D|TIER/POLICY|RULE|in`, `D|TIER|end-of-tier|out`, `D|profile|no-match|in`; None if it is something else's prefix."""
    parts = prefix.strip().split("|")
    if len(parts) != 4 or parts[0] != PREFIX[0]:
        return None
    _, where, rule, direction = parts
    if direction not in ("in", "out"):
        return None
    tier, _, policy = where.partition("/")
    return DeniedBy(tier, policy or NO_POLICY, int(rule) if rule.isascii() and rule.isdigit() else None, "in" if direction == "in" else "out")  # fmt: skip


def denied_flow(prefix: str, packet: bytes, in_interface: str = "", out_interface: str = "") -> DeniedFlow | None:
    """None if the prefix is not one of denials, or the octets are no IP packet."""
    by = denied_by(prefix)
    if by is None or not packet:
        return None
    version = packet[0] >> 4
    header = ip_header(packet)
    if header is None:
        return None
    source, destination, protocol, rest = header
    flow = DeniedFlow(source, destination, protocol, by, in_interface=in_interface, out_interface=out_interface)
    if protocol in WITH_PORTS and len(rest) >= 4:
        return replace(flow, source_port=_u16(rest, 0), destination_port=_u16(rest, 2))
    if protocol == (ICMP if version == 4 else ICMPV6) and len(rest) >= 2:
        return replace(flow, icmp=(rest[0], rest[1]))
    return flow


_Header = tuple[str, str, int, bytes]  # source, destination, protocol, what follows (empty in later fragments)


def ip_header(packet: bytes) -> _Header | None:
    """None if the octets are no IP packet, or less than its header."""
    read = {4: _ipv4, 6: _ipv6}.get(packet[0] >> 4) if packet else None
    return read(packet) if read else None


def _ipv4(packet: bytes) -> _Header | None:
    octets = (packet[0] & 0xF) * 4
    if octets < 20 or len(packet) < octets:
        return None
    is_later_fragment = bool(_u16(packet, 6) & 0x1FFF)
    source, destination = ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20])
    return str(source), str(destination), packet[9], b"" if is_later_fragment else packet[octets:]


def _ipv6(packet: bytes) -> _Header | None:
    if len(packet) < 40:
        return None
    source, destination = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
    protocol, rest = packet[6], packet[40:]
    for _ in range(_MOST_EXTENSIONS):
        if protocol in _EXTENSIONS and len(rest) >= 8:
            protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
        elif protocol == _AUTHENTICATION and len(rest) >= 8:
            protocol, rest = rest[0], rest[(rest[1] + 2) * 4 :]
        elif protocol == _FRAGMENT and len(rest) >= 8:
            protocol, rest = rest[0], b"" if _u16(rest, 2) & 0xFFF8 else rest[8:]
        else:
            break
    return str(source), str(destination), protocol, rest


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def with_endpoint(flow: DeniedFlow, state: DesiredState, addresses: Callable[[str], frozenset[str]]) -> DeniedFlow:
    """The same with whose policy it was: the workload on the one interface, or the host endpoint on the other.

    `addresses` of a host interface, for host endpoints by address.
    """
    is_in = flow.by.direction == "in"
    workload = state.workload_on(flow.out_interface if is_in else flow.in_interface)
    interface = flow.in_interface if is_in else flow.out_interface
    host = state.host_endpoint_on(interface, addresses(interface)) if interface else None
    if workload is not None and (
        host is None or not _names(host.forward_tiers, flow.by) or _names(workload.tiers, flow.by)
    ):
        return replace(flow, endpoint=workload.id.workload)
    return flow if host is None else replace(flow, endpoint=f"host endpoint {host.name}")


def _names(tiers: tuple[TierPolicies, ...], by: DeniedBy) -> bool:
    for tier in tiers:
        policies = tier.ingress if by.direction == "in" else tier.egress
        if tier.name == by.tier and (by.policy == NO_POLICY or any(by.policy.endswith(id.name) for id in policies)):
            return True
    return False


@dataclass(slots=True)
class Repeated:
    """One flow and how often it was seen. `flow` is its first packet."""

    flow: DeniedFlow
    count: int
    first_at: float
    last_at: float


class DeniedFlows:
    """What is told of denied packets: the first of a kind at once, the rest as a number, and never too much of either.

    Packets are of one kind if they differ in the source port only. Times are monotonic seconds.
    """

    def __init__(
        self,
        *,
        summary_s: float = 30.0,
        most_kinds: int = 1000,
        events_per_s: float = 20.0,
        counted: Callable[[str, str, Direction], None] = lambda _tier, _policy, _direction: None,
    ) -> None:
        """`counted(tier, policy, direction)` is told of each packet, as it is counted in `by_policy`."""
        self._counted = counted
        self._summary_s = summary_s
        self._most_kinds = most_kinds
        self._events_per_s = events_per_s
        self._allowance = events_per_s
        self._refilled_at = 0.0
        self._kinds: dict[DeniedFlow, Repeated] = {}
        self.total = 0
        self.by_policy: dict[tuple[str, str, Direction], int] = {}  # tier, policy, direction → packets
        self.untold = 0  # packets of which no event was or will be told

    def note(self, flow: DeniedFlow, now: float) -> DeniedFlow | None:
        """The flow if it is to be told at once; None if it is counted only."""
        self.total += 1
        self._count(flow.by)
        kind = replace(flow, source_port=None)
        known = self._kinds.get(kind)
        if known is not None:
            known.count += 1
            known.last_at = now
            return None
        if len(self._kinds) >= self._most_kinds or not self._may_tell(now):
            self.untold += 1
            return None
        self._kinds[kind] = Repeated(flow, 1, now, now)
        return flow

    def _count(self, by: DeniedBy) -> None:
        key = by.tier, by.policy, by.direction
        if key not in self.by_policy and len(self.by_policy) >= self._most_kinds:
            key = "", "others", by.direction
        self.by_policy[key] = self.by_policy.get(key, 0) + 1
        self._counted(*key)

    def _may_tell(self, now: float) -> bool:
        """A bucket that holds one second's worth."""
        refill = (now - self._refilled_at) * self._events_per_s
        self._allowance = min(self._events_per_s, self._allowance + refill)
        self._refilled_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def due(self, now: float) -> Iterator[Repeated]:
        """Call it now and then: kinds that came more than once and were first told `summary_s` ago, and forget them.

        A kind that goes on is told again as a first one.
        """
        for kind in [kind for kind, one in self._kinds.items() if now - one.first_at >= self._summary_s]:
            repeated = self._kinds.pop(kind)
            if repeated.count > 1:
                yield repeated
