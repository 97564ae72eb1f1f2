"""Rules in iptables' words. The hashes are those that any cluster with Calico shows in `iptables-save`."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.desired import PortRange
from felix.filter_rules import (
    DNAT,
    ICMP,
    SNAT,
    Accept,
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
from felix.filter_rules import Action as RuleAction
from felix.rules.iptables_text import IptablesText, comment_text, set_name

TEXT, TEXT6 = IptablesText(4), IptablesText(6)


@pytest.mark.parametrize(
    ("hook", "known"),
    [
        ("INPUT", "Cz_u1IQiXIMmKD4c"),
        ("FORWARD", "wUHhoiAYhphO9Mso"),
        ("OUTPUT", "tVnHkvAo15HuiPy0"),
        ("PREROUTING", "6gwbT8clXdHdC1b1"),
        ("POSTROUTING", "O3lYWMrLQYEMJtB5"),
    ],
)
def test_jumps_from_hooks_have_the_hashes_of_calico(hook: str, known: str) -> None:
    rendered = TEXT.inserted(hook, [Rule((), Jump(f"cali-{hook}"))])
    assert rendered.hashes == (known,)
    assert rendered.rules == (f'-m comment --comment "cali:{known}" --jump cali-{hook}',)


def test_appended_rules_have_the_hashes_of_calico() -> None:
    accepted = Rule((Mark(0x10000, 0x10000),), Accept(), ("Policy explicitly accepted packet.",))
    rendered = TEXT.appended("FORWARD", [accepted, Rule((), SetMark(0x10000, 0x10000))])
    assert rendered.hashes == ("S93hcgKJrXEqnTfs", "mp77cMpurHhyjLrM")


CRITERIA: list[tuple[Criterion, str]] = [
    (Mark(0, 0x40000), "-m mark --mark 0/0x40000"),
    (Mark(0, 0x40000, negated=True), "-m mark ! --mark 0/0x40000"),
    (Mark(0x10000, 0x30000), "-m mark --mark 0x10000/0x30000"),
    (InInterface("cali+"), "--in-interface cali+"),
    (OutInterface("eth0", negated=True), "! --out-interface eth0"),
    (Protocol(17), "-p 17"),
    (Protocol(6, negated=True), "! -p 6"),
    (Net("source", "10.0.0.0/8"), "--source 10.0.0.0/8"),
    (Net("destination", "10.0.0.0/8", negated=True), "! --destination 10.0.0.0/8"),
    (InSet("source", "s:abc"), "-m set --match-set cali40s:abc src"),
    (InSet("destination", "s:abc", negated=True), "-m set ! --match-set cali40s:abc dst"),
    (InPortSet("destination", "n:abc"), "-m set --match-set cali40n:abc dst,dst"),
    (Ports("source", (PortRange(80, 80), PortRange(1000, 2000))), "-m multiport --source-ports 80,1000:2000"),
    (Ports("destination", (PortRange(80, 80),), negated=True), "-m multiport ! --destination-ports 80"),
    (ICMP(8), "-m icmp --icmp-type 8"),
    (ICMP(8, 0, negated=True), "-m icmp ! --icmp-type 8/0"),
    (Conntrack(frozenset({"ESTABLISHED", "RELATED"})), "-m conntrack --ctstate RELATED,ESTABLISHED"),
    (DNATted(negated=True), "-m conntrack ! --ctstate DNAT"),
    (AddressType("destination"), "-m addrtype --dst-type LOCAL"),
    (
        AddressType("source", of_out_interface=True, negated=True),
        "-m addrtype ! --src-type LOCAL --limit-iface-out",
    ),
    (ReversePathFails(), "-m rpfilter --invert --validmark"),
]
ACTIONS: list[tuple[RuleAction, str]] = [
    (Accept(), "--jump ACCEPT"),
    (Drop(), "--jump DROP"),
    (Reject(), "--jump REJECT"),
    (Reject("tcp-reset"), "--jump REJECT --reject-with tcp-reset"),
    (Return(), "--jump RETURN"),
    (Jump("cali-x"), "--jump cali-x"),
    (GoTo("cali-x"), "--goto cali-x"),
    (SetMark(0, 0x30000), "--jump MARK --set-mark 0/0x30000"),
    (SetMark(0x10000, 0x10000), "--jump MARK --set-mark 0x10000/0x10000"),
    (Log("calico-packet: "), '--jump LOG --log-prefix "calico-packet: " --log-level 5'),
    (
        Log("x: ", "5/minute", 7),
        '-m limit --limit 5/minute --limit-burst 7 --jump LOG --log-prefix "x: " --log-level 5',
    ),
    (NFLog(3, 'D|a"b\\'), '--jump NFLOG --nflog-group 3 --nflog-prefix "D|a_b_"'),
    (NoTrack(), "--jump NOTRACK"),
    (Masquerade(), "--jump MASQUERADE --random-fully"),
    (Masquerade(PortRange(1024, 4788)), "--jump MASQUERADE --to-ports 1024-4788 --random-fully"),
    (SNAT("192.0.2.1", is_fully_random=False), "--jump SNAT --to-source 192.0.2.1"),
    (SNAT("192.0.2.1", PortRange(1, 9)), "--jump SNAT --to-source 192.0.2.1:1-9 --random-fully"),
    (DNAT("10.0.0.1"), "--jump DNAT --to-destination 10.0.0.1"),
    (DNAT("10.0.0.1", 8775), "--jump DNAT --to-destination 10.0.0.1:8775"),
    (
        LimitPacketRate(100, 5, 0x80000),
        "-m limit --limit 100/sec --limit-burst 5 --jump MARK --set-mark 0x80000/0x80000",
    ),
    (
        LimitConnections(10),
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m connlimit --connlimit-above 10 --connlimit-mask 0"
        " -j REJECT --reject-with tcp-reset",
    ),
    (SetDSCP(16), "--jump DSCP --set-dscp 0x10"),
]


@pytest.mark.parametrize(("criterion", "words"), CRITERIA, ids=[words for _, words in CRITERIA])
def test_a_criterion_in_the_words_of_calico(criterion: Criterion, words: str) -> None:
    assert TEXT.criteria(Rule((criterion,))) == words


@pytest.mark.parametrize(("action", "words"), ACTIONS, ids=[words for _, words in ACTIONS])
def test_an_action_in_the_words_of_calico(action: RuleAction, words: str) -> None:
    assert TEXT.action(action) == words


def test_ipv6_has_words_of_its_own() -> None:
    assert TEXT6.criteria(Rule((ICMP(128),))) == "-m icmp6 --icmpv6-type 128"
    assert TEXT6.criteria(Rule((InSet("source", "x"),))) == "-m set --match-set cali60x src"
    assert TEXT6.action(DNAT("fd00::1", 80)) == "--jump DNAT --to-destination [fd00::1]:80"
    assert TEXT6.action(DNAT("fd00::1")) == "--jump DNAT --to-destination fd00::1"


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule((NetAnyOf("source", ("10.0.0.0/8",)),)), "NetAnyOf"),
        (Rule((), GoToByInterface("m", "in")), "GoToByInterface"),
        (Rule((Ports("source", tuple(PortRange(n, n + 1) for n in range(8))),)), "16 slots"),
        (Rule((), LimitPacketRate(20_000, 5, 1)), "10000 packets a second"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_iptables_cannot_say_is_an_error(rule: Rule, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TEXT.chain(Chain("cali-x", (rule,)))


def test_a_chain_knows_the_chains_and_sets_that_it_names() -> None:
    rules = (Rule((InSet("source", "a"), InPortSet("destination", "b")), Jump("cali-x")), Rule((), GoTo("cali-y")))
    rendered = TEXT.chain(Chain("cali-z", rules))
    assert rendered.targets == {"cali-x", "cali-y"}
    assert rendered.sets == {"cali40a", "cali40b"}


def test_a_change_changes_the_hashes_of_all_rules_after_it_and_of_none_before() -> None:
    rules = [Rule((), Jump(f"cali-{name}")) for name in "abcd"]
    before = TEXT.rules("cali-x", rules).hashes
    after = TEXT.rules("cali-x", [*rules[:2], Rule((), Drop()), rules[3]]).hashes
    assert before[:2] == after[:2]
    assert not set(before[2:]) & set(after[2:])


def test_comments_cannot_end_their_quotes() -> None:
    assert comment_text('a"b\\c\nd`$(x)') == "a_b_c_d___x_"
    assert len(comment_text("x" * 300)) == 256


evil = st.text(max_size=20) | st.sampled_from(
    ["eth0 -j ACCEPT", "a\nCOMMIT", 'a"b', "a\\", "", "a'b", "a\x00b", "a\u2028b"]
)


@given(evil, evil)
def test_nobody_says_more_in_a_rule_than_there_is_room_for(one: str, two: str) -> None:
    """Whatever the names: one line, and as many words as with harmless ones, or an error."""
    quiet = [word for rule in rules_with("x", "x") for word in shlex.split(rule)]
    try:
        loud = TEXT.chain(Chain("cali-x", tuple(rules_naming(one, two)))).rules
    except ValueError:
        return
    assert not any(character in rule for rule in loud for character in "\n\r\0")
    assert len([word for rule in loud for word in shlex.split(rule)]) == len(quiet)


def rules_with(one: str, two: str) -> tuple[str, ...]:
    return TEXT.chain(Chain("cali-x", tuple(rules_naming(one, two)))).rules


def rules_naming(one: str, two: str) -> list[Rule]:
    return [
        Rule((InInterface(one), OutInterface(two)), Jump(one), (two,)),
        Rule((Net("source", one), InSet("source", two), InPortSet("destination", one)), GoTo(two), (one, two)),
        Rule((), Log(one, "5/minute"), (two,)),
        Rule((), NFLog(1, two)),
        Rule((), DNAT(one, 80)),
        Rule((), SNAT(two, PortRange(1, 2))),
    ]


def test_names_of_sets_fit_the_kernel() -> None:
    assert set_name(4, "s:" + "x" * 40) == "cali40s:" + "x" * 23
    assert len(set_name(6, "s:" + "x" * 40)) == 31


def test_a_closed_chain_drops_all_but_what_its_failsafe_chain_accepts() -> None:
    rules = (Rule((), Jump("cali-failsafe-in")), Rule((InSet("source", "a"),), Jump("cali-pi-x")), Rule((), Accept()))
    first, last = TEXT.closed(Chain("cali-fh-eth0", rules), drops=True).rules
    assert first.endswith("--jump cali-failsafe-in")
    assert last.endswith("--jump DROP")
    assert TEXT.closed(Chain("cali-fip-dnat"), drops=False).rules == ()
