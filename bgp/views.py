"""What people and programs are shown: plain dicts of plain values, made when asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from bgp.families import FAMILIES, Family, Nlri, address_text, parse_prefix, prefix_text
from bgp.policy.communities import community_text
from bgp.rib import decision
from bgp.rib.path import Path, PathView, Value, best_of, paths_of
from bgp.wire import as_path, update
from bgp.wire.attributes import Fields
from bgp.wire.update import UpdateParser

if TYPE_CHECKING:
    from bgp.neighbour import Neighbour
    from bgp.speaker import Speaker

_ORIGINS = ("IGP", "EGP", "incomplete")
_BREATH = 1000  # destinations looked at between two turns of the caller


def summary(speaker: Speaker, now: float) -> dict[str, Any]:
    neighbours = speaker.neighbours.values()
    return {
        "asn": speaker.config.asn,
        "router_id": str(speaker.config.router_id),
        "uptime_s": round(now - speaker.started_at, 3),
        "peers": len(speaker.neighbours),
        "established": sum(neighbour.peer.established is not None for neighbour in neighbours),
        "routes": {family.name: len(rib.table) for family, rib in speaker.ribs.items()},
        "update_groups": len(speaker.groups),
        "converged": speaker.is_converged,
    }


def peer(speaker: Speaker, neighbour: Neighbour, now: float) -> dict[str, Any]:
    fsm, config, source = neighbour.peer, neighbour.config, neighbour.source
    negotiated = fsm.negotiated
    error, error_at = fsm.last_error or ("", now)
    down, down_at = fsm.last_down or ("", now)
    return {
        "name": neighbour.name,
        "range_name": neighbour.range_name or None,
        "address": address_text(source.address),
        "asn": config.asn,
        "local_asn": speaker.config.asn if config.local_asn is None else config.local_asn,
        "type": "ebgp" if neighbour.is_ebgp else "ibgp",
        "dynamic": bool(neighbour.range_name),
        "description": config.description,
        "state": "Gone" if neighbour.is_gone else fsm.state.value,
        "since_s": round(now - fsm.state_since, 3),
        "router_id": address_text(source.router_id) if negotiated else None,
        "hold_time_s": negotiated.hold_time_s if negotiated else config.hold_time_s,
        "keepalive_s": negotiated.keepalive_s if negotiated else config.keepalive_s,
        "families": [family.name for family in (negotiated.families if negotiated else config.families)],
        "prefixes": {family.name: _prefixes(speaker, neighbour, family) for family in config.families},
        "flaps": fsm.flaps,
        "last_error": error or None,
        "last_error_s_ago": round(now - error_at, 3) if error else None,
        "last_down": down or None,
        "last_down_s_ago": round(now - down_at, 3) if down else None,
        "messages": {"sent": dict(fsm.messages_sent), "received": dict(fsm.messages_received)},
        "malformed": fsm.malformed_count,
        "dropped_attributes": neighbour.dropped_attributes + _dropped(neighbour),
        "shutdown": fsm.shutdown_reason,
        "next_retry_s": _next_retry_s(neighbour, now),
    }


def _prefixes(speaker: Speaker, neighbour: Neighbour, family: Family) -> dict[str, int]:
    source, rib = neighbour.source, speaker.ribs[family]
    stale = 0
    if source.epoch and neighbour.stale_until != math.inf:
        stale = sum(len(run) for path, run in rib.of_source(source) if path.is_stale)
    return {
        "received": source.received(family),
        "accepted": source.accepted[family],
        "rejected": len(source.rejected[family]),
        "sent": _sent_count(speaker, neighbour, family),
        "stale": stale,
    }


def _sent_count(speaker: Speaker, neighbour: Neighbour, family: Family) -> int:
    """Counted, not kept: the Adj-RIB-Out is a function of the table. One count serves all members of a group."""
    group = neighbour.group
    if group is None or family not in group.rules.families:
        return 0
    rib = speaker.ribs[family]
    version, counts = group.told_counts.get(family, (-1, {}))
    if version != rib.version:
        counts = group.count_told(family, rib)
        group.told_counts[family] = (rib.version, counts)
    return sum(counts.values()) - counts.get(neighbour.source, 0)


def _dropped(neighbour: Neighbour) -> int:
    session = neighbour.peer.established
    parser = session.parser if session else None
    return parser.dropped_attributes if isinstance(parser, UpdateParser) else 0


def _next_retry_s(neighbour: Neighbour, now: float) -> float | None:
    if neighbour.peer.established is not None:
        return None
    timers = neighbour.peer.timers()
    at = [timers[name] for name in ("idle_hold", "connect_retry") if name in timers]
    return round(max(0.0, min(at) - now), 3) if at else None


def peer_in_detail(speaker: Speaker, neighbour: Neighbour, now: float) -> dict[str, Any]:
    fsm = neighbour.peer
    negotiated, session = fsm.negotiated, fsm.established
    return peer(speaker, neighbour, now) | {
        "capabilities": list(negotiated.peer_capabilities) if negotiated else [],
        "mismatches": list(negotiated.mismatches) if negotiated else [],
        "timers": {name: round(at - now, 3) for name, at in fsm.timers().items()},
        "local_address": address_text(session.local_address) if session else None,
        "remote_address": address_text(session.remote_address) if session else None,
        "import_policy": neighbour.import_policy.describe(),
        "export_policy": neighbour.export_policy.describe(),
        "waits_for_end_of_rib": sorted(family.name for family in neighbour.awaited),
        "stale_for_s": None if neighbour.stale_until == math.inf else round(neighbour.stale_until - now, 3),
        "malformed_messages": [
            {
                "s_ago": round(now - m.at, 3),
                "verdict": m.answer,
                "text": m.text,
                "octets": m.octets,
                "hex": m.message.hex(),
            }
            for m in fsm.malformed_messages
        ],
    }


# --- routes ----------------------------------------------------------------------------------------------------------


def routes(
    speaker: Speaker, prefix: str | None, family: Family | None, peer: str | None, which: str, longest: bool
) -> Iterator[dict[str, Any] | None]:
    if prefix is not None:
        kind, nlri = parse_prefix(prefix)
        found = _longest(speaker, kind, nlri) if longest else nlri
        if found is not None:
            view = _destination(speaker, kind, found, peer, which)
            if view is not None:
                yield view
        return
    for kind in FAMILIES if family is None else (family,):
        sources: list[Iterable[Nlri]] = [speaker.ribs[kind].table]
        if peer is not None and which in ("received", "all"):
            sources.append(speaker.named(peer).source.rejected[kind])
        elif which == "all":
            sources.extend(neighbour.source.rejected[kind] for neighbour in speaker.neighbours.values())
        names = list(chain.from_iterable(sources))
        for number, name in enumerate(_in_order(names)):
            view = None if name is None else _destination(speaker, kind, name, peer, which)
            if view is not None or name is None or number % _BREATH == 0:
                yield view


def _in_order(names: list[Nlri], octets: int = 1) -> Iterator[Nlri | None]:
    """Each prefix once, by address and then length. None is a breath: a million sorted at once would take 2 s."""
    yield None
    if len(names) <= 10 * _BREATH or octets > 16:
        yield from sorted(set(names), key=lambda nlri: (nlri[1:], nlri[0]))
        return
    parts: dict[bytes, list[Nlri]] = {}
    for start in range(0, len(names), 10 * _BREATH):
        for nlri in names[start : start + 10 * _BREATH]:
            parts.setdefault(nlri[1 : 1 + octets], []).append(nlri)
        yield None
    for first in sorted(parts):
        yield from _in_order(parts.pop(first), octets + 1)


def _longest(speaker: Speaker, family: Family, nlri: Nlri) -> Nlri | None:
    table = speaker.ribs[family].table
    address = int.from_bytes(nlri[1:].ljust(family.address_octets, b"\0"), "big")
    for bits in range(nlri[0], -1, -1):
        masked = address >> (family.max_bits - bits) << (family.max_bits - bits)
        candidate = bytes([bits]) + masked.to_bytes(family.address_octets, "big")[: (bits + 7) // 8]
        if candidate in table:
            return candidate
    return None


def _destination(speaker: Speaker, family: Family, nlri: Nlri, peer: str | None, which: str) -> dict[str, Any] | None:
    value = speaker.ribs[family].table.get(nlri)
    if which == "sent" and peer is not None:
        return _sent(speaker, speaker.named(peer), family, nlri, value)
    paths = paths_of(value)
    reasons = decision.explain(paths, speaker.config.always_compare_med) if paths else {}
    refused = [
        neighbour.source.rejected[family][nlri]
        for neighbour in speaker.neighbours.values()
        if nlri in neighbour.source.rejected[family]
    ]
    best = best_of(value)
    shown = [*paths, *refused]
    if which == "best":
        shown = [best] if best is not None else []
    if peer is not None:
        shown = [path for path in shown if path.source is speaker.named(peer).source]
    if not shown:
        return None
    sharing = speaker.multipath(paths) if len(paths) > 1 and best is not None else ()
    return {
        "prefix": prefix_text(family, nlri),
        "family": family.name,
        "best": next((at for at, path in enumerate(shown) if path is best), None),
        "paths": [
            _path(speaker, path, family, nlri, _state(path, best, sharing), reasons.get(id(path), path.rejected))
            for path in shown
        ],
        "fib": None,
    }


def _state(path: Path, best: Path | None, sharing: tuple[Path, ...]) -> str:
    if path.rejected:
        return "rejected"
    if path is best:
        return "best"
    if not path.hop.reachable:
        return "unreachable"
    return "multipath" if path in sharing else "candidate"


def _path(speaker: Speaker, path: Path, family: Family, nlri: Nlri, state: str, reason: str) -> dict[str, Any]:
    if path.rejected == "import policy":
        neighbour = speaker.neighbours.get(path.source.name)
        if neighbour is not None:
            reason = neighbour.import_policy.explain(PathView(path), nlri, family)
    return {
        "peer": path.source.name,
        "source": path.source.kind,
        "state": state,
        "stale": path.is_stale,
        "reason": reason,
        "interface": path.local_interface or path.hop.resolution.interface,
        "metric": path.hop.resolution.metric,
        "router_id": address_text(path.source.router_id) if path.source.router_id else None,
    } | _attributes(path.attributes.fields, path.attributes.next_hop)


def _attributes(fields: Fields, next_hop: bytes) -> dict[str, Any]:
    clusters = fields.cluster_list
    return {
        "next_hop": address_text(next_hop) if next_hop else None,
        "as_path": as_path.text(fields.as_path),
        "origin": _ORIGINS[fields.origin],
        "med": fields.med,
        "local_pref": fields.local_pref,
        "communities": _communities(fields.communities, 4),
        "large_communities": _communities(fields.large_communities, 12),
        "extended_communities": _communities(fields.extended_communities, 8),
        "originator_id": address_text(fields.originator_id) if fields.originator_id else None,
        "cluster_list": [address_text(clusters[at : at + 4]) for at in range(0, len(clusters), 4)],
        "unknown_attributes": [
            {"code": code, "flags": flags, "hex": value.hex()} for flags, code, value in fields.others
        ],
    }


def _communities(data: bytes, size: int) -> list[str]:
    return [community_text(data[at : at + size]) for at in range(0, len(data), size)]


def _sent(
    speaker: Speaker, neighbour: Neighbour, family: Family, nlri: Nlri, value: Value | None
) -> dict[str, Any] | None:
    """The route as this peer was told it."""
    best, group = best_of(value), neighbour.group
    if best is None or group is None or best.source is neighbour.source:
        return None
    block = group.parts(family, best, [nlri])[0][0]
    if block is None:
        return None
    attributes, next_hop = update.told(*block)
    made = Fields(attributes) if group.rules.four_octet_asn else best.attributes.fields
    path = _path(speaker, best, family, nlri, "best", "") | _attributes(made, next_hop)
    return {"prefix": prefix_text(family, nlri), "family": family.name, "best": 0, "paths": [path], "fib": None}


def cluster_id(speaker: Speaker) -> bytes:
    """Whose presence in a CLUSTER_LIST is a loop."""
    return speaker.reflection.cluster_id if speaker.reflection else speaker.config.router_id.packed
