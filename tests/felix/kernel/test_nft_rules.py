"""The same rule by nft's text and by our messages: `nft list` shows no difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import pytest

from felix.desired import IPVersion, PortRange
from felix.filter_rules import (
    DNAT,
    ICMP,
    SNAT,
    Accept,
    Action,
    AddressType,
    Chain,
    Conntrack,
    Criterion,
    DNATted,
    Drop,
    GoTo,
    GoToByInterface,
    InInterface,
    InPortSet,
    InSet,
    Jump,
    LimitConnections,
    LimitPacketRate,
    Log,
    Mark,
    Masquerade,
    Net,
    NetAnyOf,
    NFLog,
    NoTrack,
    OutInterface,
    Ports,
    Protocol,
    Reject,
    Return,
    ReversePathFails,
    Rule,
    SetDSCP,
    SetMark,
)
from felix.kernel.nfnetlink import MARK_OCTETS, NftSocket
from felix.kernel.nft_expressions import Unencodable
from felix.kernel.nft_rules import RuleEncoder
from felix.nft_names import chain_name, map_name, set_name
from felix.rules.nft_text import NftText
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root

MANY = (PortRange(80, 80), PortRange(443, 443), PortRange(1000, 2000), PortRange(65000, 65535))


def rules(version: IPVersion) -> list[Rule]:
    net, other, one = (
        ("10.0.0.0/9", "192.0.2.0/24", "10.0.0.1/32") if version == 4 else ("fd00::/17", "2001:db8::/32", "fd00::1/128")
    )
    tcp = Protocol(6)
    criteria: list[tuple[Criterion, ...]] = [
        (Mark(0x10000, 0x10000),), (Mark(0, 0x30000, True),), (Mark(5, 0xFFFFFFFF),),
        (InInterface("cali+"),), (InInterface("eth0"),), (OutInterface("eth0", True),), (OutInterface("cali+", True),),
        (tcp,), (Protocol(132, True),),
        (Net("source", net),), (Net("destination", one),), (Net("destination", net, True),),
        (NetAnyOf("source", (net, other, one)),), (NetAnyOf("destination", (net, other), True),), (NetAnyOf("source", (net,)),),
        (InSet("source", "s:a"),), (InSet("destination", "s:a", True),),
        (tcp, InPortSet("destination", "n:a")), (InPortSet("source", "n:a", True),),
        (tcp, Ports("destination", (PortRange(80, 80),))), (tcp, Ports("source", (PortRange(80, 90),))),
        (tcp, Ports("source", (PortRange(80, 90),), True)), (tcp, Ports("destination", MANY)), (tcp, Ports("destination", MANY, True)),
        (Conntrack(frozenset(("RELATED", "ESTABLISHED"))),), (Conntrack(frozenset(("INVALID",))),),
        (DNATted(),), (DNATted(True),),
        (AddressType("source"),), (AddressType("destination", negated=True),),
    ]  # fmt: skip
    icmp = [(ICMP(8),), (ICMP(8, None, True),), (Protocol(1 if version == 4 else 58), ICMP(8))]
    actions: list[Action | None] = [
        Drop(), Return(), Jump("cali-x"), GoTo("cali-x"), SetMark(0x10000, 0x10000), SetMark(0, 0x30000),
        Log("calico-packet: ", "5/minute", 3), Log("calico: "), NFLog(2, "D|default/np/x|0|in", "10/second", 50),
        LimitPacketRate(100, 7, 0x80000), GoToByInterface("to", "in"), Reject(), None,
        LimitConnections(10), SetDSCP(0), SetDSCP(46), SetDSCP(63),
    ]  # fmt: skip
    found = [Rule(tuple(some), Accept(), ("a comment, with 'signs'",)) for some in [*criteria, *icmp]]
    return found + [Rule((tcp,), action) for action in actions] + [Rule((tcp,), Reject("tcp-reset"))]


def translations(version: IPVersion) -> list[Rule]:
    address, ports = "192.0.2.1" if version == 4 else "2001:db8::1", PortRange(1000, 2000)
    tcp = Protocol(6)
    actions: list[Action] = [
        Masquerade(is_fully_random=False), Masquerade(), Masquerade(ports), Masquerade(ports, is_fully_random=False),
        SNAT(address), SNAT(address, ports), SNAT(address, PortRange(7, 7), is_fully_random=False),
        DNAT(address), DNAT(address, 80),
    ]  # fmt: skip
    return [Rule((tcp,), action) for action in actions]


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


def listed(host: Namespace, version: IPVersion, chain: str) -> list[str]:
    text = host.run("nft", "-s", "list", "chain", NftText(version).family, "calico", chain)
    return [line.strip() for line in text.splitlines()[2:-2]]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("what", [rules, translations])
def test_nft_shows_our_messages_as_it_shows_its_own_text(
    host: Namespace, version: IPVersion, what: Callable[[IPVersion], list[Rule]]
) -> None:
    text, encoder = NftText(version), RuleEncoder(version, "calico")
    names = {way: chain_name("filter", f"cali-{way}") for way in ("text", "wire")}
    lines = [
        f"add table {text.table}",
        text.add_chain(chain_name("filter", "cali-x")),
        text.add_map(map_name("filter", "to")),
    ]
    lines += [text.add_chain(name) for name in names.values()]
    lines += [text.add_set(set_name(version, "s:a"), "net"), text.add_set(set_name(version, "n:a"), "ip,port")]
    chain = Chain("cali-text", tuple(what(version)))
    host.run("nft", "\n".join([*lines, *text.add_rules(names["text"], text.chain_rules("filter", chain))]))
    socket = host.call(lambda: NftSocket(version, "calico"))
    refused = socket.transaction(encoder.rules("filter", Chain("cali-wire", chain.rules)))
    assert refused == {}
    ours, theirs = listed(host, version, names["wire"]), listed(host, version, names["text"])
    # nft writes a set of one where the text has braces; the meaning is the same.
    assert len(ours) == len(theirs) == len(chain.rules)
    different = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b and "{" not in b]
    assert different == []


def test_every_criterion_and_every_action_is_among_those_shown() -> None:
    shown = [rule for version in (4, 6) for what in (rules, translations) for rule in what(version)]
    shown.append(Rule((ReversePathFails(),), NoTrack()))  # in test_raw_rules
    assert {type(one) for rule in shown for one in rule.criteria} == set(get_args(Criterion))
    assert {type(rule.action) for rule in shown} - {type(None)} == set(get_args(Action))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule((Net("source", "fd00::/8"),)), "a network of the other IP version"),
        (Rule((Net("source", "10.0.0.0/33"),)), "no network"),
        (Rule((NetAnyOf("source", ()),)), "none of no networks"),
        (Rule((NetAnyOf("source", ("10.0.0.0/8", "fd00::/8")),)), "mixed IP versions"),
        (Rule((Protocol(6), Ports("source", ()))), "none of no ports"),
        (Rule((Protocol(6), Ports("source", (PortRange(9, 1),), True))), "would match all"),
        (Rule((Protocol(6), Ports("source", (PortRange(1, 70000),)))), "no port"),
        (Rule((Protocol(256),)), "no protocol"),
        (Rule((InInterface("an-interface-of-16"),)), "longer than an interface's name can be"),
        (Rule((InInterface(""),)), "no name"),
        (Rule((InInterface("+", negated=True),)), "matches nothing, and would be left out"),
        (Rule((), SNAT("fd00::1")), "an address of the other IP version"),
        (Rule((), DNAT("nowhere")), "no address"),
        (Rule((), SetDSCP(64)), "six bits"),
        (Rule((), Log("x", "5/fortnight")), "no unit"),
        (Rule((), Log("x", "many/second")), "no number"),
    ],
)
def test_a_rule_without_a_meaning_is_an_error_that_says_which(rule: Rule, why: str) -> None:
    with pytest.raises(Unencodable, match="rule 1: "):
        RuleEncoder(4, "calico").rules("filter", Chain("cali-x", (Rule((), Accept()), rule)))


def test_rules_carry_what_they_were_made_of_whatever_was_encoded_before(host: Namespace) -> None:
    """The same rules have the same mark, and others another: also where only a set without a name differs."""
    chain = Chain("cali-x", tuple(rules(4)))
    first, second = RuleEncoder(4, "calico"), RuleEncoder(4, "calico")
    first.rules("filter", Chain("cali-y", (Rule((NetAnyOf("source", ("10.0.0.0/8", "11.0.0.0/9")),)),)))
    first.rules("filter", chain)
    second.rules("filter", chain)
    assert first.mark == second.mark
    assert len(first.mark) == MARK_OCTETS * len(chain.rules)
    marks = set()
    for nets in (("10.0.0.0/8", "11.0.0.0/9"), ("10.0.0.0/8", "11.0.0.0/10"), ("10.0.0.0/8",)):
        for negated in (False, True):
            second.rules("filter", Chain("cali-y", (Rule((NetAnyOf("source", nets, negated),)),)))
            marks.add(second.mark)
    assert len(marks) == 6
    text = NftText(4)
    host.run(
        "nft", f"add table {text.table}; {text.add_chain('filter-cali-y')}; {text.add_chain('filter-cali-nobody')}"
    )
    socket = host.call(lambda: NftSocket(4, "calico"))
    assert (
        socket.transaction(second.rules("filter", Chain("cali-y", (Rule((), Accept(), ("why",)), Rule((), Drop())))))
        == {}
    )
    assert socket.marks("filter-cali-y") == second.mark
    host.run("nft", "insert rule ip calico filter-cali-y accept")
    assert socket.marks("filter-cali-y") == bytes(MARK_OCTETS) + second.mark


def test_raw_rules(host: Namespace) -> None:
    text, encoder = NftText(4), RuleEncoder(4, "calico")
    host.run("nft", f"add table {text.table}; {text.base_chain('raw', 'PREROUTING')}")
    socket = host.call(lambda: NftSocket(4, "calico"))
    chain = Chain("PREROUTING", (Rule((), NoTrack()), Rule((ReversePathFails(),), Drop())))
    assert socket.transaction(encoder.rules("raw", chain)) == {}
    assert listed(host, 4, "raw-PREROUTING")[1:] == ["counter notrack", "fib saddr . mark . iif oif 0 counter drop"]


def test_sets_are_as_nft_makes_them(host: Namespace) -> None:
    text, encoder = NftText(4), RuleEncoder(4, "calico")
    host.run("nft", f"add table {text.table}")
    socket = host.call(lambda: NftSocket(4, "calico"))
    assert socket.transaction([encoder.new_set("nets", "net"), encoder.new_set("ports", "ip,port")]) == {}
    host.run("nft", f"add element {text.table} nets {{ 10.0.0.0/8 }}")
    host.run("nft", f"add element {text.table} ports {{ 10.0.0.1 . tcp . 80 }}")
    found = host.run("nft", "list", "ruleset")
    assert "type ipv4_addr . inet_proto . inet_service" in found
    assert "flags interval" in found


def test_a_refused_rule_is_named_by_its_place_and_none_is_done(host: Namespace) -> None:
    text, encoder = NftText(4), RuleEncoder(4, "calico")
    host.run("nft", f"add table {text.table}; {text.add_chain('filter-cali-x')}")
    socket = host.call(lambda: NftSocket(4, "calico"))
    chain = Chain("cali-x", (Rule((), Accept()), Rule((), Jump("cali-nobody")), Rule((), Drop())))
    refused = socket.transaction(encoder.rules("filter", chain))
    assert list(refused) == [1]
    assert listed(host, 4, "filter-cali-x") == []
