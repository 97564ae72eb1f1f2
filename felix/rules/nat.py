"""Address translation: of what leaves the pools, of floating addresses, of metadata, and of what enters a tunnel. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from felix.desired import PortRange
from felix.filter_rules import (
    DNAT,
    SNAT,
    Action,
    AddressType,
    Chain,
    Criterion,
    InSet,
    Jump,
    Masquerade,
    Net,
    OutInterface,
    Protocol,
    Return,
    Rule,
)
from felix.rules import names
from felix.rules.policies import Dialect
from felix.rules.static import ALL_HOSTS, ALL_POOLS, LOCAL_SOURCE, MASQUERADED_POOLS, METADATA, TCP, UDP, port


def nat_chains(
    dialect: Dialect, *, has_masqueraded_pools: bool, nats: Sequence[tuple[str, str]], tunnels: Sequence[str]
) -> list[Chain]:
    """`nats`: (internal, external) addresses of this IP version; `tunnels`: devices of this node."""
    return [
        Chain("cali-PREROUTING", (Rule((), Jump(names.FLOATING_DNAT)), *_metadata(dialect))),
        Chain("cali-OUTPUT", (Rule((), Jump(names.FLOATING_DNAT)),)),
        Chain(
            "cali-POSTROUTING",
            (
                Rule((), Jump(names.FLOATING_SNAT)),
                Rule((), Jump(names.NAT_OUTGOING)),
                *(rule for device in tunnels for rule in _tunnel_masquerade(device, dialect)),
            ),
        ),
        Chain(names.NAT_OUTGOING, tuple(_nat_outgoing(dialect)) if has_masqueraded_pools else ()),
        *floating_chains(dialect, nats),
    ]


def _metadata(dialect: Dialect) -> Iterator[Rule]:
    settings = dialect.settings
    if settings.is_openstack and settings.metadata_address and dialect.version == 4:
        yield Rule(
            (Protocol(TCP), Net("destination", METADATA), port("destination", 80)),
            DNAT(settings.metadata_address, settings.metadata_port),
        )


def _tunnel_masquerade(device: str, dialect: Dialect) -> Iterator[Rule]:
    """What leaves by a tunnel with an address that is not the tunnel's would be answered elsewhere."""
    if "vxlan" in device:
        wide = vxlan_source_ports(dialect.settings.vxlan_port)
        criteria = (OutInterface(device), Protocol(UDP), *_not_the_tunnels())
        yield Rule(criteria, Masquerade(wide))
    yield Rule((OutInterface(device), *_not_the_tunnels()), Masquerade())


def _not_the_tunnels() -> tuple[Criterion, ...]:
    return (AddressType("source", of_out_interface=True, negated=True), LOCAL_SOURCE)


def vxlan_source_ports(vxlan_port: int) -> PortRange:
    """The wider side of the VXLAN port: a source port that equals it would be taken for a tunnel's packet."""
    below, above = PortRange(1024, vxlan_port - 1), PortRange(vxlan_port + 1, 65535)
    return below if below.last - below.first > above.last - above.first else above


def _nat_outgoing(dialect: Dialect) -> Iterator[Rule]:
    settings = dialect.settings
    criteria: list[Criterion] = [InSet("source", MASQUERADED_POOLS), InSet("destination", ALL_POOLS, negated=True)]
    if settings.nat_excludes_hosts:
        criteria.append(InSet("destination", ALL_HOSTS, negated=True))
    if settings.nat_interface:
        criteria.append(OutInterface(settings.nat_interface))
    address = settings.nat_address if dialect.version == 4 else ""

    def translate(ports: PortRange | None) -> Action:
        return SNAT(address, ports) if address else Masquerade(ports)

    if settings.nat_ports is not None:
        for protocol in (TCP, UDP):
            yield Rule((Protocol(protocol), *criteria), translate(settings.nat_ports))
            yield Rule((Protocol(protocol), *criteria), Return())
    yield Rule(tuple(criteria), translate(None))


def floating_chains(dialect: Dialect, nats: Sequence[tuple[str, str]]) -> list[Chain]:
    """The lowest of several external addresses is what a workload that speaks to itself comes from."""
    ordered = sorted(set(nats), key=lambda pair: (pair[1], pair[0]))
    bits = "/32" if dialect.version == 4 else "/128"
    dnat = [Rule((Net("destination", external + bits),), DNAT(internal)) for internal, external in ordered]
    lowest: dict[str, str] = {}
    for internal, external in ordered:
        lowest.setdefault(internal, external)
    snat = [
        Rule((Net("source", internal + bits), Net("destination", internal + bits)), SNAT(external))
        for internal, external in sorted(lowest.items())
    ]
    return [Chain(names.FLOATING_DNAT, tuple(dnat)), Chain(names.FLOATING_SNAT, tuple(snat))]
