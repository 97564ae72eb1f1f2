from __future__ import annotations

import pytest

from bgp.config import Policy, PolicyRule, RouteSetting
from bgp.families import IPV4, IPV6
from bgp.policy import compile_policy
from bgp.policy.communities import parse_community
from tests.bgp.policy.routes import Route, exactly, inside, nlri

TOR_IMPORT = Policy(
    label="tor-import",
    default="reject",
    rules=(
        PolicyRule(label="rule 1 of tor-import", prefixes=(exactly("0.0.0.0/0"),), action="reject"),
        PolicyRule(
            label="rule 2 of tor-import",
            prefixes=(inside("10.0.0.0/8"), inside("172.16.0.0/12", 16, 24), inside("10.9.0.0/16", negate=True)),
            communities=(parse_community("65000:1"),),
            action="accept",
            setting=RouteSetting(
                local_pref=200, add_communities=(parse_community("no-export"),), prepend=(65000, 65000)
            ),
        ),
    ),
)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("0.0.0.0/0", "rejected by rule 1 of tor-import: prefix is 0.0.0.0/0"),
        (
            "10.1.0.0/16",
            "accepted by rule 2 of tor-import: prefix in 10.0.0.0/8, community 65000:1; "
            "sets local_pref 200, community no-export, prepend 65000 65000",
        ),
        (
            "172.16.0.0/16",
            "accepted by rule 2 of tor-import: prefix in 172.16.0.0/12 with length 16 to 24, community 65000:1; "
            "sets local_pref 200, community no-export, prepend 65000 65000",
        ),
        ("10.9.1.0/24", "rejected by the default of tor-import: none of 2 rules matches"),
        ("2001:db8::/32", "rejected by the default of tor-import: none of 2 rules matches"),
    ],
)
def test_explanation_names_the_rule_that_decided(prefix: str, expected: str) -> None:
    policy = compile_policy(TOR_IMPORT, direction="import", is_ebgp=True)
    family = IPV6 if ":" in prefix else IPV4
    assert policy.explain(Route(communities=parse_community("65000:1")), nlri(prefix), family) == expected


def test_explanation_of_no_policy_says_which_rfc_stops_the_route() -> None:
    closed = compile_policy(None, direction="export", is_ebgp=True)
    assert closed.explain(Route(), nlri("10.0.0.0/8"), IPV4) == (
        "rejected by the default of eBGP without export policy (RFC 8212: nothing passes)"
    )
    open_ = compile_policy(None, direction="import", is_ebgp=False)
    assert open_.explain(Route(), nlri("10.0.0.0/8"), IPV4) == (
        "accepted by the default of iBGP without import policy (all passes)"
    )


def test_description_has_a_line_a_rule_and_the_default() -> None:
    assert compile_policy(TOR_IMPORT, direction="import", is_ebgp=True).describe() == [
        "rule 1 of tor-import: reject if prefix is 0.0.0.0/0",
        "rule 2 of tor-import: accept if prefix in 10.0.0.0/8 or in 172.16.0.0/12 with length 16 to 24, "
        "not prefix in 10.9.0.0/16, community 65000:1; "
        "sets local_pref 200, community no-export, prepend 65000 65000",
        "default of tor-import: reject",
    ]
