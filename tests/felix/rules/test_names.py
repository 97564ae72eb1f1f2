"""Chain names, mark bits, and the ways from an interface to its chain."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.desired import PolicyId
from felix.filter_rules import Accept, Drop, GoTo, InInterface, Reject, Rule
from felix.rules import names
from felix.rules.dispatch import tree
from felix.rules.marks import marks_of
from felix.rules.policies import MAX_PREFIX, Dialect, denied_prefix
from felix.rules.settings import RuleSettings


@pytest.mark.parametrize(("policy", "chain"), [
    (PolicyId("NetworkPolicy", "default", "web"), "cali-pi-np/default/web"),
    (PolicyId("GlobalNetworkPolicy", "", "web"), "cali-pi-gnp/web"),
    (PolicyId("StagedNetworkPolicy", "ns", "x"), "cali-pi-snp/ns/x"),
    (PolicyId("StagedGlobalNetworkPolicy", "", "x"), "cali-pi-sgnp/x"),
    (PolicyId("StagedKubernetesNetworkPolicy", "ns", "x"), "cali-pi-sknp/ns/x"),
    (PolicyId("KubernetesNetworkPolicy", "ns", "x"), "cali-pi-knp/ns/x"),
    (PolicyId("KubernetesClusterNetworkPolicy", "", "x"), "cali-pi-kcnp/x"),
])  # fmt: skip
def test_a_policys_chain_says_its_kind_and_place(policy: PolicyId, chain: str) -> None:
    assert names.policy_chain(policy, "inbound") == chain
    assert names.policy_chain(policy, "outbound") == chain.replace("-pi-", "-po-")


def test_a_long_name_is_a_prefix_and_a_hash_of_just_the_length() -> None:
    name = names.policy_chain(PolicyId("NetworkPolicy", "a-namespace", "a-policy-with-a-name"), "inbound")
    digest = hashlib.sha256(b"np/a-namespace/a-policy-with-a-name").digest()
    assert name == f"cali-pi-_{base64.urlsafe_b64encode(digest).decode()[:19]}"
    assert len(name) == names.MAX_CHAIN


def test_a_groups_chain_is_a_hash_of_selector_direction_and_policies() -> None:
    policies = [PolicyId("GlobalNetworkPolicy", "", "a"), PolicyId("NetworkPolicy", "ns", "b")]
    said = "all()\ninbound\n2\n{Name: a, Namespace: , Kind: GlobalNetworkPolicy}\n{Name: b, Namespace: ns, Kind: NetworkPolicy}\n"
    digest = base64.urlsafe_b64encode(hashlib.sha3_224(said.encode()).digest()).decode()
    assert names.group_chain("all()", "inbound", policies) == f"cali-gi-{digest[:20]}"
    assert names.group_chain("all()", "outbound", policies).startswith("cali-go-")


@given(st.text(st.characters(codec="ascii", min_codepoint=33), max_size=60))
def test_no_chain_is_longer_than_iptables_takes(name: str) -> None:
    for made in (
        names.endpoint_chain("cali-thfw-", name),
        names.profile_chain(name, "inbound"),
        names.policy_chain(PolicyId("NetworkPolicy", name, name), "outbound"),
    ):
        assert len(made) <= names.MAX_CHAIN


# --- marks


def test_bits_are_taken_from_the_lowest_up_in_calicos_order() -> None:
    marks = marks_of(0xFFFF0000)
    found = marks.accept, marks.next_tier, marks.drop, marks.scratch0, marks.scratch1, marks.wireguard
    assert found == (0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000)
    assert marks_of(0xA0A0A0A0).accept == 0x20


def test_a_mask_with_too_few_bits_is_refused_by_name() -> None:
    assert marks_of(0x1F, has_wireguard=False).wireguard == 0
    with pytest.raises(ValueError, match="0x1f has 5 bits, and 6 are needed"):
        marks_of(0x1F)
    with pytest.raises(ValueError, match="0xf has 4 bits, and 5 are needed"):
        marks_of(0xF, has_wireguard=False)


def test_the_rules_leave_the_masks_other_bits_alone() -> None:
    marks = marks_of(0xFFFF0000)
    assert marks.ours & marks.wireguard == 0
    assert marks.ours == 0x1F0000


# --- what denied a packet


@given(st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters="|"), min_size=1, max_size=300))
def test_a_prefix_fits_and_keeps_rule_and_direction(who: str) -> None:
    prefix = denied_prefix(who, "12", "inbound")
    assert len(prefix) <= MAX_PREFIX
    start, name, rule, way = prefix.split("|")
    assert (start, rule, way) == ("D", "12", "in")
    assert name == who or (name[:5] == who[:5] and name[-5:] == who[-5:])


def test_a_denial_is_a_rejection_only_where_the_kernel_can_answer() -> None:
    dialect = Dialect(4, True, True, RuleSettings(deny="REJECT"), marks_of(0xFFFF0000))
    assert dialect.deny == Reject()
    assert [dialect.within(table).deny for table in ("raw", "mangle")] == [Drop(), Drop()]
    assert Dialect(4, True, True, RuleSettings(), marks_of(0xFFFF0000)).deny == Drop()


# --- dispatch

END = Rule((), Drop())


def walk(root: str, chains: dict[str, tuple[Rule, ...]], interface: str) -> str:
    """Where a packet of that interface ends."""
    for rule in chains[root]:
        matches = all(
            isinstance(one, InInterface)
            and (interface.startswith(one.name[:-1]) if one.name.endswith("+") else interface == one.name)
            for one in rule.criteria
        )
        if matches and isinstance(rule.action, GoTo):
            target = rule.action.chain
            return walk(target, chains, interface) if target in chains else target
        if matches:
            return "the end"
    return "back"


interface_names = st.text(st.sampled_from("abc1"), min_size=1, max_size=4)


@given(st.sets(interface_names, max_size=12), interface_names)
def test_the_tree_leads_each_interface_to_its_own_chain_and_others_to_the_end(known: set[str], other: str) -> None:
    chains = {one.name: one.rules for one in tree("root", "in", {name: f"to {name}" for name in known}, [END])}
    for name in known | {other}:
        assert walk("root", chains, name) == (f"to {name}" if name in known else "the end")


def test_the_tree_branches_at_the_first_letter_that_differs() -> None:
    found = {one.name: one.rules for one in tree("root", "in", {n: n for n in ("cali1", "cali21", "cali22")}, [END])}
    assert found == {
        "root": (
            Rule((InInterface("cali1"),), GoTo("cali1")),
            Rule((InInterface("cali2+"),), GoTo("root-2")),
            END,
        ),
        "root-2": (Rule((InInterface("cali21"),), GoTo("cali21")), Rule((InInterface("cali22"),), GoTo("cali22")), END),
    }


def test_a_tree_of_nothing_is_its_end() -> None:
    assert [one.rules for one in tree("root", "in", {}, [Rule((), Accept())])] == [(Rule((), Accept()),)]
