from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from bgp.config import ACCEPT_ALL, REJECT_ALL, Policy, PolicyRule, RouteSetting
from bgp.families import IPV4, IPV6
from bgp.policy import EMPTY_SETTING, CompiledPolicy, compile_policy
from bgp.policy.communities import parse_community
from tests.bgp.policy.routes import Route, exactly, inside, nlri

HIGHER = RouteSetting(local_pref=200)
LOWER = RouteSetting(local_pref=50)


def compiled(*rules: PolicyRule, default: Any = "reject", is_ebgp: bool = True) -> CompiledPolicy:
    return compile_policy(Policy(rules=rules, default=default), direction="import", is_ebgp=is_ebgp)


def accept(**conditions: Any) -> PolicyRule:
    return PolicyRule(action="accept", **conditions)


def reject(**conditions: Any) -> PolicyRule:
    return PolicyRule(action="reject", **conditions)


@pytest.mark.parametrize(
    ("is_ebgp", "required", "passes"),
    [(True, True, False), (True, False, True), (False, True, True), (False, False, True)],
)
def test_no_policy_passes_nothing_over_ebgp_unless_the_requirement_is_off(
    is_ebgp: bool, required: bool, passes: bool
) -> None:
    policy = compile_policy(None, direction="export", is_ebgp=is_ebgp, ebgp_requires_policy=required)
    assert (policy.accepts_all, policy.rejects_all, policy.needs_prefix) == (passes, not passes, False)
    verdict = policy.judge(Route(), nlri("10.0.0.0/8"), IPV4)
    assert verdict is (EMPTY_SETTING if passes else None)


def test_the_first_matching_rule_decides() -> None:
    policy = compiled(
        accept(prefixes=(inside("10.0.0.0/8", 24),), setting=HIGHER),
        reject(prefixes=(inside("10.1.0.0/16"),)),
        accept(prefixes=(inside("10.0.0.0/8"),), setting=LOWER),
    )
    for text, verdict in {
        "10.1.2.0/24": HIGHER,
        "10.1.0.0/16": None,
        "10.2.0.0/16": LOWER,
        "10.0.0.0/8": LOWER,
        "11.0.0.0/24": None,
    }.items():
        assert policy.judge(Route(), nlri(text), IPV4) == verdict, text


@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        (accept(as_path_prefix=(1, 2)), Route(as_path=(1, 2, 3)), Route(as_path=(1, 3, 2))),
        (accept(as_path_prefix=(1, 2)), Route(as_path=(1, 2)), Route(as_path=(1,))),
        (accept(as_path_prefix=(1,)), Route(as_path=(1, 9)), Route(as_path=())),
        (accept(sources=("kernel", "originate")), Route(source="originate"), Route(source="ibgp")),
        (accept(local_pref=100), Route(local_pref=100), Route(local_pref=101)),
        (accept(local_pref=0), Route(local_pref=0), Route(local_pref=None)),
        (accept(local_pref_above=100), Route(local_pref=101), Route(local_pref=100)),
        (accept(local_pref_above=0), Route(local_pref=0xFFFFFFFF), Route(local_pref=None)),
        (accept(interfaces=("cali*", "tap?")), Route(interface="cali12"), Route(interface="tap")),
        (accept(interfaces=("tap?",)), Route(interface="tap1"), Route(interface="tap12")),
        (accept(interfaces=("*.cali",)), Route(interface="vxlan.cali"), Route(interface="vxlanxcali")),
        (accept(interfaces=("*",)), Route(interface="eth0"), None),
        (accept(interfaces=("[ab]",)), Route(interface="[ab]"), Route(interface="a")),
        (
            accept(next_hops=(ipaddress.ip_network("192.0.2.0/24"),)),
            Route(next_hop=bytes([192, 0, 2, 77])),
            Route(next_hop=bytes([192, 0, 3, 77])),
        ),
        (
            accept(next_hops=(ipaddress.ip_network("fe80::/10"),)),
            Route(next_hop=ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("fe80::1").packed),
            Route(next_hop=ipaddress.ip_address("2001:db8::1").packed),
        ),
        (accept(next_hops=(ipaddress.ip_network("0.0.0.0/0"),)), Route(next_hop=bytes(4)), Route(next_hop=b"")),
        (accept(next_hops=(ipaddress.ip_network("::/0"),)), Route(next_hop=bytes(16)), Route(next_hop=bytes(4))),
        (
            accept(communities=(parse_community("65000:1"), parse_community("no-export"))),
            Route(communities=parse_community("1:1") + parse_community("no-export")),
            Route(communities=b"\0\0" + parse_community("65000:1") + b"\0\0"),
        ),
        (
            accept(communities=(parse_community("1:2:3"),)),
            Route(large_communities=parse_community("9:9:9") + parse_community("1:2:3")),
            Route(communities=parse_community("1:2:3")),
        ),
        (
            accept(communities=(parse_community("rt:65000:1"),)),
            Route(extended_communities=parse_community("rt:65000:1")),
            Route(extended_communities=parse_community("soo:65000:1")),
        ),
    ],
)
def test_a_condition_on_the_path(rule: PolicyRule, matching: Route, other: Route | None) -> None:
    policy = compiled(rule)
    assert not policy.needs_prefix
    assert policy.judge(matching, None, IPV4) is EMPTY_SETTING
    assert other is None or policy.judge(other, None, IPV4) is None


def test_all_conditions_of_a_rule_must_hold() -> None:
    policy = compiled(accept(sources=("ebgp",), as_path_prefix=(1,), prefixes=(inside("10.0.0.0/8"),)))
    good = Route(source="ebgp", as_path=(1,))
    assert policy.judge(good, nlri("10.1.0.0/16"), IPV4) is EMPTY_SETTING
    assert policy.judge(good, nlri("11.1.0.0/16"), IPV4) is None
    assert policy.judge(replace(good, source="ibgp"), nlri("10.1.0.0/16"), IPV4) is None
    assert policy.judge(replace(good, as_path=(2,)), nlri("10.1.0.0/16"), IPV4) is None


def test_peer_type_is_settled_when_compiled() -> None:
    rules = (reject(peer_type="ibgp"), accept(peer_type="ebgp"))
    assert compiled(*rules, is_ebgp=True).accepts_all
    assert compiled(*rules, is_ebgp=False).rejects_all


def test_negated_prefixes_refuse_what_they_match() -> None:
    policy = compiled(
        accept(prefixes=(inside("10.0.0.0/8"), inside("10.1.0.0/16", negate=True), exactly("10.2.0.0/16", negate=True)))
    )
    for text, passes in {
        "10.3.0.0/16": True,
        "10.1.0.0/16": False,
        "10.1.5.0/24": False,
        "10.2.0.0/16": False,
        "10.2.5.0/24": True,
        "11.0.0.0/8": False,
    }.items():
        assert (policy.judge(Route(), nlri(text), IPV4) is not None) is passes, text


def test_only_negated_prefixes_accept_all_else_of_either_family() -> None:
    policy = compiled(accept(prefixes=(inside("10.0.0.0/8", negate=True),)))
    assert policy.judge(Route(), nlri("10.0.0.0/9"), IPV4) is None
    assert policy.judge(Route(), nlri("11.0.0.0/9"), IPV4) is EMPTY_SETTING
    assert policy.judge(Route(), nlri("2001:db8::/32"), IPV6) is EMPTY_SETTING


def test_one_and_the_same_octets_are_different_prefixes_in_the_two_families() -> None:
    policy = compiled(accept(prefixes=(inside("32.0.0.0/8"),)))
    assert nlri("32.0.0.0/8") == nlri("2000::/8")
    assert policy.judge(Route(), nlri("32.0.0.0/8"), IPV4) is EMPTY_SETTING
    assert policy.judge(Route(), nlri("2000::/8"), IPV6) is None


def test_default_routes_match() -> None:
    policy = compiled(accept(prefixes=(exactly("0.0.0.0/0"), exactly("::/0"))))
    assert policy.judge(Route(), nlri("0.0.0.0/0"), IPV4) is EMPTY_SETTING
    assert policy.judge(Route(), nlri("::/0"), IPV6) is EMPTY_SETTING
    assert policy.judge(Route(), nlri("0.0.0.0/1"), IPV4) is None


def test_a_run_is_sorted_by_verdict_in_order() -> None:
    policy = compiled(
        accept(prefixes=(inside("10.0.0.0/8"),), setting=HIGHER),
        accept(prefixes=(inside("11.0.0.0/8"),), setting=LOWER),
        accept(prefixes=(inside("12.0.0.0/8"),), setting=RouteSetting(local_pref=200)),
    )
    run = [nlri(text) for text in ("12.1.0.0/16", "11.1.0.0/16", "9.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8")]
    groups = policy.judge_all(Route(), IPV4, run)
    assert len(groups) == 3, "equal settings are one group"
    assert dict(groups) == {
        HIGHER: [run[0], run[3]],
        LOWER: [run[1], run[4]],
        None: [run[2]],
    }
    assert policy.judge_all(Route(), IPV4, []) == []


def test_a_run_whose_path_decides_alone_comes_back_whole() -> None:
    policy = compiled(reject(as_path_prefix=(666,)), accept(prefixes=(inside("10.0.0.0/8"),)))
    run = [nlri("10.0.0.0/8"), nlri("11.0.0.0/8")]
    ((verdict, group),) = policy.judge_all(Route(as_path=(666,)), IPV4, run)
    assert verdict is None
    assert group is run


def test_flags_say_what_the_speaker_may_skip() -> None:
    assert compiled(default="accept").accepts_all
    assert compiled(default="reject").rejects_all
    assert compiled(accept(prefixes=(inside("10.0.0.0/8"),)), default="accept").accepts_all, "the rule changes nothing"
    assert compiled(accept(), reject(prefixes=(inside("10.0.0.0/8"),))).needs_prefix is False, "unreachable rule"
    assert compiled(reject(interfaces=("eth*",)), accept()).needs_interface
    assert compiled(accept(), reject(interfaces=("eth*",))).needs_interface is False, "unreachable rule"
    changed = compiled(accept(setting=HIGHER), default="accept")
    assert not changed.accepts_all
    assert not changed.rejects_all
    for policy, accepts in ((ACCEPT_ALL, True), (REJECT_ALL, False)):
        made = compile_policy(policy, direction="import", is_ebgp=True)
        assert (made.accepts_all, made.rejects_all) == (accepts, not accepts)


def test_a_policy_on_prefixes_refuses_to_guess_without_one() -> None:
    with pytest.raises(ValueError, match="needs_prefix"):
        compiled(accept(prefixes=(inside("10.0.0.0/8"),))).judge(Route(), None, IPV4)


def test_a_rejecting_rule_changes_nothing_even_if_it_carries_a_setting() -> None:
    assert compiled(reject(setting=HIGHER), default="accept").judge(Route(), None, IPV4) is None


def test_ten_thousand_rules_cost_a_prefix_no_more_than_its_lengths() -> None:
    rules = [
        accept(prefixes=(exactly(f"10.{high}.{low}.0/24"),), setting=RouteSetting(local_pref=low))
        for high in range(40)
        for low in range(250)
    ]
    policy = compiled(*rules)
    assert policy.judge(Route(), nlri("10.39.249.0/24"), IPV4) == RouteSetting(local_pref=249)
    assert policy.judge(Route(), nlri("10.40.0.0/24"), IPV4) is None
    assert policy.judge(Route(), nlri("10.39.249.0/25"), IPV4) is None
    groups = policy.judge_all(Route(), IPV4, [nlri(f"10.1.{low}.0/24") for low in range(256)])
    assert sum(len(group) for _, group in groups) == 256
    assert len(groups) == 251


def test_equal_policies_are_compiled_to_one_object_per_kind_of_session() -> None:
    def made(label: str = "") -> Policy:
        return Policy(rules=(reject(peer_type="ibgp", label=label),), default="accept")

    policy = made()
    first = compile_policy(policy, direction="import", is_ebgp=True)
    assert compile_policy(policy, direction="import", is_ebgp=True) is first
    assert compile_policy(made(), direction="import", is_ebgp=True) is first, "after a reload, say"
    inner = compile_policy(policy, direction="import", is_ebgp=False)
    assert (first.accepts_all, inner.rejects_all) == (True, True)
    assert compile_policy(made("rule 1 of b"), direction="import", is_ebgp=True) is not first, "it explains differently"
    none = compile_policy(None, direction="export", is_ebgp=True)
    assert compile_policy(None, direction="export", is_ebgp=True) is none
    assert compile_policy(None, direction="export", is_ebgp=True, ebgp_requires_policy=False) is not none


def test_no_policy_is_taken_for_another_however_many_there_are() -> None:
    for number in range(2000):  # more than are remembered
        policy = Policy(rules=(accept(local_pref=number),))
        assert compile_policy(policy, direction="import", is_ebgp=True).policy == policy
