"""Rules as iptables-restore reads them, each with a hash of itself and of all before it in its comment. Pure.

The hash is Calico's: by it a rule that stands in the kernel is known again, ours or Calico's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from felix.desired import IPVersion, PortRange
from felix.filter_rules import (
    DNAT,
    ICMP,
    SNAT,
    Accept,
    AddressType,
    Chain,
    Conntrack,
    DNATted,
    Drop,
    GoTo,
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
from integration.resources.names import base64url

HASH_PREFIX = "cali:"
HASH_LENGTH = 16
MAX_SET_NAME = 31
MAX_COMMENT = 256
MAX_RATE = 10_000  # packets a second, and burst: what xt_limit can count
FAILSAFES = "cali-failsafe-"
REFUSED = Rule((), Drop(), ("catbird: this chain was refused",))
_COMMENT = re.compile(r"[^\w @%+=:,./\-]", re.ASCII)
_NO_WORD = re.compile(r"[\s\x00-\x1f\x7f\"'\\]")
_NO_QUOTED = re.compile(r"[\x00-\x1f\x7f\"\\]")
FULL = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Rendered:
    """A chain's rules without `-A CHAIN`, their hashes, the chains that they lead to, and the sets (by the kernel's name)."""

    name: str
    rules: tuple[str, ...]
    hashes: tuple[str, ...]
    targets: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()


def set_name(version: IPVersion, id: str) -> str:
    return f"cali{version}0{id}"[:MAX_SET_NAME]


class IptablesText:
    """For one IP version."""

    def __init__(self, version: IPVersion) -> None:
        self.version: IPVersion = version

    def chain(self, chain: Chain) -> Rendered:
        """Raises ValueError for what iptables cannot express."""
        return self.rules(chain.name, chain.rules)

    def rules(self, name: str, rules: Sequence[Rule]) -> Rendered:
        texts, hashes, targets, sets = [], [], set(), set()
        running = hashlib.sha224(name.encode()).digest()
        for rule in rules:
            comments = "".join(f' -m comment --comment "{comment_text(one)}"' for one in rule.comments)
            body = " ".join(filter(None, [self.criteria(rule), self.action(rule.action)]))
            line = " ".join(filter(None, [f"-A {name} HASH", comments.strip(), body]))
            running = hashlib.sha224(running + line.encode()).digest()
            found = base64url(running)[:HASH_LENGTH]
            texts.append(f'-m comment --comment "{HASH_PREFIX}{found}"{comments} {body}'.rstrip())
            hashes.append(found)
            if isinstance(rule.action, Jump | GoTo):
                targets.add(rule.action.chain)
            sets |= {set_name(self.version, one.id) for one in rule.criteria if isinstance(one, InSet | InPortSet)}
        return Rendered(name, tuple(texts), tuple(hashes), frozenset(targets), frozenset(sets))

    def inserted(self, hook: str, rules: Sequence[Rule]) -> Rendered:
        """Ours at the start of one of the kernel's chains."""
        return self.rules(hook, rules)

    def appended(self, hook: str, rules: Sequence[Rule]) -> Rendered:
        """Ours at its end. Calico adds to the chain's name, so that no rule of one kind is taken for one of the other."""
        return self.rules(f"{hook}*appends*", rules)

    def closed(self, chain: Chain, drops: bool) -> Rendered:
        """In place of a chain that was refused: nobody passes, but what keeps people from locking themselves out stays."""
        kept = [
            rule
            for rule in chain.rules
            if not rule.criteria and isinstance(rule.action, Jump) and rule.action.chain.startswith(FAILSAFES)
        ]
        return self.rules(chain.name, [*kept, *([REFUSED] if drops else [])])

    def criteria(self, rule: Rule) -> str:
        return " ".join(_of(CRITERIA, one)(self, one) for one in rule.criteria)

    def action(self, action: Any) -> str:
        return "" if action is None else _of(ACTIONS, action)(self, action)

    def icmp(self, one: ICMP) -> str:
        word, option = ("icmp", "--icmp-type") if self.version == 4 else ("icmp6", "--icmpv6-type")
        code = "" if one.code is None else f"/{one.code}"
        return f"-m {word} {_not(one)}{option} {one.type}{code}"

    def in_set(self, one: InSet) -> str:
        side = "src" if one.side == "source" else "dst"
        return f"-m set {_not(one)}--match-set {word(set_name(self.version, one.id))} {side}"

    def in_port_set(self, one: InPortSet) -> str:
        side = "src" if one.side == "source" else "dst"
        return f"-m set {_not(one)}--match-set {word(set_name(self.version, one.id))} {side},{side}"

    def translated(self, address: str, ports: PortRange | None) -> str:
        if ports is None:
            return word(address)
        shown = f"[{word(address)}]" if self.version == 6 else word(address)
        return f"{shown}:{ports_text(ports, '-')}"


def _not(one: Any) -> str:
    return "! " if one.negated else ""


def _of(table: Mapping[type, Callable[[IptablesText, Any], str]], one: Any) -> Callable[[IptablesText, Any], str]:
    found = table.get(type(one))
    if found is None:
        raise ValueError(f"iptables has no {type(one).__name__}")
    return found


def comment_text(text: str) -> str:
    return _COMMENT.sub("_", text)[:MAX_COMMENT]


def quoted(text: str) -> str:
    return f'"{_NO_QUOTED.sub("_", text)}"'


def word(text: str) -> str:
    """What must not end where it stands: names and networks come from people. Raises ValueError."""
    if not text or _NO_WORD.search(text):
        raise ValueError(f"{text!r} cannot be written in a rule")
    return text


def ports_text(one: PortRange, between: str) -> str:
    return str(one.first) if one.first == one.last else f"{one.first}{between}{one.last}"


def multiport(_: IptablesText, one: Ports) -> str:
    slots = sum(1 if a == b else 2 for a, b in one.ranges)
    if slots > 15:
        raise ValueError(f"{slots} slots of ports, and iptables has 15")
    side = "source" if one.side == "source" else "destination"
    return f"-m multiport {_not(one)}--{side}-ports {','.join(ports_text(a, ':') for a in one.ranges)}"


def mark_value(value: int, mask: int) -> str:
    return f"{value:#x}/{mask:#x}" if value else f"0/{mask:#x}"


def address_type(_: IptablesText, one: AddressType) -> str:
    side = "src" if one.side == "source" else "dst"
    limit = " --limit-iface-out" if one.of_out_interface else ""
    return f"-m addrtype {_not(one)}--{side}-type LOCAL{limit}"


CRITERIA: Mapping[type, Callable[[IptablesText, Any], str]] = {
    Mark: lambda _, one: f"-m mark {_not(one)}--mark {mark_value(one.value, one.mask)}",
    InInterface: lambda _, one: f"{_not(one)}--in-interface {word(one.name)}",
    OutInterface: lambda _, one: f"{_not(one)}--out-interface {word(one.name)}",
    Protocol: lambda _, one: f"{_not(one)}-p {one.number}",
    Net: lambda _, one: f"{_not(one)}--{one.side} {word(one.cidr)}",
    InSet: IptablesText.in_set,
    InPortSet: IptablesText.in_port_set,
    Ports: multiport,
    ICMP: IptablesText.icmp,
    Conntrack: lambda _, one: f"-m conntrack {_not(one)}--ctstate {','.join(sorted(one.states, reverse=True))}",
    DNATted: lambda _, one: f"-m conntrack {_not(one)}--ctstate DNAT",
    AddressType: address_type,
    ReversePathFails: lambda _, _one: "-m rpfilter --invert --validmark",
}


def limit(rate: str, burst: int) -> str:
    return f"-m limit --limit {word(rate)} --limit-burst {burst} " if rate else ""


def random_fully(one: Masquerade | SNAT) -> str:
    return " --random-fully" if one.is_fully_random else ""


def packet_rate(_: IptablesText, one: LimitPacketRate) -> str:
    if not (0 < one.per_second <= MAX_RATE and 0 < one.burst <= MAX_RATE):
        raise ValueError(
            f"iptables counts up to {MAX_RATE} packets a second, not {one.per_second} with a burst of {one.burst}"
        )
    return f"{limit(f'{one.per_second}/sec', one.burst)}--jump MARK --set-mark {one.mark:#x}/{one.mark:#x}"


def masquerade(_: IptablesText, one: Masquerade) -> str:
    ports = f" --to-ports {ports_text(one.ports, '-')}" if one.ports else ""
    return f"--jump MASQUERADE{ports}{random_fully(one)}"


def dnat(text: IptablesText, one: DNAT) -> str:
    ports = PortRange(one.port, one.port) if one.port else None
    return f"--jump DNAT --to-destination {text.translated(one.address, ports)}"


ACTIONS: Mapping[type, Callable[[IptablesText, Any], str]] = {
    Accept: lambda _, _one: "--jump ACCEPT",
    Drop: lambda _, _one: "--jump DROP",
    Return: lambda _, _one: "--jump RETURN",
    Reject: lambda _, one: "--jump REJECT" + (f" --reject-with {one.how}" if one.how else ""),
    Jump: lambda _, one: f"--jump {word(one.chain)}",
    GoTo: lambda _, one: f"--goto {word(one.chain)}",
    SetMark: lambda _, one: f"--jump MARK --set-mark {mark_value(one.value, one.mask)}",
    Log: lambda _, one: f"{limit(one.rate, one.burst)}--jump LOG --log-prefix {quoted(one.prefix[:29])} --log-level 5",
    NFLog: lambda _, one: (
        f"{limit(one.rate, one.burst)}--jump NFLOG --nflog-group {one.group} --nflog-prefix {quoted(one.prefix)}"
    ),
    NoTrack: lambda _, _one: "--jump NOTRACK",
    Masquerade: masquerade,
    SNAT: lambda text, one: f"--jump SNAT --to-source {text.translated(one.address, one.ports)}{random_fully(one)}",
    DNAT: dnat,
    LimitPacketRate: packet_rate,
    LimitConnections: lambda _, one: (
        f"-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m connlimit --connlimit-above {one.most} --connlimit-mask 0"
        " -j REJECT --reject-with tcp-reset"
    ),
    SetDSCP: lambda _, one: f"--jump DSCP --set-dscp {one.value:#x}",
}
