"""The same rule by nft's text and by our messages: `nft list` shows no difference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from felix.desired import IPVersion, PortRange
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
    GoToByInterface,
    InInterface,
    InPortSet,
    InSet,
    Jump,
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
    SetMark,
)
from felix.kernel.nfnetlink import NftSocket
from felix.kernel.nft_rules import RuleEncoder, Unencodable
from felix.rules.nft_text import NftText, chain_name, map_name, set_name
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
    ]  # fmt: skip
    found = [Rule(tuple(some), Accept(), ("a comment, with 'signs'",)) for some in [*criteria, *icmp]]
    return found + [Rule((tcp,), action) for action in actions] + [Rule((tcp,), Reject("tcp-reset"))]


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


def listed(host: Namespace, version: IPVersion, chain: str) -> list[str]:
    text = host.run("nft", "-s", "list", "chain", NftText(version).family, "calico", chain)
    return [line.strip() for line in text.splitlines()[2:-2]]


@pytest.mark.parametrize("version", [4, 6])
def test_nft_shows_our_messages_as_it_shows_its_own_text(host: Namespace, version: IPVersion) -> None:
    text, encoder = NftText(version), RuleEncoder(version, "calico")
    names = {way: chain_name("filter", f"cali-{way}") for way in ("text", "wire")}
    lines = [
        f"add table {text.table}",
        text.add_chain(chain_name("filter", "cali-x")),
        text.add_map(map_name("filter", "to")),
    ]
    lines += [text.add_chain(name) for name in names.values()]
    lines += [text.add_set(set_name(version, "s:a"), "net"), text.add_set(set_name(version, "n:a"), "ip,port")]
    chain = Chain("cali-text", tuple(rules(version)))
    host.run("nft", "\n".join([*lines, *text.add_rules(names["text"], text.chain_rules("filter", chain))]))
    socket = host.call(lambda: NftSocket(version, "calico"))
    refused = socket.transaction(encoder.rules("filter", Chain("cali-wire", chain.rules)))
    assert refused == {}
    ours, theirs = listed(host, version, names["wire"]), listed(host, version, names["text"])
    # nft writes a set of one where the text has braces; the meaning is the same.
    assert len(ours) == len(theirs) == len(chain.rules)
    different = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b and "{" not in b]
    assert different == []


def test_what_has_only_a_text_form_says_so() -> None:
    with pytest.raises(Unencodable):
        RuleEncoder(4, "calico").rules("nat", Chain("cali-x", (Rule((), Masquerade()),)))


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
