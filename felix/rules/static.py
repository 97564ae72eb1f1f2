"""The chains that do not depend on endpoints: what hangs in the kernel's hooks, and in which order it asks. Pure.

The order of each chain is Calico's (felix/rules/static.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from felix.desired import PortRange, ServiceCIDRsUpdate
from felix.filter_rules import (
    ICMP,
    Accept,
    Action,
    AddressType,
    Chain,
    Conntrack,
    Criterion,
    DNATted,
    Drop,
    GoTo,
    Hook,
    HookRules,
    InInterface,
    InSet,
    Jump,
    Net,
    NoTrack,
    OutInterface,
    Ports,
    Protocol,
    Reject,
    Return,
    ReversePathFails,
    Rule,
    SetDSCP,
    Table,
)
from felix.rules import names
from felix.rules.endpoints import FLOWS
from felix.rules.marks import clear, is_any_set, is_clear, is_set, put
from felix.rules.policies import Dialect, verdict_chains
from felix.rules.settings import Failsafe

TCP, UDP, IPIP, ICMPV6 = 6, 17, 4, 58
ALL_POOLS, MASQUERADED_POOLS = "network-ip-pools", "masq-ipam-pools"
ALL_HOSTS, ALL_VXLAN, THIS_HOST = "all-hosts-net", "all-vxlan-net", "this-host"
DSCP_SOURCES = "dscp-src-net"
LOCAL_SOURCE, LOCAL_DESTINATION = AddressType("source"), AddressType("destination")
# What a workload needs of its host to find it: multicast listeners, routers and neighbours.
ICMPV6_FOR_HOST = (130, 131, 132, 133, 135, 136)
METADATA = "169.254.169.254/32"

HOOKS: dict[tuple[Table, Hook], str] = {
    ("raw", "PREROUTING"): "cali-PREROUTING",
    ("raw", "OUTPUT"): "cali-OUTPUT",
    ("mangle", "PREROUTING"): "cali-PREROUTING",
    ("mangle", "POSTROUTING"): "cali-POSTROUTING",
    ("nat", "PREROUTING"): "cali-PREROUTING",
    ("nat", "OUTPUT"): "cali-OUTPUT",
    ("nat", "POSTROUTING"): "cali-POSTROUTING",
    ("filter", "INPUT"): "cali-INPUT",
    ("filter", "FORWARD"): "cali-FORWARD",
    ("filter", "OUTPUT"): "cali-OUTPUT",
}


def hooks(
    dialect: Dialect, *, asks_flows: bool = True, needs_mangle: bool = True
) -> dict[tuple[Table, Hook], HookRules]:
    """A jump each. Behind the others' (kube-proxy's): the postrouting translation, and what forwarding ends with.

    False only where the dialect is short: `asks_flows`, known connections have to ask the endpoints that they meet;
    `needs_mangle`, its chains have something to do.
    """
    marks, settings = dialect.marks, dialect.settings
    found: dict[tuple[Table, Hook], HookRules] = {}
    for (table, hook), target in HOOKS.items():
        if table == "mangle" and not needs_mangle:
            found[table, hook] = HookRules()
            continue
        before: tuple[Rule, ...] = ()
        after: tuple[Rule, ...] = ()
        if dialect.is_short and (table, hook) == ("raw", "PREROUTING"):
            before = tuple(Rule((way,), GoTo(names.FROM_WORKLOAD)) for way in workload_ways(dialect, "in"))
        if (table, hook) == ("filter", "FORWARD"):
            if not asks_flows:
                before = (Rule((FLOWS,), Accept(), ("Known connection.",)),)
            if needs_mangle:
                after = (
                    Rule((is_set(marks.accept),), allow_filter(dialect), ("Policy explicitly accepted packet.",)),
                    Rule((), put(marks.accept)),
                )
        first = (*before, Rule((), Jump(target)))
        at_end = not settings.inserts or (table, hook) == ("nat", "POSTROUTING")
        found[table, hook] = HookRules((), (*first, *after)) if at_end else HookRules(first, after)
    return found


def allow_filter(dialect: Dialect) -> Action:
    return Accept() if dialect.settings.filter_allow == "ACCEPT" else Return()


def allow_mangle(dialect: Dialect) -> Action:
    return Accept() if dialect.settings.mangle_allow == "ACCEPT" else Return()


def port(side: str, number: int) -> Ports:
    return Ports(side, (PortRange(number, number),))  # type: ignore[arg-type]


def workload_ways(dialect: Dialect, way: str) -> list[Criterion]:
    kind = InInterface if way == "in" else OutInterface
    return [kind(f"{prefix}+") for prefix in dialect.settings.interface_prefixes]


# --- filter ----------------------------------------------------------------------------------------------------------


def filter_chains(dialect: Dialect, services: ServiceCIDRsUpdate) -> list[Chain]:
    return [
        Chain("cali-INPUT", tuple(_input(dialect))),
        Chain("cali-FORWARD", tuple(_forward(dialect))),
        Chain("cali-OUTPUT", tuple(_output(dialect))),
        Chain(names.WORKLOAD_TO_HOST, tuple(_workload_to_host(dialect))),
        Chain(names.CIDR_BLOCK, tuple(_cidr_block(dialect, services))),
        *failsafe_chains(dialect, is_raw=False),
        *verdict_chains(dialect),
    ]


def _forward(dialect: Dialect) -> Iterator[Rule]:
    marks = dialect.marks
    yield Rule((), clear(marks.all_but_accept()))
    yield Rule((is_clear(marks.accept),), Jump(names.FROM_HOST_FORWARD))
    for way in workload_ways(dialect, "in"):
        yield Rule((way,), Jump(names.FROM_WORKLOAD_DISPATCH))
    for way in workload_ways(dialect, "out"):
        yield Rule((way,), Jump(names.TO_WORKLOAD_DISPATCH))
    yield Rule((), Jump(names.TO_HOST_FORWARD))
    yield Rule((), Jump(names.CIDR_BLOCK))


def _input(dialect: Dialect) -> Iterator[Rule]:
    settings, marks = dialect.settings, dialect.marks
    if settings.has_ipip and dialect.version == 4:
        yield Rule(
            (Protocol(IPIP), InSet("source", ALL_HOSTS), LOCAL_DESTINATION), allow_filter(dialect),
            ("Allow IPIP packets from Calico hosts",),
        )  # fmt: skip
        yield Rule((Protocol(IPIP),), dialect.deny, (f"{dialect.deny_word} IPIP packets from non-Calico hosts",))
    if settings.has_vxlan_of(dialect.version):
        to_us = (Protocol(UDP), port("destination", settings.vxlan_port), LOCAL_DESTINATION)
        yield Rule(
            (*to_us, InSet("source", ALL_VXLAN)), allow_filter(dialect), ("Allow VXLAN packets from allowed hosts",)
        )
        yield Rule(to_us, Drop(), ("Drop VXLAN packets from non-allowed hosts",))
    if number := wireguard_port(dialect):
        yield Rule(
            (Protocol(UDP), port("destination", number), LOCAL_DESTINATION), allow_filter(dialect),
            ("Allow incoming Wireguard packets",),
        )  # fmt: skip
    if dialect.has_ipvs:
        # Before anything is taken for a packet to this host.
        yield Rule((), clear(marks.endpoint))
        yield Rule((), Jump(names.FORWARD_CHECK))
        yield Rule((is_any_set(marks.endpoint),), Return())
    for way in workload_ways(dialect, "in"):
        yield Rule((way,), GoTo(names.WORKLOAD_TO_HOST))
    yield Rule((is_set(marks.accept),), allow_filter(dialect))
    yield Rule((), clear(marks.ours))
    yield Rule((), Jump(names.FROM_HOST))
    yield Rule((is_set(marks.accept),), allow_filter(dialect), ("Host endpoint policy accepted packet.",))


def wireguard_port(dialect: Dialect) -> int:
    return dialect.settings.wireguard_port if dialect.version == 4 else dialect.settings.wireguard_port_v6


def _workload_to_host(dialect: Dialect) -> Iterator[Rule]:
    settings = dialect.settings
    if dialect.version == 6:
        for kind in ICMPV6_FOR_HOST:
            yield Rule((Protocol(ICMPV6), ICMP(kind)), allow_filter(dialect))
    if settings.is_openstack:
        yield from _openstack_to_host(dialect)
    yield Rule((), Jump(names.FROM_WORKLOAD_DISPATCH))
    if settings.filter_allow == "RETURN":
        # Answers to what this host asked a workload: accepting, the endpoint's chain would not have let them get here.
        yield Rule((FLOWS, is_set(dialect.marks.accept)), Return())
    action: Action = {"DROP": Drop(), "REJECT": Reject(), "ACCEPT": Accept(), "RETURN": Return()}[
        settings.endpoint_to_host
    ]  # type: ignore[assignment]
    yield Rule((), action, ("Configured DefaultEndpointToHostAction",))


def _openstack_to_host(dialect: Dialect) -> Iterator[Rule]:
    settings, allow = dialect.settings, allow_filter(dialect)
    if dialect.version == 4 and settings.metadata_address:
        yield Rule(
            (Protocol(TCP), Net("destination", f"{settings.metadata_address}/32"), port("destination", settings.metadata_port)),
            allow,
        )  # fmt: skip
    client, server = (68, 67) if dialect.version == 4 else (546, 547)
    yield Rule((Protocol(UDP), port("source", client), port("destination", server)), allow)
    yield Rule((Protocol(UDP), port("destination", 53)), allow)


def _output(dialect: Dialect) -> Iterator[Rule]:
    settings, marks = dialect.settings, dialect.marks
    yield Rule((is_set(marks.accept),), allow_filter(dialect))
    if dialect.has_ipvs:
        yield Rule((is_any_set(marks.endpoint),), GoTo(names.FORWARD_ENDPOINT_MARK))
    for way in workload_ways(dialect, "out"):
        yield Rule((way,), Return())
    if settings.has_ipip and dialect.version == 4:
        yield Rule(
            (Protocol(IPIP), InSet("destination", ALL_HOSTS), LOCAL_SOURCE), allow_filter(dialect),
            ("Allow IPIP packets to other Calico hosts",),
        )  # fmt: skip
    if settings.has_vxlan_of(dialect.version):
        yield Rule(
            (Protocol(UDP), port("destination", settings.vxlan_port), LOCAL_SOURCE, InSet("destination", ALL_VXLAN)),
            allow_filter(dialect), ("Allow VXLAN packets to other allowed hosts",),
        )  # fmt: skip
    if number := wireguard_port(dialect):
        yield Rule(
            (Protocol(UDP), port("destination", number), LOCAL_SOURCE), allow_filter(dialect),
            ("Allow outgoing Wireguard packets",),
        )  # fmt: skip
    yield Rule((), clear(marks.ours))
    yield Rule((DNATted(negated=True),), Jump(names.TO_HOST))
    yield Rule((is_set(marks.accept),), allow_filter(dialect), ("Host endpoint policy accepted packet.",))


def _cidr_block(dialect: Dialect, services: ServiceCIDRsUpdate) -> Iterator[Rule]:
    """A service's address that nobody translated came back from where the default route leads: it must not loop."""
    how = dialect.settings.service_loop
    if how == "Disabled":
        return
    action: Action = Reject() if how == "Reject" else Drop()
    for cidr in (*services.cluster_ips, *services.external_ips, *services.load_balancer_ips):
        if (":" in cidr) == (dialect.version == 6):
            yield Rule((Net("destination", cidr),), action)


def failsafe_chains(dialect: Dialect, *, is_raw: bool) -> list[Chain]:
    """Without conntrack (raw) the answers to what the other list opens must be let through too."""
    settings = dialect.settings
    sides = (
        (names.FAILSAFE_IN, settings.failsafe_in, settings.failsafe_out, "source"),
        (names.FAILSAFE_OUT, settings.failsafe_out, settings.failsafe_in, "destination"),
    )
    chains = []
    for name, own, other, far in sides:
        rules = list(_failsafes(own, "destination", far, dialect))
        if is_raw:
            rules += _failsafes(other, "source", far, dialect)
        chains.append(Chain(name, tuple(rules)))
    return chains


def _failsafes(ports: Sequence[Failsafe], side: str, far: str, dialect: Dialect) -> Iterator[Rule]:
    for one in ports:
        if one.net and (":" in one.net) != (dialect.version == 6):
            continue
        criteria: list[Criterion] = [Protocol(one.protocol), port(side, one.port)]
        if one.net and one.net not in ("0.0.0.0/0", "::/0"):
            criteria.insert(1, Net(far, one.net))  # type: ignore[arg-type]
        yield Rule(tuple(criteria), Accept())


# --- raw -------------------------------------------------------------------------------------------------------------


def raw_chains(dialect: Dialect, spoofers: Sequence[tuple[str, str]]) -> list[Chain]:
    """`spoofers`: interface and source network of workloads that may send from others' addresses."""
    skip = [
        Rule((InInterface(name), Net("source", cidr)), Accept())
        for name, cidr in spoofers
        if (":" in cidr) == (dialect.version == 6)
    ]
    chains = [
        Chain("cali-PREROUTING", tuple(_raw_prerouting(dialect))),
        Chain("cali-OUTPUT", tuple(_raw_output(dialect))),
        Chain(names.RPF_SKIP, tuple(skip)),
        Chain(names.WIREGUARD_MARK, tuple(_wireguard_mark(dialect))),
        *failsafe_chains(dialect, is_raw=True),
        *verdict_chains(dialect),
    ]
    if dialect.is_short:
        chains.append(Chain(names.FROM_WORKLOAD, tuple(_raw_from_workload(dialect, has_spoofers=bool(skip)))))
    return chains


def _raw_prerouting(dialect: Dialect) -> Iterator[Rule]:
    """Where the dialect is short the hook sends workloads' packets to `_raw_from_workload` before."""
    marks = dialect.marks
    is_workload = is_set(marks.scratch0)
    yield Rule((), clear(marks.ours))
    if _encrypts_host(dialect):
        yield Rule((), Jump(names.WIREGUARD_MARK))
    yield from _untracked_vxlan(dialect)
    if dialect.is_short:
        yield Rule((), Jump(names.FROM_HOST))
    else:
        for way in workload_ways(dialect, "in"):
            yield Rule((way,), put(marks.scratch0))
        yield Rule((is_workload,), Jump(names.RPF_SKIP))
        yield from _no_spoofing(dialect, is_workload)
        yield Rule((is_clear(marks.scratch0),), Jump(names.FROM_HOST))
    yield Rule((is_set(marks.accept),), Accept())


def _raw_from_workload(dialect: Dialect, *, has_spoofers: bool) -> Iterator[Rule]:
    """Each packet of each workload comes by here."""
    marks = dialect.marks
    yield Rule((is_any_set(marks.ours),), clear(marks.ours))
    yield from _untracked_vxlan(dialect)  # else a known connection's answers could be such packets
    if has_spoofers:
        yield Rule((), Jump(names.RPF_SKIP))
    yield from _no_spoofing(dialect)


def _no_spoofing(dialect: Dialect, *of: Criterion) -> Iterator[Rule]:
    """`of`: whose packets are meant."""
    if dialect.settings.is_openstack and dialect.version == 4:
        yield Rule(
            (*of, Protocol(UDP), Net("source", "0.0.0.0/32"), port("source", 68), port("destination", 67)), Accept()
        )
    yield Rule((*of, ReversePathFails()), dialect.deny)


def _encrypts_host(dialect: Dialect) -> bool:
    settings = dialect.settings
    return settings.wireguard_encrypts_host and bool(settings.wireguard_port or settings.wireguard_port_v6)


def _wireguard_mark(dialect: Dialect) -> Iterator[Rule]:
    """What comes in encrypted is answered past the tunnel; without its mark the reverse path would be the tunnel's."""
    if not _encrypts_host(dialect):
        return
    settings = dialect.settings
    for device in ("lo", settings.wireguard_device, settings.wireguard_device_v6):
        yield Rule((InInterface(device),), Return())
    for way in workload_ways(dialect, "in"):
        yield Rule((way,), Return())
    yield Rule((), put(dialect.marks.wireguard))


def _raw_output(dialect: Dialect) -> Iterator[Rule]:
    yield Rule((), clear(dialect.marks.ours))
    yield Rule((), Jump(names.TO_HOST))
    yield from _untracked_vxlan(dialect)
    yield Rule((is_set(dialect.marks.accept),), Accept())


def _untracked_vxlan(dialect: Dialect) -> Iterator[Rule]:
    if dialect.settings.has_vxlan_of(dialect.version):
        yield Rule((Protocol(UDP), port("destination", dialect.settings.vxlan_port)), NoTrack())


# --- mangle ----------------------------------------------------------------------------------------------------------


def mangle_chains(dialect: Dialect, dscp: Mapping[str, int]) -> list[Chain]:
    """`dscp`: network of this IP version → the value that its packets leave the cluster with."""
    accepted = is_set(dialect.marks.accept)
    allow = allow_mangle(dialect)
    leaving = (
        InSet("source", DSCP_SOURCES),
        InSet("destination", ALL_POOLS, negated=True),
        InSet("destination", THIS_HOST, negated=True),
    )
    marking = [Rule(leaving, Jump(names.EGRESS_DSCP), ("set dscp for traffic leaving cluster.",))] if dscp else []
    return [
        Chain(
            "cali-PREROUTING",
            (
                Rule((FLOWS,), allow),
                Rule((accepted,), allow),
                Rule((), Jump(names.FROM_HOST)),
                Rule((accepted,), allow, ("Host endpoint policy accepted packet.",)),
            ),
        ),
        Chain(
            "cali-POSTROUTING",
            (
                *marking,
                Rule((accepted,), Return()),
                *([Rule((is_any_set(dialect.marks.endpoint),), Return())] if dialect.has_ipvs else []),
                Rule((), clear(dialect.marks.ours)),
                Rule((DNATted(),), Jump(names.TO_HOST)),
                Rule((accepted,), Return(), ("Host endpoint policy accepted packet.",)),
            ),
        ),
        Chain(names.EGRESS_DSCP, tuple(Rule((Net("source", net),), SetDSCP(dscp[net])) for net in sorted(dscp))),
        *failsafe_chains(dialect, is_raw=False),
        *verdict_chains(dialect),
    ]


def guard(prefixes: Iterable[str]) -> dict[tuple[Table, Hook], tuple[Rule, ...]]:
    """While the rules are being written into an empty table: no new connection from or to a workload, the known ones go on."""
    is_new, why = Conntrack(frozenset({"NEW"})), ("catbird: until all rules are there",)
    coming = tuple(Rule((InInterface(f"{one}+"), is_new), Drop(), why) for one in prefixes)
    going = tuple(Rule((OutInterface(f"{one}+"), is_new), Drop(), why) for one in prefixes)
    return {("filter", "INPUT"): coming, ("filter", "FORWARD"): (*coming, *going)}
