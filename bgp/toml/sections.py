"""The tables of the file, key by key, and how each becomes its part of SpeakerConfig."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, get_args

from bgp.config import (
    KernelConfig,
    LearnRule,
    MaxPrefixAction,
    NextHopMode,
    OriginateConfig,
    PeerConfig,
    PrefixLimit,
    SpeakerConfig,
    TunnelRule,
)
from bgp.families import BY_NAME, FAMILIES, Family, IPNetwork
from bgp.toml import values
from bgp.toml.policies import policy
from bgp.toml.problems import Node, Reader, Refused, read_table, shown

DEFAULT_LISTEN = (ipaddress.IPv4Address("0.0.0.0"), ipaddress.IPv6Address("::"))


def _multipath(node: Node) -> dict[str, int]:
    """A number for both, or {ebgp, ibgp}."""
    paths = values.integer(1, 1024)
    if not isinstance(node.value, dict):
        return {"ebgp": paths(node), "ibgp": paths(node)}
    return read_table(node, {"ebgp": paths, "ibgp": paths})


SPEAKER_KEYS: dict[str, Reader[Any]] = {
    "asn": values.asn,
    "router_id": values.router_id,
    "listen": values.list_of(values.listen_address, may_be_empty=True),
    "port": values.integer(1, 65535),
    "control": values.socket_path,
    "metrics": values.optional(values.host_and_port),
    "default_local_pref": values.integer(0, 0xFFFFFFFF),
    "convergence_timeout_s": values.number(0, 86400),
    "ebgp_requires_policy": values.boolean,
    "multipath": _multipath,
    "always_compare_med": values.boolean,
    "cluster_id": values.optional(values.router_id),
    "client_to_client": values.boolean,
}


def speaker(node: Node) -> dict[str, Any]:
    """[speaker] as arguments of SpeakerConfig; `asn` and `router_id` may be missing, which is noted."""
    known = read_table(node, SPEAKER_KEYS, required=("asn", "router_id"))
    known.setdefault("listen", DEFAULT_LISTEN)
    for kind, paths in known.pop("multipath", {}).items():
        known[f"multipath_{kind}"] = paths
    return known


PREFIX_LIMIT_KEYS: dict[str, Reader[Any]] = {
    "maximum": values.integer(1, 0xFFFFFFFF),
    "warn_percent": values.integer(1, 100),
    "action": values.choice(get_args(MaxPrefixAction)),
    "restart_s": values.number(0, 86400, above=True),
}


def _prefix_limit(node: Node) -> PrefixLimit:
    if not isinstance(node.value, dict):
        return PrefixLimit(maximum=PREFIX_LIMIT_KEYS["maximum"](node))
    known = read_table(node, PREFIX_LIMIT_KEYS, required=("maximum",))
    if "maximum" not in known:
        raise Refused
    return PrefixLimit(**known)


def _max_prefixes(node: Node) -> dict[Family, PrefixLimit]:
    """One limit for each family, or {ipv4 = …, ipv6 = …}."""
    if isinstance(node.value, dict) and not set(node.value) & set(PREFIX_LIMIT_KEYS):
        limits = read_table(node, dict.fromkeys(BY_NAME, _prefix_limit))
        return {BY_NAME[name]: limit for name, limit in limits.items()}
    return dict.fromkeys(FAMILIES, _prefix_limit(node))


def _unknown_attributes(node: Node) -> str | tuple[int, ...]:
    if isinstance(node.value, str):
        return str(values.choice(("pass", "drop"))(node))
    node.expect(list, '"pass", "drop" or the type codes that pass')
    return values.list_of(values.integer(1, 255), may_be_empty=True)(node)


def _shutdown(node: Node) -> str | None:
    """The reason, or just `true`. RFC 9003 has room for 255 octets."""
    if isinstance(node.value, bool):
        return "" if node.value else None
    return values.text(255, "the reason as a string, or true or false")(node)


# What makes a peer this peer; the rest of the keys may also stand in [defaults].
IDENTITY_KEYS: dict[str, Reader[Any]] = {
    "name": values.name,
    "address": values.host_address,
    "range": values.network,
    "interface": values.interface,
    "description": values.text(1024),
}

SHARED_PEER_KEYS: dict[str, Reader[Any]] = {
    "asn": values.asn,
    "port": values.integer(1, 65535),
    "passive": values.boolean,
    "local_asn": values.optional(values.asn),
    "password": values.optional(values.password),
    "password_file": values.password_file,
    "source": values.optional(values.global_address),
    "multihop": values.optional(values.integer(1, 255)),
    "ttl_security": values.optional(values.integer(1, 254)),
    "hold_time_s": values.hold_time,
    "keepalive_s": values.optional(values.number(0, 21845, above=True)),
    "connect_retry_s": values.number(0, 65535, above=True),
    "idle_hold_s": values.number(0, 3600, above=True),
    "min_hold_time_s": values.integer(3, 65535),
    "families": values.list_of(values.family),
    "next_hop": values.choice(get_args(NextHopMode)),
    "client": values.boolean,
    "import": policy,
    "export": policy,
    "max_prefixes": values.optional(_max_prefixes),
    "allowed_own_asn": values.integer(0, 255),
    "graceful_restart": values.boolean,
    "restart_time_s": values.integer(0, 4095),
    "extended_next_hop": values.boolean,
    "extended_messages": values.boolean,
    "four_octet_asn": values.boolean,
    "route_refresh": values.boolean,
    "unknown_attributes": values.optional(_unknown_attributes),
    "graceful_shutdown": values.boolean,
    "enforce_first_asn": values.boolean,
    "shutdown": _shutdown,
}
PEER_KEYS = IDENTITY_KEYS | SHARED_PEER_KEYS


@dataclass(slots=True)
class ReadPeer:
    """A [[peer]] as far as it could be read: `known` with the defaults, `own` what stands in its own table."""

    node: Node
    known: dict[str, Any]
    own: frozenset[str]

    @property
    def label(self) -> str:
        return str(self.known.get("name", ""))

    def build(self) -> PeerConfig:
        arguments = dict(self.known)
        limits = arguments.pop("max_prefixes", None) or {}
        families = arguments.get("families", FAMILIES)
        arguments["max_prefixes"] = tuple((family, limits[family]) for family in families if family in limits)
        for key, argument in (("import", "import_policy"), ("export", "export_policy")):
            if key in arguments:
                arguments[argument] = arguments.pop(key)
        return PeerConfig(**arguments)


def _shared(node: Node, readers: dict[str, Reader[Any]]) -> dict[str, Any]:
    known = read_table(node, readers)
    if "password_file" in node.value:
        if "password" in node.value:
            node.note("password and password_file exclude each other", "password_file")
        if "password_file" in known:
            known["password"] = known.pop("password_file")
    return known


def defaults(node: Node) -> dict[str, Any]:
    """[defaults]: what a [[peer]] does not say itself."""
    for key in IDENTITY_KEYS:
        if key in node.expect(dict, "a table"):
            node.note("belongs to one peer; allowed: only in [[peer]]", key)
    readers: dict[str, Reader[Any]] = SHARED_PEER_KEYS | dict.fromkeys(IDENTITY_KEYS, lambda _: None)
    return {key: value for key, value in _shared(node, readers).items() if key not in IDENTITY_KEYS}


def peer(node: Node, given: dict[str, Any]) -> ReadPeer:
    """Read one [[peer]] over the defaults. A link-local address may carry its interface: fe80::1%eth0."""
    own = _shared(node, PEER_KEYS)
    address = own.get("address")
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        if own.get("interface", address.scope_id) != address.scope_id:
            node.note(f"{shown(own['interface'])} contradicts address {address}", "interface")
        own["interface"] = address.scope_id
        own["address"] = address = ipaddress.IPv6Address(address.packed)
    if "name" not in node.value and (address or "range" in own):
        scope = f"%{own['interface']}" if own.get("interface") else ""
        own["name"] = f"{address}{scope}" if address else str(own["range"])
    return ReadPeer(node, {**given, **own}, frozenset(node.value))


ORIGINATE_KEYS: dict[str, Reader[Any]] = {
    "prefix": values.unicast_network,
    "blackhole": values.boolean,
    "communities": values.list_of(values.standard_community, may_be_empty=True),
    "med": values.integer(0, 0xFFFFFFFF),
    "local_pref": values.integer(0, 0xFFFFFFFF),
}


def originate(node: Node) -> OriginateConfig:
    known = read_table(node, ORIGINATE_KEYS, required=("prefix",))
    if "prefix" not in known:
        raise Refused
    return OriginateConfig(network=known.pop("prefix"), **known)


_protocol = values.named_number(values.PROTOCOLS, 0, 255)
_table = values.named_number(values.TABLES, 1, 0xFFFFFFFF)

LEARN_KEYS: dict[str, Reader[Any]] = {
    "protocol": _protocol,
    "interface": values.interface_glob,
    "table": _table,
    "prefix": values.network,
    "blackhole": values.boolean,
    "behind_peers": values.boolean,
    "action": values.choice(("accept", "reject")),
}


def _learn(node: Node) -> LearnRule:
    known = read_table(node, LEARN_KEYS)
    if len(known) < len(node.value):
        raise Refused
    return LearnRule(network=known.pop("prefix", None), **known)


def _ipv4_network(node: Node) -> IPNetwork:
    network = values.network(node)
    if network.version != 4:
        node.refuse(f"{network} is not allowed; allowed: an IPv4 prefix")
    return network


TUNNEL_KEYS: dict[str, Reader[Any]] = {
    "prefix": _ipv4_network,
    "interface": values.interface,
    "direct": values.optional(_ipv4_network),
}


def _tunnel(node: Node) -> TunnelRule:
    known = read_table(node, TUNNEL_KEYS, required=("prefix", "interface"))
    if not {"prefix", "interface"} <= known.keys():
        raise Refused
    return TunnelRule(network=known.pop("prefix"), **known)


def _route_protocol(node: Node) -> int:
    number = _protocol(node)
    if number <= values.PROTOCOLS["static"]:
        node.refuse(f"{shown(node.value)} is what the kernel and people use; allowed: bird (12), bgp (186) or 5 to 255")
    return number


KERNEL_KEYS: dict[str, Reader[Any]] = {
    "learn": values.list_of(_learn, may_be_empty=True),
    "program": values.boolean,
    "route_protocol": _route_protocol,
    "table": _table,
    "metric": values.integer(1, 0xFFFFFFFF),
    "preferred_source": values.list_of(values.global_address, may_be_empty=True),
    "policy": policy,
    "tunnels": values.list_of(_tunnel, may_be_empty=True),
    "priority_base": values.optional(values.integer(1, 0xFFFFFFFF)),
    "persist": values.boolean,
}


def kernel(node: Node) -> KernelConfig:
    """[kernel]. A learn rule must not take in what the speaker itself writes."""
    config = KernelConfig(**read_table(node, KERNEL_KEYS))
    for number, rule in enumerate(config.learn):
        if rule.protocol == config.route_protocol and rule.action == "accept":
            is_written = isinstance(node.value.get("learn"), list)
            where = node.child("learn").child(number) if is_written else node
            where.note(
                f"protocol {rule.protocol} is also route_protocol: the speaker would learn the routes it writes"
                + ("" if is_written else " (learn is the default)")
            )
    versions = [address.version for address in config.preferred_source]
    if len(set(versions)) < len(versions):
        node.note("two addresses of one family; allowed: at most one each", "preferred_source")
    return config


TOP_KEYS = ("speaker", "kernel", "policy", "defaults", "originate", "peer")

# Where a key has no field of its own name. For config_to_dict, documentation and the test that none is forgotten.
FIELD_OF_KEY: dict[str, dict[str, str]] = {
    "speaker": {"multipath": "multipath_ebgp"},
    "peer": {"import": "import_policy", "export": "export_policy", "password_file": "password"},
    "originate": {"prefix": "network"},
    "learn": {"prefix": "network"},
    "tunnel": {"prefix": "network"},
}

CONFIG_TYPES = {
    "speaker": (SPEAKER_KEYS, SpeakerConfig),
    "peer": (PEER_KEYS, PeerConfig),
    "originate": (ORIGINATE_KEYS, OriginateConfig),
    "kernel": (KERNEL_KEYS, KernelConfig),
    "learn": (LEARN_KEYS, LearnRule),
    "tunnel": (TUNNEL_KEYS, TunnelRule),
}
