"""From what the speaker wants to what the kernel is asked: FibRoute → Via → messages. Pure."""

from __future__ import annotations

from functools import lru_cache

from bgp.config import KernelConfig
from bgp.families import IPV4, IPV6, Address, Family, address_text, family_of
from bgp.ports import FibRoute
from felix.kernel.rtnetlink import AF_INET, AF_INET6, RTN_BLACKHOLE, RTN_UNICAST, Hop, RouteEncoder, Via

NUMBER_OF = {IPV4: AF_INET, IPV6: AF_INET6}
_BOUND = 1 << 16
_IP6_RT_PRIO_USER = 1024


class RouteTemplates:
    """One encoder for each distinct route, so that `is` tells whether a route changes."""

    def __init__(self, config: KernelConfig, before: RouteTemplates | None = None) -> None:
        """`before`: of the configuration until now, whose encoders stay the same objects."""
        self._config = config
        self.preferred = {NUMBER_OF[family_of(address.packed)]: address.packed for address in config.preferred_source}
        self._usable: frozenset[Address] = before._usable if before else frozenset()
        self._encoders: dict[Via, RouteEncoder] = before._encoders if before else {}
        self._known: dict[tuple[Family, FibRoute], RouteEncoder] = {}
        # The route is held, so that its id stays its own.
        self._known_by_id: dict[Family, dict[int, tuple[FibRoute, RouteEncoder]]] = {IPV4: {}, IPV6: {}}

    def addresses_changed(self, usable: frozenset[Address]) -> frozenset[Address]:
        """The node's addresses; returns those that came or went."""
        changed = self._usable ^ usable
        self._usable = usable
        if changed:
            self._forget()
        return changed

    def _forget(self) -> None:
        self._known.clear()
        for known in self._known_by_id.values():
            known.clear()

    def of(self, family: Family, route: FibRoute) -> RouteEncoder:
        """Mostly thousands of prefixes share one FibRoute object; hashing it costs more than the rest."""
        by_id = self._known_by_id[family]
        held = by_id.get(id(route))
        if held is not None:
            return held[1]
        template = self._known.get((family, route))
        if template is None:
            template = self._known[family, route] = self.encoder(self._via(family, route))
        if len(by_id) > _BOUND:
            self._forget()
        by_id[id(route)] = (route, template)
        return template

    def encoder(self, via: Via) -> RouteEncoder:
        encoder = self._encoders.get(via)
        if encoder is None:
            if len(self._encoders) > _BOUND:
                self._encoders.clear()
            encoder = self._encoders[via] = RouteEncoder(via)
        return encoder

    def metric(self, family: Family, metric: int) -> int:
        """The kernel turns an IPv6 metric of 0 into another."""
        return metric or self._config.metric or (_IP6_RT_PRIO_USER if family is IPV6 else 0)

    def _via(self, family: Family, route: FibRoute) -> Via:
        number = NUMBER_OF[family]
        source = route.preferred_source or self.preferred.get(number, b"")
        if source not in self._usable or len(source) != family.address_octets:
            source = b""
        hops = {Hop(hop.address, hop.ifindex, 1, hop.on_link) for hop in route.next_hops}
        return Via(
            family=number,
            table=self._config.table,
            protocol=self._config.route_protocol,
            type=RTN_UNICAST if hops else RTN_BLACKHOLE,
            metric=self.metric(family, route.metric),
            prefsrc=source,
            hops=tuple(sorted(hops)),
        )


def is_same_place(one: Via, other: Via) -> bool:
    """Whether two routes to one prefix cannot both stand, so that the one is written over the other."""
    return one.metric == other.metric and one.table == other.table


@lru_cache(maxsize=4096)
def _do_hops_fit(wanted: tuple[Hop, ...], there: tuple[Hop, ...]) -> bool:
    return len(wanted) == len(there) and all(
        (one.gateway, one.weight, one.onlink) == (other.gateway, other.weight, other.onlink)
        and one.ifindex in (0, other.ifindex)
        for one, other in zip(sorted(wanted), sorted(there), strict=True)
    )


def does_fit(wanted: Via, there: Via) -> bool:
    """Whether a route in the kernel is what we would write; where the kernel chose the interface, any will do."""
    return (
        wanted.type == there.type
        and wanted.prefsrc == there.prefsrc
        and is_same_place(wanted, there)
        and (wanted.hops is there.hops or _do_hops_fit(wanted.hops, there.hops))
    )


def hop_text(hop: Hop) -> str:
    gateway = address_text(hop.gateway) if hop.gateway else "on-link"
    return gateway + (f" dev {hop.ifindex}" if hop.ifindex else "") + (" onlink" if hop.onlink else "")


def via_view(via: Via) -> dict[str, object]:
    return {
        "type": "blackhole" if via.type == RTN_BLACKHOLE else "unicast",
        "next_hops": [hop_text(hop) for hop in via.hops],
        "metric": via.metric,
        "table": via.table,
        "protocol": via.protocol,
        "preferred_source": address_text(via.prefsrc) if via.prefsrc else None,
    }
