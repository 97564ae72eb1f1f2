"""An endpoint's chains: established flows, failsafes, tiers of policies, profiles, and what nobody allows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from felix.desired import HostEndpoint, PolicyId, PortRange, TierPolicies, WorkloadEndpoint
from felix.filter_rules import (
    Accept,
    Action,
    Chain,
    Conntrack,
    Criterion,
    Drop,
    Jump,
    LimitConnections,
    LimitPacketRate,
    NoTrack,
    Ports,
    Protocol,
    Return,
    Rule,
    Table,
)
from felix.rules import names
from felix.rules.marks import clear, is_any_set, is_clear, is_set, put
from felix.rules.names import Direction
from felix.rules.policies import Dialect

TCP, UDP, IPIP = 6, 17, 4
JUMPS_BETWEEN_RETURNS = 5
FLOWS = Conntrack(frozenset(("RELATED", "ESTABLISHED")))
INVALID = Conntrack(frozenset(("INVALID",)))
SelectorOf = Callable[[PolicyId], str]


@dataclass(slots=True)
class Built:
    """Chains of one endpoint, and the chains of policy groups that they jump to, each by name."""

    chains: dict[Table, list[Chain]] = field(default_factory=dict)
    groups: dict[Table, dict[str, Chain]] = field(default_factory=dict)

    def add(self, table: Table, chain: Chain, groups: Sequence[Chain] = ()) -> None:
        self.chains.setdefault(table, []).append(chain)
        self.groups.setdefault(table, {}).update((one.name, one) for one in groups)


@dataclass(frozen=True, slots=True)
class Kind:
    """Which of the several ways an endpoint's chain may be made."""

    tracks: bool = True  # conntrack is asked, and may be
    ends_tiers: bool = True  # what no policy of a tier mentions is denied
    has_profiles: bool = True
    is_forward: bool = False
    failsafe: str = ""
    allow: Action = field(default_factory=Accept)


def decides_about_flows(endpoint: WorkloadEndpoint) -> bool:
    """Whether a packet of a known connection may end in the endpoint's chains."""
    qos = endpoint.qos
    return not endpoint.is_up or (qos is not None and bool(qos.ingress_packet_rate or qos.egress_packet_rate))


def workload_chains(endpoint: WorkloadEndpoint, dialect: Dialect, selector_of: SelectorOf) -> Built:
    """`cali-tw-` and `cali-fw-` in the filter table."""
    built = Built()
    for direction, prefix in (("inbound", "cali-tw-"), ("outbound", "cali-fw-")):
        name = names.endpoint_chain(prefix, endpoint.interface)
        if not endpoint.is_up:
            built.add("filter", Chain(name, (Rule((), dialect.deny, ("Endpoint admin disabled",)),)))
            continue
        rules = Rules(dialect, direction, _filter_kind(dialect), selector_of)  # type: ignore[arg-type]
        rules.limit_packets(endpoint)
        rules.let_flows()
        rules.limit_connections(endpoint)
        rules.begin()
        if direction == "outbound":
            rules.refuse_encapsulation()
        rules.tiers(endpoint.tiers)
        rules.profiles(endpoint.profiles)
        built.add("filter", Chain(name, tuple(rules.found)), rules.groups)
    return built


def host_chains(endpoint: HostEndpoint, interface: str, dialect: Dialect, selector_of: SelectorOf) -> Built:
    """`interface` is what the endpoint is on, or ANY_INTERFACE for `*`."""
    built = Built()
    for table, direction, prefix, kind, tiers in _host_kinds(endpoint, dialect):
        rules = Rules(dialect.within(table), direction, kind, selector_of)
        rules.let_flows()
        rules.begin()
        rules.tiers(tiers)
        if kind.is_forward and not any(_policies(tier, direction) for tier in tiers):
            rules.found += [Rule((), put(dialect.marks.accept)), Rule((), Return())]
        elif kind.has_profiles:
            rules.profiles(endpoint.profiles)
        built.add(table, Chain(names.endpoint_chain(prefix, interface), tuple(rules.found)), rules.groups)
    return built


def _host_kinds(
    endpoint: HostEndpoint, dialect: Dialect
) -> Iterator[tuple[Table, Direction, str, Kind, tuple[TierPolicies, ...]]]:
    normal = _filter_kind(dialect)
    mangle_allow = Accept() if dialect.settings.mangle_allow == "ACCEPT" else Return()
    out, in_ = names.FAILSAFE_OUT, names.FAILSAFE_IN
    yield "filter", "outbound", "cali-th-", Kind(failsafe=out, allow=normal.allow), endpoint.tiers
    yield "filter", "inbound", "cali-fh-", Kind(failsafe=in_, allow=normal.allow), endpoint.tiers
    forward = Kind(is_forward=True, has_profiles=False, allow=normal.allow)
    yield "filter", "outbound", "cali-thfw-", forward, endpoint.forward_tiers
    yield "filter", "inbound", "cali-fhfw-", forward, endpoint.forward_tiers
    # Connections of this host whose destination was translated: the filter table saw the old one.
    # Return and not accept: what others have in mangle's postrouting is meant for allowed packets.
    yield "mangle", "outbound", "cali-th-", Kind(failsafe=out, allow=Return()), endpoint.tiers
    if endpoint.untracked_tiers:
        for direction, prefix, failsafe in (("outbound", "cali-th-", out), ("inbound", "cali-fh-", in_)):
            kind = Kind(tracks=False, ends_tiers=False, has_profiles=False, failsafe=failsafe)
            yield "raw", direction, prefix, kind, endpoint.untracked_tiers  # type: ignore[misc]
    if endpoint.pre_dnat_tiers:
        kind = Kind(ends_tiers=False, has_profiles=False, failsafe=in_, allow=mangle_allow)
        yield "mangle", "inbound", "cali-fh-", kind, endpoint.pre_dnat_tiers


def _filter_kind(dialect: Dialect) -> Kind:
    return Kind(allow=Accept() if dialect.settings.filter_allow == "ACCEPT" else Return())


def _policies(tier: TierPolicies, direction: Direction) -> tuple[PolicyId, ...]:
    return tier.ingress if direction == "inbound" else tier.egress


class Rules:
    """One chain in the making."""

    def __init__(self, dialect: Dialect, direction: Direction, kind: Kind, selector_of: SelectorOf) -> None:
        self.found: list[Rule] = []
        self.groups: list[Chain] = []
        self._dialect = dialect
        self._marks = dialect.marks
        self._direction: Direction = direction
        self._kind = kind
        self._selector_of = selector_of

    def _put(self, action: Action | None, *criteria: Criterion, comment: str = "") -> None:
        self.found.append(Rule(criteria, action, (comment,) if comment else ()))

    def limit_packets(self, endpoint: WorkloadEndpoint) -> None:
        qos = endpoint.qos
        if qos is None:
            return
        inward = self._direction == "inbound"
        rate, burst = (
            (qos.ingress_packet_rate, qos.ingress_packet_burst) if inward
            else (qos.egress_packet_rate, qos.egress_packet_burst)
        )  # fmt: skip
        if rate:
            within = self._marks.scratch0
            self._put(clear(within))
            self._put(LimitPacketRate(rate, burst or 5, within))
            self._put(Drop(), is_clear(within), comment="Drop what is over the packet rate")
            self._put(clear(within))

    def let_flows(self) -> None:
        """What belongs to a connection that was allowed passes; what belongs to none that could be is denied."""
        marks, kind = self._marks, self._kind
        if not kind.tracks:
            return
        if kind.allow == Return():
            self._put(put(marks.accept), FLOWS)
        self._put(kind.allow, FLOWS)
        if self._dialect.settings.checks_invalid:
            self._put(self._dialect.deny, INVALID)

    def begin(self) -> None:
        if self._kind.failsafe:
            self._put(Jump(self._kind.failsafe))
        self._put(clear(self._marks.verdicts))

    def limit_connections(self, endpoint: WorkloadEndpoint) -> None:
        qos = endpoint.qos
        inward = self._direction == "inbound"
        most = 0 if qos is None else qos.ingress_max_connections if inward else qos.egress_max_connections
        if most:
            self._put(LimitConnections(most), comment="Refuse what is over the limit of connections")

    def refuse_encapsulation(self) -> None:
        """A workload must not speak to other nodes as if it were this one."""
        settings, word = self._dialect.settings, self._dialect.deny_word
        if not settings.allows_vxlan_from_workloads:
            port = Ports("destination", (PortRange(settings.vxlan_port, settings.vxlan_port),))
            self._put(
                self._dialect.deny,
                Protocol(UDP),
                port,
                comment=f"{word} VXLAN encapped packets originating in workloads",
            )
        if not settings.allows_ipip_from_workloads:
            self._put(
                self._dialect.deny, Protocol(IPIP), comment=f"{word} IPinIP encapped packets originating in workloads"
            )

    def tiers(self, tiers: Sequence[TierPolicies]) -> None:
        for tier in tiers:
            if policies := _policies(tier, self._direction):
                self._tier(tier, policies)

    def _tier(self, tier: TierPolicies, policies: Sequence[PolicyId]) -> None:
        marks = self._marks
        self._put(clear(marks.next_tier), comment=f"Start of tier {tier.name}")
        for target, decides in self._targets(policies):
            self._put(Jump(target), is_clear(marks.next_tier))
            if not decides:
                continue
            if not self._kind.tracks:
                self._put(NoTrack(), is_set(marks.accept))
            self._put(Return(), is_set(marks.accept), comment="Return if policy accepted")
        if self._kind.ends_tiers and tier.default_action != "Pass" and not all(one.is_staged for one in policies):
            ends = list(self._dialect.denials(tier.name, "end-of-tier", self._direction))
            for action in ends[:-1]:
                self._put(action, is_clear(marks.next_tier))
            comment = f"End of tier {tier.name}. {self._dialect.deny_word} if no policies passed packet"
            self._put(ends[-1], is_clear(marks.next_tier), comment=comment)

    def _targets(self, policies: Sequence[PolicyId]) -> Iterator[tuple[str, bool]]:
        """Chains to jump to, and whether each may decide. Neighbours under one selector share a chain."""
        at = 0
        while at < len(policies):
            selector = self._selector_of(policies[at])
            end = at + 1
            while end < len(policies) and self._selector_of(policies[end]) == selector:
                end += 1
            group = policies[at:end]
            at = end
            if sum(not one.is_staged for one in group) > 1:
                name = names.group_chain(selector, self._direction, group)
                self.groups.append(Chain(name, tuple(self._group(group))))
                yield name, True
            else:
                for one in group:
                    yield names.policy_chain(one, self._direction), not one.is_staged

    def _group(self, policies: Sequence[PolicyId]) -> Iterator[Rule]:
        verdicts = self._marks.verdicts
        for index, policy in enumerate(policies):
            target = Jump(names.policy_chain(policy, self._direction))
            if index and index % JUMPS_BETWEEN_RETURNS == 0:
                yield Rule((is_any_set(verdicts),), Return(), ("Return on verdict",))
                yield Rule((), target)
            elif index == 0:
                yield Rule((), target)
            else:
                yield Rule((is_clear(verdicts),), target)

    def profiles(self, profiles: Sequence[str]) -> None:
        for profile in profiles:
            self._put(Jump(names.profile_chain(profile, self._direction)))
            self._put(Return(), is_set(self._marks.accept), comment="Return if profile accepted")
        ends = list(self._dialect.denials("profile", "no-match", self._direction))
        for action in ends[:-1]:
            self._put(action)
        self._put(ends[-1], comment=f"{self._dialect.deny_word} if no profiles matched")
