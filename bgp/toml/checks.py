"""What no single value can tell: things that are there twice, contradict each other or cannot work."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from bgp.families import FAMILIES, IPAddress, IPNetwork
from bgp.toml.positions import line_of
from bgp.toml.problems import Node
from bgp.toml.sections import ReadPeer

Findings = Iterator[tuple[str | None, str]]  # the key it is about, None for the whole peer; what is wrong


def check_peer(peer: ReadPeer, speaker: dict[str, Any]) -> None:
    """Note every contradiction inside one peer. Values that could not be read are taken as not there."""
    for check in PEER_CHECKS:
        for key, text in check(peer, speaker):
            peer.node.note(text, key)


def _identity(peer: ReadPeer, _: dict[str, Any]) -> Findings:
    given = peer.node.document.content.get("defaults")
    if "asn" not in peer.known and "asn" not in peer.own and not (isinstance(given, dict) and "asn" in given):
        yield None, "asn is missing"
    if {"address", "range"} <= peer.own:
        yield "range", "address and range exclude each other"
    elif not {"address", "range"} & peer.own:
        yield None, "address (or range, for dynamic peers) is missing"


def _scope(peer: ReadPeer, _: dict[str, Any]) -> Findings:
    address: IPAddress | None = peer.known.get("address")
    network: IPNetwork | None = peer.known.get("range")
    is_link_local = any(it is not None and it.version == 6 and it.is_link_local for it in (address, network))
    if address is not None and is_link_local and "interface" not in peer.known and "interface" not in peer.own:
        yield "address", f"{address} is link-local and needs an interface"
    if "interface" in peer.own and not is_link_local and (address or network):
        yield "interface", f"scopes a link-local address, which {address or network} is not"


def _dialling(peer: ReadPeer, speaker: dict[str, Any]) -> Findings:
    if "range" in peer.own and "passive" in peer.own and peer.known.get("passive") is False:
        yield "passive", "peers of a range are always passive; allowed: true, or leave it out"
    if "range" in peer.own and "port" in peer.own:
        yield "port", "peers of a range are never dialled; leave it out"
    is_passive = "range" in peer.own or peer.known.get("passive", False)
    if is_passive and speaker.get("listen") == ():
        yield ("range" if "range" in peer.own else "passive"), "waits for connections, but speaker.listen is empty"


def _own_address(peer: ReadPeer, speaker: dict[str, Any]) -> Findings:
    address: IPAddress | None = peer.known.get("address")
    # Another port is another speaker: several may share a machine.
    if address is None or peer.known.get("port", 179) != speaker.get("port", 179):
        return
    if address in speaker.get("listen", ()):
        yield "address", f"{address} is the speaker's own, see speaker.listen"
    elif address == speaker.get("router_id"):
        yield "address", f"{address} is the speaker's own, see speaker.router_id"
    elif address == peer.known.get("source"):
        yield "address", f"{address} is the speaker's own, see source"


def _source(peer: ReadPeer, _: dict[str, Any]) -> Findings:
    other = peer.known.get("address") or peer.known.get("range")
    source = peer.known.get("source")
    if source is not None and other is not None and source.version != other.version:
        key = "source" if "source" in peer.own else None
        yield key, f"source {source} is IPv{source.version}, but the peer is IPv{other.version}"


def _hops(peer: ReadPeer, _: dict[str, Any]) -> Findings:
    if peer.known.get("multihop") is not None and peer.known.get("ttl_security") is not None:
        key = "multihop" if "multihop" in peer.own else "ttl_security" if "ttl_security" in peer.own else None
        yield key, "multihop and ttl_security exclude each other; for both say ttl_security = the number of hops"


def _timers(peer: ReadPeer, _: dict[str, Any]) -> Findings:
    hold = peer.known.get("hold_time_s", 90)
    keepalive = peer.known.get("keepalive_s")
    if keepalive is not None and hold == 0:
        yield "keepalive_s" if "keepalive_s" in peer.own else None, "keepalive_s with hold_time_s 0: none are sent"
    elif keepalive is not None and keepalive >= hold:
        key = "keepalive_s" if "keepalive_s" in peer.own else None
        yield key, f"keepalive_s {keepalive:g} is not below hold_time_s {hold}: the session would expire"
    least = peer.known.get("min_hold_time_s", 3)
    if 0 < hold < least:
        key = "min_hold_time_s" if "min_hold_time_s" in peer.own else "hold_time_s"
        yield key, f"hold_time_s {hold} is below min_hold_time_s {least}: we offer what we would refuse"


def _families(peer: ReadPeer, _: dict[str, Any]) -> Findings:
    families = peer.known.get("families", FAMILIES)
    written = peer.node.value.get("max_prefixes")
    for family in peer.known.get("max_prefixes") or {}:
        # A limit for all means those that are spoken; so do the defaults.
        if isinstance(written, dict) and family.name in written and family not in families:
            yield "max_prefixes", f"limits {family}, which is not in families"


def _client(peer: ReadPeer, speaker: dict[str, Any]) -> Findings:
    local = peer.known.get("local_asn") or speaker.get("asn")
    if peer.known.get("client") and local is not None and peer.known.get("asn", local) != local:
        key = "client" if "client" in peer.own else None
        yield key, f"client needs iBGP (RFC 4456), but the peer's AS is {peer.known['asn']} and ours {local}"


PEER_CHECKS: tuple[Callable[[ReadPeer, dict[str, Any]], Findings], ...] = (
    _identity,
    _scope,
    _dialling,
    _own_address,
    _source,
    _hops,
    _timers,
    _families,
    _client,
)


def check_peers(peers: list[ReadPeer]) -> None:
    """Note peers that are there twice, and ranges that overlap (which of them would a connection belong to?)."""
    _unique(
        ("name", ((peer.node, peer.known.get("name") if "name" in peer.own else None) for peer in peers)),
        ("address", ((peer.node, _address_key(peer)) for peer in peers)),
    )
    named = {peer.known.get("name"): peer for peer in reversed(peers) if "name" in peer.own}
    for peer in peers:
        other = named.get(peer.known.get("name"))
        if other is not None and "name" not in peer.own:
            peer.node.note(
                f"the name {peer.label}, made from its address, is that of {other.node.field} at line {_line(other.node)}"
            )
    ranges = sorted((peer for peer in peers if "range" in peer.known), key=_range_key)
    outer = ranges[0] if ranges else None
    for inner in ranges[1:]:  # by address, wider first: whatever overlaps is inside the last outer one
        if outer is None or not _overlap(outer, inner):
            outer = inner


def _overlap(outer: ReadPeer, inner: ReadPeer) -> bool:
    first, second = outer.known["range"], inner.known["range"]
    if first.version != second.version or not first.overlaps(second):
        return False
    mine, other = (inner, outer) if _line(inner.node) >= _line(outer.node) else (outer, inner)
    how = "is also that of" if first == second else f"overlaps {other.known['range']} of"
    mine.node.note(f"{mine.known['range']} {how} {other.node.field} at line {_line(other.node, 'range')}", "range")
    return True


def _range_key(peer: ReadPeer) -> tuple[int, int, int]:
    network: IPNetwork = peer.known["range"]
    return network.version, int(network.network_address), network.prefixlen


def _address_key(peer: ReadPeer) -> Hashable:
    address = peer.known.get("address")
    return None if address is None else (address, peer.known.get("interface", ""))


def check_originated(nodes: list[tuple[Node, IPNetwork]]) -> None:
    _unique(("prefix", nodes))


def _unique(*groups: tuple[str, Iterable[tuple[Node, Hashable]]]) -> None:
    for key, values in groups:
        seen: dict[Hashable, Node] = {}
        for node, value in values:
            first = seen.setdefault(value, node)
            if value is not None and first is not node:
                shown = value[0] if isinstance(value, tuple) else value
                node.note(f"{shown} is also that of {first.field} at line {_line(first, key)}", key)


def _line(node: Node, key: str | None = None) -> int:
    return line_of(node.document.lines, node.path if key is None else (*node.path, key))
