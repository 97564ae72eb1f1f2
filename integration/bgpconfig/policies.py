"""What Calico's BIRD filters say, as policies: what a peer is told, what is taken from it, what goes into the kernel.

One policy serves all peers that have the same filters, so that they are one object and one update group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from bgp.config import ACCEPT_ALL, LearnRule, Policy, PolicyRule, PrefixMatch, RouteSetting
from bgp.families import IPAddress, IPNetwork
from integration.bgpconfig.facts import MAX_PRIORITY, Advertisement, Cluster
from integration.bgpconfig.pools import Pool, is_inside, owner_of

FELIX_PROTOCOL, REDIRECT_PROTOCOL, CONNECTED_PROTOCOL = 80, 1, 2
TUNNELS = ("*.cali", "*.calico")  # WireGuard's and VXLAN's
IPIP_TUNNEL = "tunl0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInputs:
    """What the export policy of one family is made from."""

    pools: tuple[Pool, ...] = ()
    blocks: tuple[IPNetwork, ...] = ()  # this node's, confirmed
    service_ranges: tuple[IPNetwork, ...] = ()  # announced whole
    reflected: tuple[IPNetwork, ...] = ()  # service addresses that a reflector passes on whatever it announces itself
    advertisements: tuple[Advertisement, ...] = ()
    normal_priority: int = 1024
    is_excluded: bool = False
    is_reflector: bool = False
    programs_ipip: bool = False


def export_policy(inputs: ExportInputs, filters: Sequence[PolicyRule], label: str) -> Policy:
    """`filters` are the peer's BGPFilters, one after the other.

    Pools with disableBGPExport come before the filters, and communities are added to what a filter accepts too: in
    Calico a filter's Accept goes past both.
    """
    closed = [pool.network for pool in inputs.pools if not pool.is_exported]
    rules = [
        *rule_for(map(inside, closed), "reject", "pools with disableBGPExport"),
        *filters,
        *tunnel_rules(inputs),
        *block_rules(inputs),
        *service_rules(inputs),
        *rule_for((inside(pool.network) for pool in inputs.pools if pool.is_exported), "accept", "IP pools"),
    ]
    return Policy(rules=tuple(with_communities(rules, inputs.advertisements)), default="reject", label=label)


def import_policy(filters: Sequence[PolicyRule], label: str) -> Policy:
    return Policy(rules=tuple(filters), default="accept", label=label) if filters else ACCEPT_ALL


def tunnel_rules(inputs: ExportInputs) -> Iterator[PolicyRule]:
    """Nodes know each other's tunnels without being told."""
    names = TUNNELS if inputs.programs_ipip else (*TUNNELS, IPIP_TUNNEL)
    yield PolicyRule(interfaces=names, peer_type="ibgp", action="reject", label="routes through tunnels")
    yield PolicyRule(interfaces=("bpf*.cali",), action="reject", label="the BPF dataplane's own routes")


def block_rules(inputs: ExportInputs) -> Iterator[PolicyRule]:
    """A block goes out whole. A workload in it alone only if its priority is better than normal: it is migrating."""
    yield from rule_for(map(exactly, inputs.blocks), "accept", "own blocks")
    within = [inside(block) for block in inputs.blocks]
    for rule in rule_for(within, "accept", "elevated routes in own blocks"):
        yield replace(rule, local_pref_above=MAX_PRIORITY - inputs.normal_priority)
    yield from rule_for(within, "reject", "the rest of own blocks")


def service_rules(inputs: ExportInputs) -> Iterator[PolicyRule]:
    """An excluded node announces none of its own, but as a reflector still passes others' on."""
    yield PolicyRule(sources=("originate",), action="accept", label="service addresses announced here")
    if not inputs.is_excluded:
        yield from rule_for(map(inside, inputs.service_ranges), "accept", "service ranges")
    elif inputs.is_reflector:
        for rule in rule_for(map(inside, inputs.service_ranges), "accept", "service ranges of others"):
            yield replace(rule, sources=("ebgp", "ibgp"), peer_type="ibgp")
    if inputs.is_reflector:
        yield from rule_for(map(inside, inputs.reflected), "accept", "service addresses passed on by a reflector")


def kernel_policy(
    pools: Sequence[Pool], cluster: Cluster, service_ranges: Iterable[IPNetwork], wireguard: Iterable[IPNetwork]
) -> Policy:
    """Which best routes the speaker writes: not what Felix writes, nor what would take a service from its proxy.

    `wireguard` are the addresses of nodes that are reached through WireGuard, if this node has it.
    """
    rules = list(rule_for(map(inside, service_ranges), "reject", "service ranges"))
    if hops := tuple(wireguard):
        rules.append(PolicyRule(next_hops=hops, action="reject", label="nodes behind WireGuard"))
    for pool in pools:
        verdict = "accept" if owner_of(pool, cluster) == "speaker" else "reject"
        rules += rule_for([inside(pool.network)], verdict, f"IPPool {pool.name}")
    return Policy(rules=tuple(rules), default="accept", label="kernel")


def learn_rules(cluster: Cluster, workload_interfaces: Sequence[str]) -> tuple[LearnRule, ...]:
    """Which routes of the kernel may be announced, if the export policy agrees: all, but for what follows.

    Felix's routes to other nodes' blocks stand behind what those nodes say themselves, or a reflector would keep its
    clients' routes to itself. Those without a tunnel are not taken at all: two nodes would tell each other of a third's
    block, and each give its own route up for the other's.
    """
    ignored = (*cluster.ignored_interfaces, *workload_interfaces, "kube-ipvs*")
    return (
        *(LearnRule(interface=name, protocol=CONNECTED_PROTOCOL, action="reject") for name in ignored),
        LearnRule(protocol=REDIRECT_PROTOCOL, action="reject"),
        *(LearnRule(interface=name, behind_peers=True) for name in (*TUNNELS, IPIP_TUNNEL)),
        *(LearnRule(interface=name) for name in workload_interfaces),
        LearnRule(protocol=FELIX_PROTOCOL, blackhole=True),
        LearnRule(protocol=FELIX_PROTOCOL, action="reject"),
        LearnRule(),
    )


def inside(network: IPNetwork) -> PrefixMatch:
    return PrefixMatch(network=network, minimum_bits=network.prefixlen, maximum_bits=network.max_prefixlen)


def exactly(network: IPNetwork) -> PrefixMatch:
    return PrefixMatch(network=network, minimum_bits=network.prefixlen, maximum_bits=network.prefixlen)


def rule_for(prefixes: Iterable[PrefixMatch], action: str, label: str) -> Iterator[PolicyRule]:
    """One rule for all of them; none if there are none, as a rule without conditions always matches."""
    if matches := tuple(prefixes):
        yield PolicyRule(prefixes=matches, action=action, label=label)  # type: ignore[arg-type]


def of_version(version: int, networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    return tuple(network for network in networks if network.version == version)


def host(address: IPAddress) -> IPNetwork:
    return ip_network(address)


def with_communities(rules: Iterable[PolicyRule], advertisements: Sequence[Advertisement]) -> Iterator[PolicyRule]:
    """Let every accepting rule add the communities of the prefixes it accepts.

    A rule becomes one for each advertised network, the most specific first, with what all networks around it say too;
    then follows the rule itself.
    """
    if not advertisements:
        yield from rules
        return
    regions = regions_of(advertisements)
    for rule in rules:
        if rule.action == "accept":
            for network, communities in regions:
                prefixes = narrowed(rule.prefixes, network)
                if prefixes is not None:
                    yield replace(rule, prefixes=prefixes, setting=adding(rule.setting, communities))
        yield rule


def regions_of(advertisements: Sequence[Advertisement]) -> list[tuple[IPNetwork, tuple[bytes, ...]]]:
    networks = sorted({one.network for one in advertisements}, key=lambda network: -network.prefixlen)
    regions = []
    for network in networks:
        around = [one for one in advertisements if is_inside(network, one.network)]
        regions.append((network, tuple(sorted({octets for one in around for octets in one.communities}))))
    return regions


def narrowed(prefixes: tuple[PrefixMatch, ...], network: IPNetwork) -> tuple[PrefixMatch, ...] | None:
    """The same condition for prefixes inside `network` only; None if none can be."""
    refusals = tuple(match for match in prefixes if match.negate)
    wanted = [match for match in prefixes if not match.negate]
    if not wanted:
        return (inside(network), *refusals)
    kept = [match for match in (common(match, network) for match in wanted) if match is not None]
    return (*kept, *refusals) if kept else None


def common(match: PrefixMatch, network: IPNetwork) -> PrefixMatch | None:
    if is_inside(match.network, network):
        return match
    if not is_inside(network, match.network) or network.prefixlen > match.maximum_bits:
        return None
    return replace(match, network=network, minimum_bits=max(match.minimum_bits, network.prefixlen))


def adding(setting: RouteSetting, communities: tuple[bytes, ...]) -> RouteSetting:
    standard = tuple(one for one in communities if len(one) == 4 and one not in setting.add_communities)
    large = tuple(one for one in communities if len(one) == 12 and one not in setting.add_large_communities)
    return replace(
        setting,
        add_communities=setting.add_communities + standard,
        add_large_communities=setting.add_large_communities + large,
    )
