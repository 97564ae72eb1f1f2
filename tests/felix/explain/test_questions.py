from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.config import FelixConfig
from felix.desired import PolicyRule
from felix.explain.flow import ExplainSettings
from felix.explain.questions import FIELDS, QuestionError, answer
from felix.explain.settings import explain_settings
from felix.explain.state import DesiredState
from felix.explain.stats import RuleOf, statistics_lines, statistics_view
from tests.felix.explain.worlds import (
    ALLOW_ALL,
    HOST,
    ProfileUpdate,
    ingress,
    policy,
    policy_id,
    state_of,
    to_ports,
    workload,
)

WEB = PolicyRule("allow", protocol=6, destination=to_ports(80))
STATE = state_of(
    ProfileUpdate(ALLOW_ALL),
    policy("web", WEB),
    workload("a", "10.0.0.1"),
    workload("b", "10.0.0.2", ingress("web")),
    workload("six", "fd00::6"),
)


def ask(**question: Any) -> dict[str, Any]:
    return answer(STATE, ExplainSettings(), HOST, {name.rstrip("_"): value for name, value in question.items()})


def test_names_addresses_and_the_host_may_be_asked_about() -> None:
    assert ask(from_="default/a", to="default/b", port=80)["verdict"] == "allow"
    assert ask(from_="10.0.0.1", to="10.0.0.2", port=81)["verdict"] == "deny"
    assert ask(from_="host", to="default/b", port=81)["way"] == "from this host"
    assert ask(from_="default/six", to="2001:db8::9", port=81)["flow"]["source"] == "fd00::6"


def test_an_icmp_type_means_icmp_of_the_flows_version() -> None:
    assert ask(from_="default/a", to="10.0.0.2", icmpType=8)["flow"]["protocol"] == "icmp"
    assert ask(from_="default/six", to="host", icmpType=128)["flow"]["protocol"] == "icmpv6"


def test_the_answer_is_json() -> None:
    view = ask(from_="default/a", to="default/b", port=80)
    assert json.loads(json.dumps(view)) == view


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"to": "10.0.0.1"}, "'from' is missing"),
        ({"from": "default/gone", "to": "10.0.0.1"}, "no workload default/gone on this node"),
        ({"from": "a", "to": "10.0.0.1"}, "neither an address nor NAMESPACE/POD"),
        ({"from": "default/six", "to": "10.0.0.1"}, "no IP version in common"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "protocol": "tpc"}, "unknown protocol 'tpc'"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "protocol": "icmp", "port": 80}, "icmp has no ports"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "protocol": "tcp", "icmpType": 8}, "an ICMP type in tcp"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "port": 65536}, "port is not a number from 0 to 65535"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "port": "80"}, "port is not a number"),
        ({"from": 10, "to": "10.0.0.2"}, "from is not a text"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "ipVersion": 6}, "10.0.0.1 has no IPv6 address"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "conntrack": "old"}, "unknown conntrack state"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "sentTo": "10.0.0.3:x"}, "neither ADDRESS nor ADDRESS:PORT"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "destination": "x"}, "unknown field 'destination'"),
    ],
)
def test_what_is_wrong_with_a_question(question: dict[str, Any], error: str) -> None:
    with pytest.raises(QuestionError, match=error):
        answer(STATE, ExplainSettings(), HOST, question)


VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255)),
    st.integers(),
    st.none(),
    st.sampled_from(["default/a", "10.0.0.2", "host", "::1", "icmp"]),
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES))
def test_no_question_raises_anything_else(question: dict[str, Any]) -> None:
    with suppress(QuestionError):
        assert answer(STATE, ExplainSettings(), HOST, question)["verdict"] in ("allow", "deny")


def test_before_everything_was_read_the_answer_says_so() -> None:
    view = answer(DesiredState(), ExplainSettings(), HOST, {"from": "10.0.0.1", "to": "host"})
    assert "has not been read to its end" in view["notes"][0]


def test_the_defaults_of_the_configuration_are_those_of_the_explanation() -> None:
    assert explain_settings(FelixConfig()) == ExplainSettings()


def test_counts_are_summed_by_rule_and_policy() -> None:
    rule = RuleOf(policy_id("web"), "", "in", 0)
    view = statistics_view(STATE, [(rule, 3, 180), (rule, 1, 60), (RuleOf(None, "allow", "out", 0), 7, 700)])
    assert view["policies"][0]["packets"] == 4
    assert view["policies"][0]["ingress"] == [{"index": 0, "text": "allow tcp to port 80", "packets": 4, "bytes": 240}]
    assert list(statistics_lines(view, only_met=True)) == [
        "     PACKETS          BYTES  POLICY",
        "           4            240  GlobalNetworkPolicy web (tier default)",
        "           4            240    ingress 0: allow tcp to port 80",
        "           7            700  Profile allow",
        "           7            700    egress 0: allow",
    ]
