"""[policy.NAME] tables, and what `import` and `export` may say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

from bgp.config import ACCEPT_ALL, REJECT_ALL, Policy, PolicyRule, PrefixMatch, RouteSetting, RouteSource
from bgp.families import Address
from bgp.toml import values
from bgp.toml.problems import Node, Reader, Refused, did_you_mean, read_table, shown

BUILT_IN = {"accept": ACCEPT_ALL, "reject": REJECT_ALL}
_ACTIONS = ("accept", "reject")
_NEXT_HOPS = ("auto", "self", "keep")


def _next_hop(node: Node) -> str | Address:
    value = node.expect(str, "self, keep, auto or an address")
    if value in _NEXT_HOPS:
        return value
    if not set(value) & set(".:"):
        node.refuse(f"{shown(value)} is not allowed; allowed: self, keep, auto or an address")
    return values.global_address(node).packed


def _prefix(node: Node) -> PrefixMatch:
    """`"10.0.0.0/8"` is that prefix alone; `{prefix, ge, le}` its sub-prefixes by length, as in a prefix list."""
    if not isinstance(node.value, dict):
        network = values.network(node)
        return PrefixMatch(network=network, minimum_bits=network.prefixlen, maximum_bits=network.prefixlen)
    known = read_table(node, PREFIX_KEYS, required=("prefix",))
    if len(known) < len(node.value) or "prefix" not in known:
        raise Refused
    network = known["prefix"]
    least, most = network.prefixlen, network.max_prefixlen
    shortest = known.get("ge", least)
    longest = known.get("le", most if "ge" in known else least)
    for key in ("ge", "le"):
        if key in known and not least <= known[key] <= most:
            node.child(key).refuse(f"{known[key]} is not allowed; allowed for {network}: {least} to {most}")
    if shortest > longest:
        node.refuse(f"ge {shortest} is more than le {longest}: no prefix fits")
    return PrefixMatch(network=network, minimum_bits=shortest, maximum_bits=longest)


PREFIX_KEYS: dict[str, Reader[Any]] = {
    "prefix": values.network,
    "ge": values.integer(0, 128),
    "le": values.integer(0, 128),
}

SET_KEYS: dict[str, Reader[Any]] = {
    "local_pref": values.integer(0, 0xFFFFFFFF),
    "med": values.integer(0, 0xFFFFFFFF),
    "remove_med": values.boolean,
    "communities": values.list_of(values.community),
    "remove_communities": values.boolean,
    "prepend": values.list_of(values.asn, may_repeat=True),
    "next_hop": _next_hop,
}


def _setting(node: Node) -> RouteSetting:
    known = read_table(node, SET_KEYS)
    if not node.value:
        node.refuse("an empty table changes nothing; leave the key out")
    if "med" in known and known.get("remove_med"):
        node.note("med and remove_med exclude each other", "remove_med")
    if len(known.get("prepend", ())) > 64:
        node.note(f"{len(known['prepend'])} are too many; allowed: at most 64", "prepend")
    communities: tuple[bytes, ...] = known.pop("communities", ())
    by_size = {size: tuple(octets for octets in communities if len(octets) == size) for size in (4, 8, 12)}
    return RouteSetting(
        add_communities=by_size[4], add_extended_communities=by_size[8], add_large_communities=by_size[12], **known
    )


RULE_KEYS: dict[str, Reader[Any]] = {
    "prefix": values.list_of(_prefix),
    "not_prefix": values.list_of(_prefix),
    "as_path": values.list_of(values.asn, may_repeat=True),
    "community": values.list_of(values.community),
    "source": values.list_of(values.choice(get_args(RouteSource))),
    "next_hop": values.list_of(values.address_or_network),
    "interface": values.list_of(values.interface_glob),
    "local_pref": values.integer(0, 0xFFFFFFFF),
    "local_pref_above": values.integer(0, 0xFFFFFFFF),
    "peer_type": values.choice(("ebgp", "ibgp")),
    "action": values.choice(_ACTIONS),
    "set": _setting,
}


def _rule(node: Node) -> PolicyRule:
    known = read_table(node, RULE_KEYS, required=("action",))
    if "set" in known and known.get("action") == "reject":
        node.note("a rejected route is not changed; allowed: set with action accept", "set")
    if "action" not in known:
        raise Refused
    unwanted = tuple(replace(match, negate=True) for match in known.get("not_prefix", ()))
    return PolicyRule(
        prefixes=known.get("prefix", ()) + unwanted,
        as_path_prefix=known.get("as_path", ()),
        communities=known.get("community", ()),
        sources=known.get("source", ()),
        next_hops=known.get("next_hop", ()),
        interfaces=known.get("interface", ()),
        local_pref=known.get("local_pref"),
        local_pref_above=known.get("local_pref_above"),
        peer_type=known.get("peer_type"),
        action=known["action"],
        setting=known.get("set", RouteSetting()),
    )


def _rules(node: Node) -> tuple[PolicyRule, ...]:
    node.expect(list, "an array of rules")
    return values.list_of(_rule, may_be_empty=True, may_repeat=True)(node)


POLICY_KEYS: dict[str, Reader[Any]] = {"default": values.choice(_ACTIONS), "rules": _rules}


def _policy(node: Node, label: str) -> Policy:
    """A table of `default` and `rules`."""
    known = read_table(node, POLICY_KEYS)
    if len(known) < len(node.value):
        raise Refused
    return Policy(rules=_labelled(known.get("rules", ()), label), default=known.get("default", "reject"), label=label)


def _labelled(rules: Sequence[PolicyRule], label: str) -> tuple[PolicyRule, ...]:
    return tuple(replace(rule, label=f"rule {number} of {label}") for number, rule in enumerate(rules, 1))


def read_policies(node: Node) -> None:
    """All [policy.NAME] into the document, so that peers can name them."""
    for key in node.expect(dict, "tables [policy.NAME]"):
        child = node.child(key)
        node.document.policies[key] = None
        try:
            if key in BUILT_IN:
                child.refuse(f"the name {key} has a meaning of its own; allowed: any other name")
            values.name(Node(key, child.path, child.document))
            node.document.policies[key] = _policy(child, key)
        except Refused:
            pass


def policy(node: Node) -> Policy:
    """`import` or `export`: a name, names that are tried one after the other, rules, or a whole policy in place."""
    if isinstance(node.value, str):
        return _named(node)
    if isinstance(node.value, dict):
        return _policy(node, _label_in_place(node))
    items = node.expect(list, "accept, reject, the name of a policy, names, or rules")
    if not items:
        node.refuse('an empty array decides nothing; allowed: "reject", "accept", names or rules')
    if all(isinstance(item, dict) for item in items):
        label = _label_in_place(node)
        return Policy(rules=_labelled(_rules(node), label), label=label)
    if not all(isinstance(item, str) for item in items):
        node.refuse("names and rules do not mix; allowed: only names or only rules")
    return _composed(node)


def _label_in_place(node: Node) -> str:
    """Without the peer's name: peers that are given the same rules are to share one policy."""
    return f"the peer's {node.path[-1]}"


def _named(node: Node) -> Policy:
    policies = node.document.policies
    if node.value in BUILT_IN:
        return BUILT_IN[node.value]
    if node.value not in policies:
        hint = did_you_mean(node.value, BUILT_IN | policies)
        node.refuse(f"there is no [policy.{node.value if node.value.isprintable() else '…'}]; {hint}")
    found = policies[node.value]
    if found is None:
        raise Refused
    return found


def _composed(node: Node) -> Policy:
    """The rules of all, in order; what none of them matches gets the default of the last."""
    parts = values.list_of(_named, may_repeat=True)(node)
    names: list[str] = node.value
    for at, written in enumerate(names):
        if written in BUILT_IN and at < len(names) - 1:
            node.child(at).refuse(f'"{written}" decides about all routes; allowed: only as the last')
        if written in names[:at]:
            node.child(at).refuse(f"{shown(written)} is there twice")
    key = tuple(names)
    composed = node.document.composed.get(key)
    if composed is None:  # one object for all peers that say the same: it is compared and compiled once
        rules = tuple(rule for part in parts for rule in part.rules)
        composed = Policy(rules=rules, default=parts[-1].default, label=parts[-1].label or names[-1])
        node.document.composed[key] = composed
    return composed
