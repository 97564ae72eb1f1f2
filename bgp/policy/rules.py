"""What one rule means, one route and one rule at a time: the slow and plain reading, for explanations."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from bgp.config import Policy, PolicyRule, PrefixMatch, RouteSetting, RouteSource
from bgp.families import IPV4, IPV6, Family, IPNetwork, Nlri, address_text, network_of
from bgp.policy.communities import community_text


class RouteView(Protocol):
    """What a policy may look at. All of it belongs to the path, none of it to the prefix."""

    @property
    def as_path(self) -> tuple[int, ...]:
        """The ASes of the leading AS_SEQUENCE, nearest first; empty for a route of our own or a path that begins with a set."""

    @property
    def communities(self) -> bytes:
        """RFC 1997, 4 octets each; empty if there is none."""

    @property
    def extended_communities(self) -> bytes:
        """RFC 4360, 8 octets each."""

    @property
    def large_communities(self) -> bytes:
        """RFC 8092, 12 octets each."""

    @property
    def local_pref(self) -> int | None: ...

    @property
    def next_hop(self) -> bytes:
        """Packed: 4, 16 or 32 octets (global and link-local, RFC 2545 §3); empty if there is none."""

    @property
    def source(self) -> RouteSource: ...

    @property
    def interface(self) -> str:
        """Where packets for the route leave; empty if that is not known."""


@lru_cache(maxsize=4096)
def glob_expression(glob: str) -> re.Pattern[str]:
    """`*` is any run, `?` any one character, all else is itself: BIRD's patterns. Use `fullmatch`."""
    return re.compile(
        "".join({"*": ".*", "?": "."}.get(character) or re.escape(character) for character in glob), re.DOTALL
    )


def prefix_matches(match: PrefixMatch, family: Family, nlri: Nlri) -> bool:
    """Whether the prefix is inside the network and of an allowed length; `negate` is not looked at."""
    if not match.minimum_bits <= nlri[0] <= match.maximum_bits:
        return False
    return _is_inside(network_of(family, nlri), match.network)


def _is_inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    if inner.version != outer.version or inner.prefixlen < outer.prefixlen:
        return False
    return inner.supernet(new_prefix=outer.prefixlen) == outer


def _prefixes_hold(rule: PolicyRule, family: Family, nlri: Nlri) -> bool:
    wanted = [match for match in rule.prefixes if not match.negate]
    unwanted = [match for match in rule.prefixes if match.negate]
    if wanted and not any(prefix_matches(match, family, nlri) for match in wanted):
        return False
    return not any(prefix_matches(match, family, nlri) for match in unwanted)


def next_hop_addresses(next_hop: bytes) -> tuple[bytes, ...]:
    """A 32-octet next hop is two addresses; either may satisfy a condition."""
    if len(next_hop) == 32:
        return next_hop[:16], next_hop[16:]
    return (next_hop,) if next_hop else ()


def _next_hop_holds(networks: tuple[IPNetwork, ...], next_hop: bytes) -> bool:
    for address in next_hop_addresses(next_hop):
        family = IPV4 if len(address) == 4 else IPV6
        host = network_of(family, bytes([family.max_bits]) + address)
        if any(_is_inside(host, network) for network in networks):
            return True
    return False


def _community_holds(wanted: tuple[bytes, ...], route: RouteView) -> bool:
    carried = {4: route.communities, 8: route.extended_communities, 12: route.large_communities}
    return any(
        octets
        in (carried[len(octets)][at : at + len(octets)] for at in range(0, len(carried[len(octets)]), len(octets)))
        for octets in wanted
    )


def rule_matches(rule: PolicyRule, route: RouteView, family: Family, nlri: Nlri | None, *, is_ebgp: bool) -> bool:
    """Whether every condition holds. `nlri` None leaves the prefix conditions out."""
    conditions: list[tuple[object, Callable[[], bool]]] = [
        (rule.peer_type, lambda: rule.peer_type == ("ebgp" if is_ebgp else "ibgp")),
        (rule.sources, lambda: route.source in rule.sources),
        (rule.local_pref is not None, lambda: route.local_pref == rule.local_pref),
        (
            rule.local_pref_above is not None,
            lambda: route.local_pref is not None and route.local_pref > (rule.local_pref_above or 0),
        ),
        (rule.as_path_prefix, lambda: route.as_path[: len(rule.as_path_prefix)] == rule.as_path_prefix),
        (rule.communities, lambda: _community_holds(rule.communities, route)),
        (rule.interfaces, lambda: any(glob_expression(glob).fullmatch(route.interface) for glob in rule.interfaces)),
        (rule.next_hops, lambda: _next_hop_holds(rule.next_hops, route.next_hop)),
        (rule.prefixes and nlri is not None, lambda: _prefixes_hold(rule, family, nlri or b"\0")),
    ]
    return all(holds() for is_given, holds in conditions if is_given)


def match_text(match: PrefixMatch) -> str:
    """`is 10.0.0.0/8` for the network itself, `in 10.0.0.0/8`, `in 10.0.0.0/8 with length 16 to 24`."""
    bits, shortest, longest = match.network.prefixlen, match.minimum_bits, match.maximum_bits
    if shortest == longest == bits:
        return f"is {match.network}"
    if shortest <= bits and longest == match.network.max_prefixlen:
        return f"in {match.network}"
    return f"in {match.network} with length {max(bits, shortest)} to {longest}"


def conditions_text(rule: PolicyRule, decisive: tuple[PrefixMatch, ...] | None = None) -> str:
    """The conditions of a rule in words; `decisive` prefixes are named in place of a whole list."""
    prefixes = rule.prefixes if decisive is None else decisive
    wanted = " or ".join(match_text(match) for match in prefixes if not match.negate)
    unwanted = " or ".join(match_text(match) for match in prefixes if match.negate)
    words = [f"prefix {wanted}"] if wanted else []
    if unwanted:
        words.append(f"not prefix {unwanted}")
    if rule.as_path_prefix:
        words.append("AS path begins with " + " ".join(map(str, rule.as_path_prefix)))
    if rule.communities:
        words.append("community " + " or ".join(map(community_text, rule.communities)))
    if rule.sources:
        words.append("source " + " or ".join(rule.sources))
    if rule.next_hops:
        words.append("next hop in " + " or ".join(map(str, rule.next_hops)))
    if rule.interfaces:
        words.append("interface " + " or ".join(rule.interfaces))
    if rule.local_pref is not None:
        words.append(f"local_pref {rule.local_pref}")
    if rule.local_pref_above is not None:
        words.append(f"local_pref above {rule.local_pref_above}")
    if rule.peer_type is not None:
        words.append(f"peer type {rule.peer_type}")
    return ", ".join(words) or "always"


def setting_text(setting: RouteSetting) -> str:
    """What a setting changes, in words; empty if nothing."""
    words: list[str] = []
    if setting.local_pref is not None:
        words.append(f"local_pref {setting.local_pref}")
    if setting.med is not None:
        words.append(f"med {setting.med}")
    if setting.remove_med:
        words.append("no med")
    if setting.remove_communities:
        words.append("no communities")
    added = setting.add_communities + setting.add_large_communities + setting.add_extended_communities
    if added:
        words.append("community " + " ".join(map(community_text, added)))
    if setting.prepend:
        words.append("prepend " + " ".join(map(str, setting.prepend)))
    if setting.next_hop is not None:
        mode = setting.next_hop
        words.append(f"next hop {address_text(mode) if isinstance(mode, bytes) else mode}")
    return ", ".join(words)


def rule_name(policy: Policy, number: int) -> str:
    return policy.rules[number].label or f"rule {number + 1}"


def explain_policy(
    policy: Policy, route: RouteView, family: Family, nlri: Nlri | None, *, is_ebgp: bool, subject: str
) -> str:
    """Name what decides about this route: `accepted by rule 3 of tor-import: prefix in 10.0.0.0/8`."""
    for number, rule in enumerate(policy.rules):
        if not rule_matches(rule, route, family, nlri, is_ebgp=is_ebgp):
            continue
        decisive = None
        if nlri is not None and any(not match.negate for match in rule.prefixes):
            decisive = tuple(m for m in rule.prefixes if not m.negate and prefix_matches(m, family, nlri))[:1]
        sets = setting_text(rule.setting) if rule.action == "accept" else ""
        what = f"{rule.action}ed by {rule_name(policy, number)}: {conditions_text(rule, decisive)}"
        return what + (f"; sets {sets}" if sets else "")
    count = len(policy.rules)
    tried = f": none of {count} rules matches" if count > 1 else ": its rule does not match" if count else ""
    return f"{policy.default}ed by the default of {policy.label or subject}{tried}"
