"""BGPFilter → rules of a policy. The order of rules and the first match are the same on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from bgp.config import PolicyRule, PrefixMatch, RouteSetting
from bgp.families import IPNetwork
from integration.bgpconfig.facts import MAX_PRIORITY, Reader, community_octets
from integration.bgpconfig.problems import Notes
from integration.resources.fields import parse_network
from integration.resources.keys import Key
from integration.resources.models.bgp import BGPFilter, FilterOperation, FilterRuleV4, FilterRuleV6

Direction = Literal["import", "export"]
DIRECTIONS: tuple[Direction, ...] = ("import", "export")
Rule = FilterRuleV4 | FilterRuleV6
OPERATORS = ("Equal", "NotEqual", "In", "NotIn")


class Unusable(Exception):
    """A rule that cannot be understood; the text says why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def filter_rules(
    key: Key, resource: BGPFilter, direction: Direction, version: int, notes: Notes
) -> tuple[PolicyRule, ...]:
    """The rules for one family and direction.

    A rule that cannot be understood rejects whatever comes to it: what it was to keep back must not pass, and the rules
    before it still hold.
    """
    name = f"{direction}V{version}"
    rules: Sequence[Rule] = getattr(resource.spec, f"{direction}_v{version}")
    reader = Reader(key, notes)
    made: list[PolicyRule] = []
    for number, rule in enumerate(rules):
        where = f"spec.{name}[{number}]"
        label = f"rule {number + 1} of {name} of BGPFilter {key.name}"
        try:
            made += one_rule(rule, version, label, reader, where)
        except Unusable as error:
            reader.note(f"{where}.{error.field}", f"{error}; what comes to this rule is rejected")
            made.append(PolicyRule(action="reject", label=f"{label}, which cannot be understood"))
            break
    return tuple(made)


def one_rule(rule: Rule, version: int, label: str, reader: Reader, where: str) -> Iterator[PolicyRule]:
    if rule.action not in ("Accept", "Reject"):
        raise Unusable("action", f"{rule.action!r} is not Accept or Reject")
    if rule.source not in ("", "RemotePeers"):
        raise Unusable("source", f"{rule.source!r} is not RemotePeers")
    if rule.peer_type not in ("", "eBGP", "iBGP"):
        raise Unusable("peerType", f"{rule.peer_type!r} is not eBGP or iBGP")
    prefixes = prefix_conditions(rule, version, reader, where)
    if prefixes is None:
        return
    yield PolicyRule(
        prefixes=prefixes,
        sources=("ebgp", "ibgp") if rule.source else (),
        interfaces=(interface_glob(rule.interface),) if rule.interface else (),
        peer_type={"eBGP": "ebgp", "iBGP": "ibgp"}.get(rule.peer_type),  # type: ignore[arg-type]
        communities=community_condition(rule),
        as_path_prefix=tuple(rule.as_path_prefix),
        local_pref=None if rule.priority is None else MAX_PRIORITY - priority("priority", rule.priority),
        action="accept" if rule.action == "Accept" else "reject",
        setting=setting_of(rule.operations) if rule.action == "Accept" else RouteSetting(),
        label=label,
    )


def interface_glob(glob: str) -> str:
    """`*` asks for an interface whatever its name; a route without one does not have it."""
    return "?*" if set(glob) == {"*"} else glob


def prefix_conditions(rule: Rule, version: int, reader: Reader, where: str) -> tuple[PrefixMatch, ...] | None:
    """None: no prefix can match."""
    if not rule.cidr and not rule.match_operator:
        return ()
    if rule.match_operator not in OPERATORS:
        reason = (
            f"{rule.match_operator!r} is not one of {', '.join(OPERATORS)}" if rule.match_operator else "is required"
        )
        raise Unusable("matchOperator", reason)
    network = read_network(rule.cidr, version)
    shortest: int = network.prefixlen
    longest: int = network.max_prefixlen
    if rule.match_operator in ("Equal", "NotEqual"):
        longest = shortest
        if rule.prefix_length is not None:
            reader.note(f"{where}.prefixLength", f"has no meaning with {rule.match_operator}; ignored")
    elif rule.prefix_length is not None:
        low, high = rule.prefix_length.min, rule.prefix_length.max
        shortest = max(shortest, low if low is not None else 0)
        longest = min(longest, high if high is not None else longest)
    negate = rule.match_operator.startswith("Not")
    if shortest > longest:
        reader.note(f"{where}.prefixLength", f"leaves no length between {shortest} and {longest}")
        return () if negate else None
    return (PrefixMatch(network=network, minimum_bits=shortest, maximum_bits=longest, negate=negate),)


def read_network(text: str, version: int) -> IPNetwork:
    try:
        return parse_network(text, version)
    except ValueError as error:
        raise Unusable("cidr", f"{text!r} {error}") from None


def community_condition(rule: Rule) -> tuple[bytes, ...]:
    if rule.communities is None:
        return ()
    if len(rule.communities.values) != 1:
        raise Unusable("communities.values", f"has {len(rule.communities.values)} values, not one")
    return (octets("communities.values[0]", rule.communities.values[0]),)


def octets(field: str, text: str) -> bytes:
    try:
        return community_octets(text)
    except ValueError as error:
        raise Unusable(field, f"{text!r} {error}") from None


def priority(field: str, value: int) -> int:
    if not 1 <= value < MAX_PRIORITY:
        raise Unusable(field, f"{value} is not between 1 and {MAX_PRIORITY - 1}")
    return value


def setting_of(operations: Sequence[FilterOperation]) -> RouteSetting:
    """The operations in their order: of several priorities the last counts, each prepended path comes in front."""
    communities: dict[bytes, None] = {}
    path: tuple[int, ...] = ()
    local_pref: int | None = None
    for at, operation in enumerate(operations):
        where = f"operations[{at}]"
        given = [operation.add_community, operation.prepend_as_path, operation.set_priority]
        if sum(one is not None for one in given) != 1:
            raise Unusable(where, "is not exactly one of addCommunity, prependASPath and setPriority")
        if operation.add_community is not None:
            communities[octets(f"{where}.addCommunity.value", operation.add_community.value)] = None
        elif operation.prepend_as_path is not None:
            path = (*operation.prepend_as_path.prefix, *path)
        elif operation.set_priority is not None and operation.set_priority.value is not None:
            local_pref = MAX_PRIORITY - priority(f"{where}.setPriority.value", operation.set_priority.value)
    return RouteSetting(
        local_pref=local_pref,
        add_communities=tuple(one for one in communities if len(one) == 4),
        add_large_communities=tuple(one for one in communities if len(one) == 12),
        prepend=path,
    )
