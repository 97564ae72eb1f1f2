"""Attribute sets made from others: what an import policy sets, and what leaves on a kind of session."""

from __future__ import annotations

from bgp.config import RouteSetting
from bgp.families import IPV4, Address, Family
from bgp.wire import as_path as path_codec
from bgp.wire.attributes import (
    AGGREGATOR,
    AS4_AGGREGATOR,
    AS4_PATH,
    AS_PATH,
    ATTRIBUTES,
    CLUSTER_LIST,
    COMMUNITIES,
    EXTENDED_COMMUNITIES,
    LARGE_COMMUNITIES,
    LOCAL_PREF,
    MED,
    NEXT_HOP,
    ORIGINATOR_ID,
    PathAttributes,
    attribute,
    split_block,
)

NO_EXPORT, NO_ADVERTISE, NO_EXPORT_SUBCONFED = b"\xff\xff\xff\x01", b"\xff\xff\xff\x02", b"\xff\xff\xff\x03"
GRACEFUL_SHUTDOWN = b"\xff\xff\x00\x00"  # RFC 8326

Values = dict[int, tuple[int, bytes]]  # code → (flags, value), in wire order


def has_community(communities: bytes, wanted: bytes) -> bool:
    return wanted in communities and any(communities[at : at + 4] == wanted for at in range(0, len(communities), 4))


def values_of(attributes: PathAttributes) -> Values:
    return {code: (flags, value) for flags, code, value in split_block(attributes.block)}


def pack(values: Values, next_hop: Address) -> PathAttributes:
    """Ascending order of type, as RFC 4271 §5 wishes."""
    seen = 0
    parts = []
    for code in sorted(values):
        flags, value = values[code]
        parts.append(attribute(flags, code, value))
        seen |= 1 << code
    return PathAttributes(b"".join(parts), next_hop, seen)


def put(values: Values, code: int, value: bytes) -> None:
    values[code] = (ATTRIBUTES[code].flags, value)


def apply_setting(values: Values, setting: RouteSetting) -> None:
    """All of a policy's changes but the next hop, which is the caller's."""
    if setting.local_pref is not None:
        put(values, LOCAL_PREF, setting.local_pref.to_bytes(4, "big"))
    if setting.remove_med:
        values.pop(MED, None)
    if setting.med is not None:
        put(values, MED, setting.med.to_bytes(4, "big"))
    if setting.remove_communities:
        for code in (COMMUNITIES, EXTENDED_COMMUNITIES, LARGE_COMMUNITIES):
            values.pop(code, None)
    add_communities(values, COMMUNITIES, setting.add_communities)
    add_communities(values, EXTENDED_COMMUNITIES, setting.add_extended_communities)
    add_communities(values, LARGE_COMMUNITIES, setting.add_large_communities)
    if setting.prepend:
        put(values, AS_PATH, path_codec.prepend(values[AS_PATH][1], setting.prepend))


def add_communities(values: Values, code: int, added: tuple[bytes, ...]) -> None:
    """Those that are not there already."""
    if not added:
        return
    flags, have = values.get(code, (ATTRIBUTES[code].flags, b""))
    size = len(added[0])
    present = {have[at : at + size] for at in range(0, len(have), size)}
    values[code] = (flags, have + b"".join(item for item in dict.fromkeys(added) if item not in present))


def imported(
    attributes: PathAttributes, setting: RouteSetting, own_address: Address, local_pref: int | None
) -> PathAttributes:
    """A received set with an import policy's setting. `local_pref` is set first, for RFC 8326; None leaves it."""
    values = values_of(attributes)
    if local_pref is not None:
        put(values, LOCAL_PREF, local_pref.to_bytes(4, "big"))
    apply_setting(values, setting)
    next_hop = attributes.next_hop
    if isinstance(setting.next_hop, bytes) and len(setting.next_hop) == len(next_hop):
        next_hop = setting.next_hop
    elif setting.next_hop == "self" and len(own_address) == len(next_hop):
        next_hop = own_address
    if NEXT_HOP in values and len(next_hop) == 4:
        put(values, NEXT_HOP, next_hop)
    return pack(values, next_hop)


def outgoing(
    attributes: PathAttributes,
    setting: RouteSetting,
    *,
    family: Family,
    next_hop: Address,
    is_ebgp: bool,
    local_asn: int,
    is_local: bool,
    default_local_pref: int,
    four_octet_asn: bool,
    graceful_shutdown: bool,
) -> tuple[bytes, Address]:
    """A best path's set as it leaves: (block, next hop for MP_REACH_NLRI or b'' if NEXT_HOP is in the block).

    RFC 4271 §5.1: own AS in front and no LOCAL_PREF to external peers, no AS and always LOCAL_PREF to internal ones; a
    neighbour's MED stays in our AS (§5.1.4).
    """
    values = values_of(attributes)
    if is_ebgp:
        for code in (LOCAL_PREF, ORIGINATOR_ID, CLUSTER_LIST):
            values.pop(code, None)
        if not is_local:
            values.pop(MED, None)
        apply_setting(values, setting)
        values.pop(LOCAL_PREF, None)
        path = path_codec.without_confederation(values[AS_PATH][1])
        put(values, AS_PATH, path_codec.prepend(path, (local_asn,)))
    else:
        if LOCAL_PREF not in values:
            put(values, LOCAL_PREF, default_local_pref.to_bytes(4, "big"))
        apply_setting(values, setting)
    if graceful_shutdown:
        add_communities(values, COMMUNITIES, (GRACEFUL_SHUTDOWN,))
    values.pop(NEXT_HOP, None)
    classic = family is IPV4 and len(next_hop) == 4
    if classic:
        put(values, NEXT_HOP, next_hop)
    if not four_octet_asn:
        _narrow(values)
    return pack(values, next_hop).block, b"" if classic else next_hop


def _narrow(values: Values) -> None:
    """RFC 6793 §4.2.2."""
    narrow, wide = path_codec.narrow(values[AS_PATH][1])
    put(values, AS_PATH, narrow)
    if wide:
        put(values, AS4_PATH, wide)
    if AGGREGATOR in values:
        flags, value = values[AGGREGATOR]
        asn = int.from_bytes(value[:4], "big")
        if asn > 0xFFFF:
            values[AGGREGATOR] = (flags, path_codec.AS_TRANS_OCTETS + value[4:])
            put(values, AS4_AGGREGATOR, value)
        else:
            values[AGGREGATOR] = (flags, value[2:])
