"""A configuration as plain data in the file's own form, for `catbird show config`. Passwords are never in it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from bgp.config import (
    KernelConfig,
    LearnRule,
    OriginateConfig,
    PeerConfig,
    Policy,
    PolicyRule,
    PrefixLimit,
    PrefixMatch,
    RouteSetting,
    SpeakerConfig,
)
from bgp.families import Family, address_text
from bgp.policy.communities import community_text

PASSWORD_SHOWN = "***"


def config_to_dict(config: SpeakerConfig) -> dict[str, Any]:
    """All that is in force, defaults too, as dicts, lists, strings, numbers and booleans. What is None is left out.

    Written as TOML it is a file that `loads` reads back to the same configuration, but for the passwords.
    """
    tables: dict[str, Any] = {"speaker": _speaker(config)}
    if config.kernel is not None:
        tables["kernel"] = _kernel(config.kernel)
    tables["originate"] = [_originate(item) for item in config.originate]
    tables["peer"] = [_peer(peer) for peer in config.peers]
    return tables


def policy_to_dict(policy: Policy) -> str | dict[str, Any]:
    """`accept` or `reject` where that is all there is, else `default` and `rules`."""
    if not policy.rules:
        return policy.default
    return {"default": policy.default, "rules": [_rule(rule) for rule in policy.rules]}


def _plain(value: Any) -> Any:
    """A value that has a form of its own in the file."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Family):
        return value.name
    if isinstance(value, Policy):
        return policy_to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value)  # addresses and networks


def _given(record: Any, *without: str) -> dict[str, Any]:
    """The fields that are not None, under their own names."""
    pairs = ((field.name, getattr(record, field.name)) for field in fields(record) if field.name not in without)
    return {name: _plain(value) for name, value in pairs if value is not None}


def _speaker(config: SpeakerConfig) -> dict[str, Any]:
    table = _given(config, "peers", "originate", "kernel", "multipath_ebgp", "multipath_ibgp")
    table["multipath"] = {"ebgp": config.multipath_ebgp, "ibgp": config.multipath_ibgp}
    return table


def _peer(peer: PeerConfig) -> dict[str, Any]:
    unset = {"interface", "description"} - {name for name in ("interface", "description") if getattr(peer, name)}
    table = _given(peer, "password", "import_policy", "export_policy", "max_prefixes", *unset)
    if peer.range is not None:  # never dialled, always passive
        del table["port"]
        del table["passive"]
    if peer.password is not None:
        table["password"] = PASSWORD_SHOWN
    if peer.import_policy is not None:
        table["import"] = policy_to_dict(peer.import_policy)
    if peer.export_policy is not None:
        table["export"] = policy_to_dict(peer.export_policy)
    if peer.max_prefixes:
        table["max_prefixes"] = {family.name: _prefix_limit(limit) for family, limit in peer.max_prefixes}
    return table


def _prefix_limit(limit: PrefixLimit) -> dict[str, Any]:
    return _given(limit)


def _originate(item: OriginateConfig) -> dict[str, Any]:
    table = {"prefix": str(item.network), **_given(item, "network", "communities")}
    if item.communities:
        table["communities"] = [community_text(octets) for octets in item.communities]
    return table


def _kernel(kernel: KernelConfig) -> dict[str, Any]:
    tables = {"learn": [_learn(rule) for rule in kernel.learn], **_given(kernel, "learn", "tunnels")}
    if kernel.tunnels:
        tables["tunnels"] = [{"prefix": str(tunnel.network), **_given(tunnel, "network")} for tunnel in kernel.tunnels]
    return tables


def _learn(rule: LearnRule) -> dict[str, Any]:
    table = _given(rule, "network")
    if rule.network is not None:
        table["prefix"] = str(rule.network)
    return table


def _prefix(match: PrefixMatch) -> str | dict[str, Any]:
    bits = match.network.prefixlen
    if match.minimum_bits == match.maximum_bits == bits:
        return str(match.network)
    return {"prefix": str(match.network), "ge": max(bits, match.minimum_bits), "le": match.maximum_bits}


def _rule(rule: PolicyRule) -> dict[str, Any]:
    conditions: dict[str, Any] = {
        "prefix": [_prefix(match) for match in rule.prefixes if not match.negate],
        "not_prefix": [_prefix(match) for match in rule.prefixes if match.negate],
        "as_path": list(rule.as_path_prefix),
        "community": [community_text(octets) for octets in rule.communities],
        "source": list(rule.sources),
        "next_hop": [str(network) for network in rule.next_hops],
        "interface": list(rule.interfaces),
    }
    table = {key: values for key, values in conditions.items() if values}
    if rule.local_pref is not None:
        table["local_pref"] = rule.local_pref
    if rule.local_pref_above is not None:
        table["local_pref_above"] = rule.local_pref_above
    if rule.peer_type is not None:
        table["peer_type"] = rule.peer_type
    table["action"] = rule.action
    if rule.action == "accept" and (setting := _setting(rule.setting)):
        table["set"] = setting
    return table


def _setting(setting: RouteSetting) -> dict[str, Any]:
    octets = setting.add_communities + setting.add_extended_communities + setting.add_large_communities
    mode = setting.next_hop
    table: dict[str, Any] = {
        "local_pref": setting.local_pref,
        "med": setting.med,
        "remove_med": setting.remove_med or None,
        "remove_communities": setting.remove_communities or None,
        "communities": [community_text(each) for each in octets] or None,
        "prepend": list(setting.prepend) or None,
        "next_hop": address_text(mode) if isinstance(mode, bytes) else mode,
    }
    return {key: value for key, value in table.items() if value is not None}
