"""Routing rules, and the routes of a table that only rules lead to (linux/fib_rules.h)."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from felix.desired import IPVersion
from felix.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NetlinkFormatError,
    attribute,
    attributes,
    message,
    u32,
)
from felix.kernel.routes import prefix_of, text_of
from felix.kernel.rtnetlink import (
    RTN_THROW,
    RTN_UNICAST,
    RTPROT_FELIX,
    Hop,
    RouteDecoder,
    RouteEncoder,
    Via,
    dump_routes,
)
from felix.kernel.sockets import RequestSocket, steadily
from felix.ports import Failure

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
_RULE = struct.Struct("=BBBBBBBBI")  # family, bits of dst and src, tos, table, two reserved, action, flags
_PRIORITY, _MARK, _TABLE, _MASK = 6, 10, 15, 16
_TO_TABLE, _INVERT = 1, 2
BATCH = 500


@dataclass(frozen=True, slots=True)
class UnlessMarked:
    """`from all not fwmark MARK/MASK lookup TABLE`, MARK being all of MASK."""

    priority: int
    mark: int
    table: int


def rule_message(kind: int, flags: int, sequence: int, version: IPVersion, rule: UnlessMarked) -> bytes:
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    table = rule.table if rule.table < 256 else 0
    body = _RULE.pack(family, 0, 0, 0, table, 0, 0, _TO_TABLE, _INVERT)
    for attribute_kind, value in (
        (_PRIORITY, rule.priority), (_MARK, rule.mark), (_MASK, rule.mark), (_TABLE, rule.table)
    ):  # fmt: skip
        body += attribute(attribute_kind, struct.pack("=I", value))
    return message(kind, NLM_F_REQUEST | flags, sequence, body)


def dump_rules(sequence: int, version: IPVersion) -> bytes:
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    return message(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, sequence, _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def read_rule(data: bytes, start: int, end: int) -> UnlessMarked | None:
    """The body of RTM_NEWRULE; None for every other kind of rule. Raises NetlinkFormatError."""
    if end - start < _RULE.size:
        raise NetlinkFormatError("shorter than a rule's header")
    _, dst_bits, src_bits, tos, table, _, _, action, flags = _RULE.unpack_from(data, start)
    found = {_TABLE: table, _PRIORITY: 0, _MARK: 0, _MASK: 0xFFFFFFFF}
    for kind, first, last in attributes(data, start + _RULE.size, end):
        if kind in found:
            found[kind] = u32(data, first, last)
    is_one = action == _TO_TABLE and flags & _INVERT and found[_MARK] and found[_MARK] == found[_MASK]
    if not is_one or dst_bits or src_bits or tos:
        return None
    return UnlessMarked(found[_PRIORITY], found[_MARK], found[_TABLE])


class RoutedTable:
    """A routing table of ours (what carries Felix' protocol in it), and the rule that leads to it. Blocking."""

    def __init__(self, version: IPVersion, table: int, marks: int) -> None:
        """`marks`: only a rule about bits among these can be ours. Raises OSError, as every method may."""
        self._version: IPVersion = version
        self._family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self._table, self._marks = table, marks
        self._socket = RequestSocket()

    def close(self) -> None:
        self._socket.close()

    def make_rule(self, wanted: UnlessMarked | None) -> tuple[list[str], list[Failure]]:
        """None: there shall be none. What was changed, what could not be."""
        there = steadily(self._rules)
        changes: list[str] = []
        failures: list[Failure] = []
        if wanted is not None and wanted not in there:
            self._rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, wanted, changes, failures)
        elif wanted is not None:
            there.remove(wanted)
        for rule in there:
            self._rule(RTM_DELRULE, 0, rule, changes, failures)
        return changes, failures

    def _rules(self) -> list[UnlessMarked]:
        """Those that can only be ours."""
        found = []
        for data, answers in self._socket.dump(lambda sequence: dump_rules(sequence, self._version)):
            for kind, _, _, _, start, end in answers:
                rule = read_rule(data, start, end) if kind == RTM_NEWRULE else None
                if rule is not None and rule.table == self._table and rule.mark & self._marks == rule.mark:
                    found.append(rule)
        return found

    def _rule(self, kind: int, flags: int, rule: UnlessMarked, changes: list[str], failures: list[Failure]) -> None:
        text = f"rule {rule.priority}: not fwmark {rule.mark:#x} lookup {rule.table}"
        errors = self._send([lambda sequence: rule_message(kind, flags, sequence, self._version, rule)])
        if errors:
            failures.append(Failure(text, errors[0]))
        else:
            changes.append(text if kind == RTM_NEWRULE else f"no {text}")

    def make_routes(
        self, device: int, through: Iterable[str], thrown: Iterable[str]
    ) -> tuple[list[str], list[Failure]]:
        """Routes into a device, and routes that say: look elsewhere. Others' in the table are left alone."""
        wanted = dict.fromkeys(through, device) | dict.fromkeys(thrown, 0)
        there = steadily(self._routes)
        puts = [one for one, index in wanted.items() if there.get(one) != index]
        gone = [one for one in there if one not in wanted]
        encoders = {0: RouteEncoder(self._via(0)), device: RouteEncoder(self._via(device))}
        failures: list[Failure] = []
        for some in _batches(gone):
            makers = [lambda seq, to=to: encoders[0].delete(prefix_of(to)[1], seq) for to in some]
            failures += [Failure(f"route {some[at]}", text) for at, text in self._send(makers, (errno.ESRCH,)).items()]
        for some in _batches(puts):
            makers = [
                lambda seq, to=to: encoders[wanted[to]].put(prefix_of(to)[1], NLM_F_CREATE | NLM_F_REPLACE, seq)
                for to in some
            ]
            failures += [Failure(f"route {some[at]}", text) for at, text in self._send(makers).items()]
        changes = [f"route {one} in table {self._table}" for one in puts]
        return changes + [f"no route {one} in table {self._table}" for one in gone], failures

    def _via(self, device: int) -> Via:
        metric = 1024 if self._version == 6 else 0
        if not device:
            return Via(self._family, self._table, RTPROT_FELIX, RTN_THROW, metric=metric)
        return Via(self._family, self._table, RTPROT_FELIX, RTN_UNICAST, metric=metric, hops=(Hop(ifindex=device),))

    def _routes(self) -> dict[str, int]:
        """Destination → interface index, 0 where it is thrown, -1 for what we never write."""
        decoder = RouteDecoder()
        found: dict[str, int] = {}
        request = lambda sequence: dump_routes(self._family, self._table, RTPROT_FELIX, sequence)  # noqa: E731
        for data, answers in self._socket.dump(request):
            for _, _, _, _, start, end in answers:
                prefix, via = decoder.decode(data, start, end)
                if (via.table, via.protocol) == (self._table, RTPROT_FELIX):
                    is_device = via.type == RTN_UNICAST and len(via.hops) == 1 and not via.hops[0].gateway
                    index = via.hops[0].ifindex if is_device else 0 if via.type == RTN_THROW else -1
                    found[text_of(self._family, prefix)] = index
        return found

    def _send(self, makers: Sequence[Callable[[int], bytes]], ignored: Sequence[int] = ()) -> dict[int, str]:
        first = self._socket.sequences(len(makers))
        errors = self._socket.write([make(sequence) for sequence, make in enumerate(makers, start=first)], first)
        return {at: str(error) for at, error in errors.items() if error.code not in ignored}


def _batches(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[at : at + BATCH] for at in range(0, len(items), BATCH))
