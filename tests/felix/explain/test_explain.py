from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.desired import (
    Entity,
    IPSetDelta,
    IPSetUpdate,
    PolicyRule,
    Profile,
    ProfileUpdate,
    ServiceCIDRsUpdate,
    TierPolicies,
    WorkloadEndpoint,
    WorkloadUpdate,
)
from felix.explain.explain import Explanation
from felix.explain.flow import ExplainSettings, Failsafe, protocol_number
from felix.explain.state import IPSet
from felix.explain.view import explanation_lines, explanation_view
from tests.felix.explain.worlds import (
    ALLOW_ALL,
    ask,
    egress,
    host_endpoint,
    ingress,
    policy,
    policy_id,
    state_of,
    to_ports,
    workload,
)

A, B, OUT, HOST = "10.0.0.1", "10.0.0.2", "203.0.113.5", "192.0.2.1"
WEB = PolicyRule("allow", protocol=6, destination=to_ports(80))
PROFILE = ProfileUpdate(ALLOW_ALL)


def deciding(explanation: Explanation) -> str:
    return explanation.stages[-1].reason


def test_without_policies_the_profile_decides() -> None:
    state = state_of(PROFILE, workload("a", A), workload("b", B))
    assert ask(state, A, B).verdict == "allow"
    assert "profile allow" in ask(state, A, B).reason


def test_without_policy_and_profile_a_packet_is_denied() -> None:
    state = state_of(PROFILE, workload("a", A), workload("b", B, profiles=()))
    assert (ask(state, A, B).verdict, deciding(ask(state, A, B))) == ("deny", "no policy, no profile")


def test_a_profile_that_is_not_there_denies() -> None:
    state = state_of(PROFILE, workload("a", A), workload("b", B, profiles=("gone", "allow")))
    assert deciding(ask(state, A, B)) == "profile gone does not exist"


def test_the_first_rule_that_matches_decides_and_the_end_of_the_tier_denies() -> None:
    state = state_of(PROFILE, policy("web", WEB), workload("a", A), workload("b", B, ingress("web")))
    assert ask(state, A, B, 80).verdict == "allow"
    denied = ask(state, A, B, 81)
    assert denied.verdict == "deny"
    assert "end of tier default" in denied.reason


def test_a_policy_in_one_direction_leaves_the_other_to_the_profile() -> None:
    state = state_of(PROFILE, policy("web", WEB), workload("a", A), workload("b", B, ingress("web")))
    assert ask(state, B, A, 9999).verdict == "allow"


def test_pass_goes_to_the_next_tier_and_skips_the_rest_of_its_own() -> None:
    first = TierPolicies("first", "Deny", (policy_id("pass"), policy_id("deny")))
    state = state_of(
        PROFILE,
        policy("pass", PolicyRule("pass"), tier="first"),
        policy("deny", PolicyRule("deny"), tier="first"),
        policy("web", WEB),
        workload("a", A),
        workload("b", B, first, ingress("web")),
    )
    assert ask(state, A, B, 80).verdict == "allow"
    assert ask(state, A, B, 81).verdict == "deny"
    tier = ask(state, A, B, 80).stages[-1].decision.tiers[0]  # type: ignore[union-attr]
    assert (tier.outcome, tier.policies[1].is_reached) == ("pass", False)


def test_pass_in_the_last_tier_asks_the_profiles() -> None:
    state = state_of(PROFILE, policy("pass", PolicyRule("pass")), workload("a", A), workload("b", B, ingress("pass")))
    assert ask(state, A, B).verdict == "allow"


def test_the_end_of_a_tier_whose_default_is_pass_lets_on() -> None:
    tier = ingress("web", tier="admin", default_action="Pass")
    state = state_of(PROFILE, policy("web", WEB, tier="admin"), workload("a", A), workload("b", B, tier))
    explanation = ask(state, A, B, 81)
    assert explanation.verdict == "allow"
    assert any("default action Pass" in line for line in explanation_lines(explanation_view(explanation)))


def test_staged_policies_say_what_they_would_do_and_decide_nothing() -> None:
    state = state_of(
        PROFILE, policy("staged", PolicyRule("deny")), workload("a", A), workload("b", B, ingress("staged"))
    )
    explanation = ask(state, A, B)
    assert explanation.verdict == "allow"
    assert any("it would deny" in line for line in explanation_lines(explanation_view(explanation)))


def test_a_log_rule_goes_on() -> None:
    state = state_of(PROFILE, policy("web", PolicyRule("log"), WEB), workload("a", A), workload("b", B, ingress("web")))
    assert ask(state, A, B, 80).verdict == "allow"


def test_egress_is_asked_before_ingress() -> None:
    state = state_of(
        PROFILE,
        policy("none", outbound=(PolicyRule("deny"),)),
        policy("web", WEB),
        workload("a", A, egress("none")),
        workload("b", B, ingress("web")),
    )
    explanation = ask(state, A, B)
    assert explanation.verdict == "deny"
    assert [stage.place for stage in explanation.stages] == ["egress policy of workload default/a"]


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (PolicyRule("allow", ip_version=6), False),
        (PolicyRule("allow", not_protocol=6), False),
        (PolicyRule("allow", not_protocol=17), True),
        (PolicyRule("allow", source=Entity(nets=("10.0.0.0/24", "192.168.0.0/16"))), True),
        (PolicyRule("allow", source=Entity(nets=("fd00::/8",))), False),
        (PolicyRule("allow", source=Entity(not_nets=("10.0.0.0/24",))), False),
        (PolicyRule("allow", source=Entity(not_nets=("fd00::/8",))), False),
        (PolicyRule("allow", source=Entity(not_nets=("192.168.0.0/16",))), True),
        (PolicyRule("allow", source=Entity(ip_sets=("s:a",))), True),
        (PolicyRule("allow", source=Entity(ip_sets=("s:a", "s:none"))), False),
        (PolicyRule("allow", source=Entity(not_ip_sets=("s:a",))), False),
        (PolicyRule("allow", source=Entity(not_ip_sets=("s:none",))), True),
        (PolicyRule("allow", destination=Entity(named_ports=("n:web",))), True),
        (PolicyRule("allow", destination=Entity(services=("svc:web",))), False),
        (PolicyRule("allow", destination=Entity(not_named_ports=("n:web",))), False),
        (PolicyRule("allow", protocol=6, destination=Entity(not_ports=to_ports(80).ports)), False),
        (PolicyRule("allow", icmp=(8, None)), False),
    ],
)  # fmt: skip
def test_what_a_rule_asks_for(rule: PolicyRule, matches: bool) -> None:
    state = state_of(
        PROFILE,
        IPSetUpdate("s:a", "net", frozenset({"10.0.0.0/30"})),
        IPSetUpdate("s:none", "net", frozenset()),
        IPSetUpdate("n:web", "ip,port", frozenset({f"{B},tcp:80"})),
        IPSetUpdate("svc:web", "ip,port", frozenset({f"{B},udp:80"})),
        policy("one", rule),
        workload("a", A),
        workload("b", B, ingress("one")),
    )
    explanation = ask(state, A, B, 80)
    assert (explanation.verdict == "allow") is matches, explanation.reason


def test_icmp_types_and_codes() -> None:
    state = state_of(
        PROFILE, policy("ping", PolicyRule("allow", protocol=1, icmp=(8, None))), workload("a", A), workload("b", B, ingress("ping"))
    )  # fmt: skip
    assert ask(state, A, B, None, protocol=1, icmp=(8, 0)).verdict == "allow"
    assert ask(state, A, B, None, protocol=1, icmp=(13, 0)).verdict == "deny"


def test_a_workload_may_not_send_as_another() -> None:
    state = state_of(PROFILE, workload("a", A), workload("b", B))
    assert ask(state, B, OUT, arrives_by="calia").verdict == "deny"
    assert ask(state, A, OUT, arrives_by="calia").verdict == "allow"


def test_allowed_source_prefixes_count_only_if_the_setting_says_so() -> None:
    endpoint = workload("a", A).endpoint
    state = state_of(PROFILE, WorkloadUpdate(replace(endpoint, allowed_source_prefixes=("198.51.100.0/24",))))
    assert ask(state, "198.51.100.1", OUT, arrives_by="calia").verdict == "deny"
    allowed = ExplainSettings(honours_source_prefixes=True)
    assert ask(state, "198.51.100.1", OUT, settings=allowed, arrives_by="calia").verdict == "allow"


def test_a_workload_that_is_down_neither_sends_nor_receives() -> None:
    down: WorkloadEndpoint = replace(workload("a", A).endpoint, is_up=False)
    state = state_of(PROFILE, WorkloadUpdate(down), workload("b", B))
    assert "administratively down" in ask(state, A, B).reason
    assert "administratively down" in ask(state, B, A).reason
    assert ask(state, HOST, A).notes == ("default/a is administratively down: its answers are denied",)


@pytest.mark.parametrize(("action", "verdict"), [("DROP", "deny"), ("REJECT", "deny"), ("RETURN", "allow"), ("ACCEPT", "allow")])  # fmt: skip
def test_from_a_workload_to_its_host_the_setting_decides_after_the_policy(action: str, verdict: str) -> None:
    settings = ExplainSettings(endpoint_to_host=action)
    state = state_of(PROFILE, workload("a", A))
    assert ask(state, A, HOST, settings=settings).verdict == verdict
    closed = state_of(PROFILE, policy("none", outbound=(PolicyRule("deny"),)), workload("a", A, egress("none")))
    assert ask(closed, A, HOST, settings=settings).verdict == "deny"


def test_a_host_reaches_its_own_workloads_always() -> None:
    state = state_of(PROFILE, policy("none", PolicyRule("deny")), workload("a", A, ingress("none")))
    assert ask(state, HOST, A).verdict == "allow"
    assert ask(state, OUT, A).verdict == "deny"


def test_a_host_endpoint_without_policy_and_profile_denies_all_but_failsafe_ports() -> None:
    state = state_of(host_endpoint())
    assert ask(state, OUT, HOST, 80).verdict == "deny"
    assert ask(state, OUT, HOST, 22).verdict == "allow"
    assert ask(state, HOST, OUT, 80).verdict == "deny"
    assert ask(state, HOST, OUT, 53, protocol=17).verdict == "allow"
    limited = ExplainSettings(failsafe_in=(Failsafe(6, 22, "10.0.0.0/8"),))
    assert ask(state, OUT, HOST, 22, settings=limited).verdict == "deny"


def test_forwarded_packets_pass_a_host_endpoint_without_apply_on_forward() -> None:
    state = state_of(PROFILE, host_endpoint(), workload("a", A))
    assert ask(state, OUT, A).verdict == "allow"


def test_apply_on_forward_polices_what_is_forwarded() -> None:
    state = state_of(
        PROFILE, policy("web", WEB), host_endpoint(forward_tiers=(ingress("web"),), tiers=(ingress("web"),)), workload("a", A)
    )  # fmt: skip
    assert ask(state, OUT, A, 80).verdict == "allow"
    assert ask(state, OUT, A, 81).verdict == "deny"
    assert ask(state, A, OUT, 81).verdict == "allow"  # ingress only


def test_pre_dnat_policies_see_what_was_sent_and_do_not_end_a_tier() -> None:
    import ipaddress

    state = state_of(
        PROFILE,
        policy("no-nodeport", PolicyRule("deny", protocol=6, destination=to_ports(30080))),
        host_endpoint(pre_dnat_tiers=(ingress("no-nodeport"),)),
        workload("a", A),
    )
    as_sent = (ipaddress.ip_address(HOST), 30080)
    assert ask(state, OUT, A, 80, before_dnat=as_sent).verdict == "deny"
    assert ask(state, OUT, A, 80).verdict == "allow"


def test_untracked_policies_come_first_and_their_allowing_ends_the_matter_for_the_host() -> None:
    state = state_of(policy("web", WEB), host_endpoint(untracked_tiers=(ingress("web"),)))
    assert ask(state, OUT, HOST, 80).verdict == "allow"
    assert ask(state, OUT, HOST, 81).verdict == "deny"  # by the endpoint's end, not by the untracked policy


def test_a_services_address_that_nobody_translated_goes_nowhere() -> None:
    state = state_of(PROFILE, ServiceCIDRsUpdate(("10.96.0.0/12", "fd00:96::/112")), workload("a", A))
    assert "is a service's address" in ask(state, A, "10.96.0.1").reason
    assert ask(state, A, "10.95.0.1").verdict == "allow"
    assert ask(state, A, "10.96.0.1", settings=ExplainSettings(stops_service_loops=False)).verdict == "allow"
    assert ask(state, HOST, "10.96.0.1").verdict == "allow"  # from this host: not forwarded


def test_known_connections_go_on_and_invalid_packets_do_not() -> None:
    state = state_of(PROFILE, policy("none", PolicyRule("deny")), workload("a", A), workload("b", B, ingress("none")))
    assert ask(state, A, B, conntrack="established").verdict == "allow"
    assert ask(state, A, B, conntrack="invalid").verdict == "deny"


def test_tunnels_from_workloads_are_denied() -> None:
    state = state_of(PROFILE, workload("a", A), workload("b", B))
    assert ask(state, A, B, 4789, protocol=17).verdict == "deny"
    assert ask(state, A, B, None, protocol=4).verdict == "deny"
    assert (
        ask(state, A, B, 4789, protocol=17, settings=ExplainSettings(allows_vxlan_from_workloads=True)).verdict
        == "allow"
    )


def test_two_ip_versions_in_one_flow_are_an_error() -> None:
    with pytest.raises(ValueError, match="different IP versions"):
        ask(state_of(), A, "fd00::1")


def test_a_profile_that_denies_ends_the_matter() -> None:
    state = state_of(
        PROFILE,
        ProfileUpdate(Profile("closed", (PolicyRule("deny"),))),
        workload("a", A),
        workload("b", B, profiles=("closed", "allow")),
    )
    assert "profile closed, ingress rule 0" in ask(state, A, B).reason


def test_lines_show_each_rule_with_what_did_not_fit() -> None:
    state = state_of(PROFILE, policy("web", WEB), workload("a", A), workload("b", B, ingress("web")))
    lines = list(explanation_lines(explanation_view(ask(state, A, B, 81))))
    assert lines[0] == "DENY  tcp 10.0.0.1 -> 10.0.0.2 port 81  (forwarded)"
    assert "          0: allow tcp to port 80   [destination port 81 is none of 80]" in lines
    assert lines[-1] == "     end of tier: denied, no policy of it decided"


def test_protocols_by_name_and_number() -> None:
    assert [protocol_number(text) for text in ("tcp", "UDP", "132")] == [6, 17, 132]
    with pytest.raises(ValueError, match="unknown protocol '256'"):
        protocol_number("256")


def test_a_delta_changes_a_set_and_leaves_the_message_alone() -> None:
    message = IPSetUpdate("s:a", "net", frozenset({"10.0.0.1/32"}))
    state = state_of(message, IPSetDelta("s:a", frozenset({"10.0.0.2/32"}), frozenset({"10.0.0.1/32"})))
    assert state.ip_sets["s:a"].members == {"10.0.0.2/32"}
    assert message.members == {"10.0.0.1/32"}


@given(st.ip_addresses(), st.data())
def test_an_address_is_in_a_set_if_any_network_of_it_has_it(address, data) -> None:  # type: ignore[no-untyped-def]
    import ipaddress

    networks = st.ip_addresses(v=address.version).flatmap(
        lambda one: st.integers(0, one.max_prefixlen).map(lambda n: ipaddress.ip_network(f"{one}/{n}", strict=False))
    )
    members = data.draw(st.lists(networks, max_size=4))
    if data.draw(st.booleans()):
        members.append(
            ipaddress.ip_network(f"{address}/{data.draw(st.integers(0, address.max_prefixlen))}", strict=False)
        )
    found = IPSet("net", frozenset(map(str, members))).has_address(address)
    assert found is any(address in one for one in members)
