"""What a message costs and what it leaves: only what it touches is handed over, and the way there does not matter."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.desired import (
    VTEP,
    Host,
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    HostRemove,
    HostUpdate,
    InSync,
    IPSetDelta,
    IPSetRemove,
    IPSetType,
    Message,
    PolicyRemove,
    PolicyRule,
    PolicyUpdate,
    Pool,
    PoolRemove,
    PoolUpdate,
    Profile,
    ProfileRemove,
    ProfileUpdate,
    QoS,
    ServiceCIDRsUpdate,
    VTEPRemove,
    VTEPUpdate,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)  # fmt: skip
from felix.filter_rules import Chain, Jump, Mark, Table
from felix.rules import names
from felix.rules.ruleset import RuleProgrammer
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.rules.world import (
    EVERYTHING,
    HOST_ENDPOINTS,
    PLAIN,
    POLICIES,
    SETS,
    WORKLOADS,
    global_id,
    messages,
    tier,
    told,
    workload,
    workload_id,
)

BOTH = pytest.mark.parametrize("is_like_nftables", [True, False], ids=["nftables", "iptables"])


class Handed(RecordingFilter):
    """Notes what has been handed over since `clear`."""

    def __init__(self, *, is_like_nftables: bool = True) -> None:
        super().__init__(4, is_like_nftables=is_like_nftables)
        self.chains_set: set[tuple[Table, str]] = set()
        self.chains_gone: set[tuple[Table, str]] = set()
        self.sets_changed: dict[str, tuple[set[str], set[str]]] = {}

    def clear(self) -> None:
        self.chains_set, self.chains_gone, self.sets_changed = set(), set(), {}

    def set_chains(self, table: Table, chains: Iterable[Chain]) -> None:
        chains = list(chains)
        self.chains_set |= {(table, one.name) for one in chains}
        super().set_chains(table, chains)

    def remove_chains(self, table: Table, names: Iterable[str]) -> None:
        names = list(names)
        self.chains_gone |= {(table, one) for one in names}
        super().remove_chains(table, names)

    def set_ip_set(self, id: str, type: IPSetType, members: Collection[str]) -> None:
        self.sets_changed[id] = set(members), set()
        super().set_ip_set(id, type, members)

    def change_ip_set(self, id: str, added: Collection[str], removed: Collection[str]) -> None:
        self.sets_changed[id] = set(added), set(removed)
        super().change_ip_set(id, added, removed)


def everything(filter_: Handed) -> RuleProgrammer:
    programmer = told(filter_, PLAIN, messages())
    filter_.clear()
    return programmer


def tell(programmer: RuleProgrammer, *these: Message) -> None:
    for message in these:
        programmer.on_message(message)
    programmer.complete()


def snapshot(filter_: RecordingFilter) -> dict[str, Any]:
    chains = {(table, name): chain for table, some in filter_.chains.items() for name, chain in some.items()}
    sets = {id: (type, frozenset(members)) for id, (type, members) in filter_.sets.items()}
    return {"chains": chains, "sets": sets, "hooks": dict(filter_.hooks), "maps": filter_.maps}


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{part} {key}": (one[part].get(key), other[part].get(key))
        for part in one
        for key in one[part].keys() | other[part].keys()
        if one[part].get(key) != other[part].get(key)
    }


def test_a_new_pod_hands_over_its_own_chains_and_the_dispatch() -> None:
    filter_ = Handed()
    tell(everything(filter_), WorkloadUpdate(workload("new", tier("web", "other"))))
    assert filter_.chains_set == {("filter", "cali-tw-calinew"), ("filter", "cali-fw-calinew")}
    assert filter_.maps["filter"][names.TO_WORKLOAD_DISPATCH]["calinew"] == "cali-tw-calinew"
    assert filter_.sets_changed == {}


def test_a_pod_that_goes_takes_its_chains_along() -> None:
    programmer = everything(filter_ := Handed())
    before = copy.deepcopy(snapshot(filter_))
    tell(programmer, WorkloadUpdate(workload("new", tier("web", "dns", "staged"), nats=(("10.0.0.9", "192.0.2.9"),))))
    tell(programmer, WorkloadRemove(workload_id("new")))
    assert snapshot(filter_) == before


def test_a_changed_policy_hands_over_its_own_chains() -> None:
    filter_ = Handed()
    changed = dataclasses.replace(POLICIES[2], inbound=(PolicyRule("deny"),))
    tell(everything(filter_), PolicyUpdate(changed))
    assert filter_.chains_set == {("filter", "cali-pi-gnp/other"), ("mangle", "cali-pi-gnp/other")}


def test_what_is_told_again_hands_over_nothing() -> None:
    filter_ = Handed()
    tell(everything(filter_), *(one for one in messages() if one not in SETS), InSync())
    assert (filter_.chains_set, filter_.chains_gone, filter_.sets_changed) == (set(), set(), {})


def test_a_node_among_many_changes_its_own_members_alone() -> None:
    filter_ = Handed()
    programmer = everything(filter_)
    tell(programmer, HostUpdate(Host("node2", "192.0.2.3")), VTEPUpdate(VTEP("node2", parent_ipv4="192.0.2.3")))
    change = {"192.0.2.3/32"}, {"192.0.2.2/32"}
    assert filter_.sets_changed == {"all-hosts-net": change, "all-vxlan-net": change}
    assert filter_.chains_set == set()


def test_an_address_that_two_nodes_name_stays_until_both_are_gone() -> None:
    filter_ = Handed()
    programmer = everything(filter_)
    tell(programmer, HostUpdate(Host("node3", "192.0.2.2")))
    tell(programmer, HostRemove("node2"))
    assert filter_.sets_changed == {}
    tell(programmer, HostRemove("node3"))
    assert filter_.sets_changed == {"all-hosts-net": (set(), {"192.0.2.2/32"})}


def test_sets_of_policies_are_passed_on() -> None:
    filter_ = Handed()
    tell(
        everything(filter_),
        IPSetDelta("s:a", frozenset({"10.4.0.0/16"}), frozenset({"10.3.0.0/16"})),
        IPSetRemove("n:web"),
    )
    assert filter_.sets["s:a"][1] == {"10.4.0.0/16", "10.3.1.1/32", "fd00:3::/64"}
    assert "n:web" not in filter_.sets


@BOTH
def test_other_mark_bits_reach_every_chain(is_like_nftables: bool) -> None:
    other = dataclasses.replace(PLAIN, mark_mask=0xFF00)
    filter_ = Handed(is_like_nftables=is_like_nftables)
    programmer = everything(filter_)
    programmer.reconfigure(other)
    programmer.complete()
    told(fresh := Handed(is_like_nftables=is_like_nftables), other, messages())
    assert snapshot(filter_) == snapshot(fresh)
    masks = {
        one.mask for some in filter_.chains.values() for chain in some.values() for rule in chain.rules
        for one in rule.criteria if isinstance(one, Mark)
    }  # fmt: skip
    assert all(mask & ~0xFF00 == 0 for mask in masks)


@BOTH
def test_settings_that_change_leave_the_same_rules_as_settings_from_the_start(is_like_nftables: bool) -> None:
    filter_ = Handed(is_like_nftables=is_like_nftables)
    programmer = told(filter_, PLAIN, messages())
    programmer.reconfigure(EVERYTHING)
    programmer.complete()
    told(fresh := Handed(is_like_nftables=is_like_nftables), EVERYTHING, messages())
    assert snapshot(filter_) == snapshot(fresh)


def test_an_interface_counts_as_the_hosts_when_its_prefix_is_a_workloads_no_more() -> None:
    filter_ = Handed()
    programmer = told(filter_, dataclasses.replace(PLAIN, interface_prefixes=("eth",)), messages())
    assert filter_.sets["this-host"][1] == {"127.0.0.1/32"}
    programmer.reconfigure(PLAIN)
    programmer.complete()
    assert filter_.sets["this-host"][1] == {"127.0.0.1/32", "192.0.2.1/32", "198.51.100.1/32"}
    assert ("filter", "cali-fh-eth0") in filter_.chains_set


def test_of_two_workloads_on_one_interface_the_lower_id_has_it_until_it_goes() -> None:
    filter_ = Handed()
    programmer = everything(filter_)
    lower = dataclasses.replace(workload("a"), id=WorkloadId("cni", "x", "eth0"), is_up=False)
    tell(programmer, WorkloadUpdate(lower))
    assert filter_.chains["filter"]["cali-tw-calia"].rules[0].comments == ("Endpoint admin disabled",)
    tell(programmer, WorkloadRemove(lower.id))
    assert len(filter_.chains["filter"]["cali-tw-calia"].rules) > 1


def test_a_selector_that_changes_regroups_the_endpoints_policies() -> None:
    filter_ = Handed()
    programmer = everything(filter_)

    def group_jumps() -> list[str]:
        rules = filter_.chains["filter"]["cali-tw-calia"].rules
        return [one.action.chain for one in rules if isinstance(one.action, Jump) and "-gi-" in one.action.chain]

    assert len(group_jumps()) == 1
    former = group_jumps()[0]
    tell(programmer, PolicyUpdate(dataclasses.replace(POLICIES[1], selector="has(y)")))
    assert group_jumps() == []
    assert former not in filter_.chains["filter"]


def test_each_counting_rule_is_known_by_its_owner_and_index() -> None:
    filter_ = Handed()
    programmer = everything(filter_)
    found = {(table, one.chain.name): one for table, one in programmer.owned_chains()}
    staged = found["filter", "cali-pi-sgnp/staged"]
    assert (staged.owner, staged.direction) == (global_id("staged"), "inbound")
    for (table, name), one in found.items():
        rules = filter_.chains[table][name].rules
        assert one.chain.rules == rules
        assert len(one.counts) == len(rules)
        indexes = [index for index in one.counts if index is not None]
        assert indexes == sorted(indexes)
    # ipVersion 6 alone is left out of IPv4, everything else counts: in a staged policy the last rule too.
    assert sorted({index for index in staged.counts if index is not None}) == [0, 1, 2, 3, 4, 5, 6, 9]


def test_nothing_a_chain_names_is_missing() -> None:
    for settings_ in (PLAIN, EVERYTHING):
        for is_like_nftables in (True, False):
            filter_ = Handed(is_like_nftables=is_like_nftables)
            told(filter_, settings_, messages())
            assert missing(filter_) == set()


def missing(filter_: RecordingFilter) -> set[tuple[str, str]]:
    """Chains, maps and sets that are named and are not there."""
    found: set[tuple[str, str]] = set()
    hooked = [(table, rule) for (table, _), one in filter_.hooks.items() for rule in (*one.inserted, *one.appended)]
    rules = hooked + [
        (table, rule) for table, some in filter_.chains.items() for chain in some.values() for rule in chain.rules
    ]
    for table, rule in rules:
        target = getattr(rule.action, "chain", None)
        if target is not None and target not in filter_.chains[table]:
            found.add((table, target))
        if (map_ := getattr(rule.action, "map", None)) is not None:
            found |= {(table, one) for one in filter_.maps[table][map_].values() if one not in filter_.chains[table]}
        found |= {("set", one.id) for one in rule.criteria if hasattr(one, "id") and one.id not in filter_.sets}
    return found


# --- any way to a state leaves that state ----------------------------------------------------------------------------

POOL_OF: dict[str, Sequence[Message]] = {
    "policy": [
        PolicyUpdate(one) for policy in POLICIES[:4] for one in (policy, dataclasses.replace(policy, selector="has(z)", outbound=()))
    ],
    "profile": [ProfileUpdate(Profile("kns.default", (PolicyRule(action),))) for action in ("allow", "deny")],
    "workload": [WorkloadUpdate(one) for workload_ in WORKLOADS for one in (workload_, dataclasses.replace(workload_, is_up=False))]
    + [WorkloadUpdate(dataclasses.replace(WORKLOADS[0], interface="caliab", qos=QoS(dscp=1)))],
    "host": [HostEndpointUpdate(one) for host in HOST_ENDPOINTS for one in (host, dataclasses.replace(host, interface="eth1"))]
    + [HostEndpointUpdate(HostEndpoint("by-address", expected_ips=("198.51.100.1",), tiers=(tier("web", "dns"),)))],
    "node": [HostUpdate(Host(name, address)) for name in "mn" for address in ("192.0.2.7", "192.0.2.8")],
    "vtep": [VTEPUpdate(VTEP(name, parent_ipv4=address)) for name in "mn" for address in ("192.0.2.7", "192.0.2.8")],
    "pool": [PoolUpdate(Pool(cidr, masquerade=m)) for cidr in ("10.0.0.0/16", "10.1.0.0/16") for m in (True, False)],
    "services": [ServiceCIDRsUpdate(cluster_ips=(cidr,)) for cidr in ("10.96.0.0/12", "10.97.0.0/16")],
}  # fmt: skip


def key_of(message: Any) -> tuple[str, Any]:
    """What it is about; a removal of the same is about the same."""
    match message:
        case PolicyUpdate(policy):
            return "policy", policy.id
        case ProfileUpdate(profile):
            return "profile", profile.name
        case WorkloadUpdate(endpoint):
            return "workload", endpoint.id
        case HostEndpointUpdate(endpoint):
            return "host", endpoint.name
        case HostUpdate(host):
            return "node", host.name
        case VTEPUpdate(vtep):
            return "vtep", vtep.node
        case PoolUpdate(pool):
            return "pool", pool.cidr
    return "services", ""


REMOVALS: Mapping[str, Any] = {
    "policy": PolicyRemove, "profile": ProfileRemove, "workload": WorkloadRemove, "host": HostEndpointRemove,
    "node": HostRemove, "vtep": VTEPRemove, "pool": PoolRemove,
}  # fmt: skip
STEPS = [one for some in POOL_OF.values() for one in some]


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.booleans(), st.booleans()), max_size=40), st.booleans())
def test_whatever_the_way_the_rules_are_those_of_the_state(
    steps: list[tuple[Any, bool, bool]], is_like_nftables: bool
) -> None:
    """Updates, removals of what may never have been, and hand-overs in between."""
    filter_ = Handed(is_like_nftables=is_like_nftables)
    programmer = told(filter_, PLAIN, SETS)
    state: dict[tuple[str, Any], Any] = {}
    for message, is_removal, completes in steps:
        kind, name = key_of(message)
        if is_removal and kind in REMOVALS:
            state.pop((kind, name), None)
            programmer.on_message(REMOVALS[kind](name))
        else:
            state[kind, name] = message
            programmer.on_message(message)
        if completes:
            programmer.complete()
    programmer.complete()
    told(fresh := Handed(is_like_nftables=is_like_nftables), PLAIN, [*SETS, *state.values()])
    assert differing(snapshot(filter_), snapshot(fresh)) == {}
