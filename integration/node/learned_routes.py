"""Which routes of other programs may be originated: learn rules over the kernel's tables. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Awaitable, Callable, Sequence

from bgp.config import KernelConfig, LearnRule
from bgp.families import IPV4, IPV6, Family, IPNetwork, Nlri
from bgp.ports import LearnedRoute
from felix.kernel.rtnetlink import AF_INET, AF_INET6, RTN_BLACKHOLE, RTN_UNICAST, Via
from felix.kernel.state import KernelState

FAMILY_OF = {AF_INET: IPV4, AF_INET6: IPV6}
Changes = dict[Family, tuple[list[tuple[Nlri, LearnedRoute]], list[Nlri]]]
_Verdicts = tuple[tuple[IPNetwork | None, LearnRule], ...]
_VERDICT_BOUND = 8192
_LOOPBACK = b"\x80" + bytes(15) + b"\1"  # ::1/128


class LearnedRoutes:
    """What was told to the listener, and what must be told to make it true again."""

    def __init__(self, config: KernelConfig, state: KernelState) -> None:
        self._state = state
        self._verdicts: dict[int, tuple[Via, _Verdicts]] = {}  # by id(), as hashing a Via costs more than all the rest
        self.told: dict[int, dict[Nlri, LearnedRoute]] = {AF_INET: {}, AF_INET6: {}}
        self._dirty: dict[int, dict[Nlri, None]] = {AF_INET: {}, AF_INET6: {}}
        self.set_rules(config)

    def set_rules(self, config: KernelConfig) -> None:
        """Other rules from now on; `look_again` makes them felt."""
        self._rules = config.learn
        self._own_protocol = config.route_protocol
        self._tables = sorted({rule.table for rule in config.learn})
        self._verdicts.clear()

    def touch(self, prefix: Nlri, via: Via) -> None:
        """A route came or went. Cheap where no rule cares, which is the rule in a table of somebody else's making."""
        if self._verdict(via) or prefix in self.told[via.family]:
            self._dirty[via.family][prefix] = None

    async def look_again(self, step: Callable[[], Awaitable[None]]) -> None:
        """Everything was read anew: touch all of it. `step` is awaited now and then, so that others get their turn."""
        self._verdicts.clear()
        for family, told in self.told.items():
            self._dirty[family].update(dict.fromkeys(told))
        for (_, number), table in self._state.tables.items():
            if number in self._tables:
                for count, prefix in enumerate(table):
                    for via in table.get(prefix):
                        self.touch(prefix, via)
                    if not count % 1024:
                        await step()

    def links_changed(self, ifindexes: frozenset[int]) -> None:
        """Names or states of links changed: what the rules say of routes on them may be otherwise."""
        if not ifindexes:
            return
        before, self._verdicts = self._verdicts, {}

        def is_concerned(via: Via) -> bool:
            if not any(hop.ifindex in ifindexes for hop in via.hops):
                return False
            known = before.get(id(via))
            return known is None or bool(known[1]) or bool(self._verdict(via))

        for (family, table), routes in self._state.tables.items():
            if table in self._tables:
                self._dirty[family].update(dict.fromkeys(routes.prefixes_where(is_concerned)))

    def take_changes(self) -> Changes:
        changes: Changes = {}
        for number, dirty in self._dirty.items():
            if not dirty:
                continue
            told = self.told[number]
            announced, withdrawn = [], []
            for prefix in dirty:
                route = self._best(number, prefix)
                if route is None:
                    if told.pop(prefix, None) is not None:
                        withdrawn.append(prefix)
                elif told.get(prefix) != route:
                    told[prefix] = route
                    announced.append((prefix, route))
            self._dirty[number] = {}
            if announced or withdrawn:
                changes[FAMILY_OF[number]] = (announced, withdrawn)
        return changes

    def _best(self, family: int, prefix: Nlri) -> LearnedRoute | None:
        """Of the routes that a rule accepts the one that the kernel prefers."""
        best: Via | None = None
        by: LearnRule | None = None
        for table in self._tables:
            for via in self._state.tables[family, table].get(prefix):
                if (best is None or via.metric < best.metric) and (rule := self._accepting(prefix, via)):
                    best, by = via, rule
        if best is None or by is None:
            return None
        hop = best.hops[0] if best.hops else None
        return LearnedRoute(
            next_hop=hop.gateway if hop else b"",
            interface=self._state.interface_name(hop.ifindex) if hop else "",
            protocol=best.protocol,
            metric=best.metric,
            behind_peers=by.behind_peers,
        )

    def _accepting(self, prefix: Nlri, via: Via) -> LearnRule | None:
        if not self._state.leads_out(via) or _never_leaves(via.family, prefix):
            return None
        for network, rule in self._verdict(via):
            if network is None or _is_inside(prefix, via.family, network):
                return rule if rule.action == "accept" else None
        return None

    def _verdict(self, via: Via) -> _Verdicts:
        """The rules that fit as far as the Via goes; what is left to ask is the prefix. Empty: never accepted."""
        found = self._verdicts.get(id(via))
        if found is None:
            if len(self._verdicts) >= _VERDICT_BOUND:
                self._verdicts.clear()
            found = self._verdicts[id(via)] = (via, self._judge(via))
        return found[1]

    def _judge(self, via: Via) -> _Verdicts:
        if via.protocol == self._own_protocol or via.type not in (RTN_UNICAST, RTN_BLACKHOLE):
            return ()
        names = [self._state.interface_name(hop.ifindex) for hop in via.hops]
        verdicts: list[tuple[IPNetwork | None, LearnRule]] = []
        for rule in self._rules:
            if _fits(rule, via, names):
                verdicts.append((rule.network, rule))
                if rule.network is None:
                    break
        return tuple(verdicts) if any(rule.action == "accept" for _, rule in verdicts) else ()


def _fits(rule: LearnRule, via: Via, names: Sequence[str]) -> bool:
    return (
        rule.table == via.table
        and rule.protocol in (None, via.protocol)
        and rule.blackhole in (None, via.type == RTN_BLACKHOLE)
        and (rule.interface is None or any(fnmatch.fnmatchcase(name, rule.interface) for name in names))
        and (rule.network is None or (rule.network.version == 4) == (via.family == AF_INET))
    )


def _is_inside(prefix: Nlri, family: int, network: IPNetwork) -> bool:
    bits = network.prefixlen
    if prefix[0] < bits:
        return False
    octets = 4 if family == AF_INET else 16
    shift = octets * 8 - bits
    address = int.from_bytes(prefix[1:].ljust(octets, b"\0"), "big")
    return address >> shift == int(network.network_address) >> shift


def _never_leaves(family: int, prefix: Nlri) -> bool:
    """Loopback, link-local and multicast destinations mean something else on every node (RFC 4291 §2.5.6, RFC 3927 §7)."""
    if prefix[0] == 0:
        return False
    if family == AF_INET:
        return prefix[0] >= 4 and (prefix[1] == 127 or prefix[1] >= 224 or prefix[1:3] == b"\xa9\xfe")
    first = prefix[1]
    if prefix == _LOOPBACK:
        return True
    return (first == 0xFF and prefix[0] >= 8) or (prefix[0] >= 10 and first == 0xFE and prefix[2] & 0xC0 == 0x80)
