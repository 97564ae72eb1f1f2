"""What a new configuration changes, and what each change costs.

Two configurations are compared field by field; the tables say what has to happen for a field's new value to hold.
The point is what does not have to: a change touches the peer it belongs to and no other, and a policy never costs a
session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

from bgp.config import KernelConfig, PeerConfig, Policy, SpeakerConfig
from bgp.families import Family

Effect = Literal["live", "decision", "export", "import", "kernel", "listen", "reset", "added", "removed"]
"""From the cheapest to the dearest; see EFFECTS."""

EFFECTS: dict[Effect, str] = {
    "live": "in force at once or from its next use on",
    "decision": "best paths are chosen again",
    "export": "what is sent is evaluated again",
    "import": "what was received is evaluated again",
    "kernel": "the kernel adapter takes it over",
    "listen": "sockets are opened again",
    "reset": "sessions are reset",
    "added": "the peer is started",
    "removed": "the peer is stopped",
}

# None: compared in parts, by tables of their own.
SPEAKER_EFFECTS: dict[str, tuple[Effect, ...] | None] = {
    "asn": ("reset",),  # of all sessions: both stand in the OPEN
    "router_id": ("reset",),
    "listen": ("listen",),
    "port": ("listen",),
    "control": ("listen",),
    "metrics": ("listen",),
    "default_local_pref": ("import",),  # given to what comes from eBGP when it comes in
    "convergence_timeout_s": ("live",),
    "ebgp_requires_policy": ("import", "export"),
    "multipath_ebgp": ("decision",),
    "multipath_ibgp": ("decision",),
    "always_compare_med": ("decision",),
    "cluster_id": ("import", "export"),  # whose loops we look for, and what reflected routes carry
    "client_to_client": ("export",),
    "peers": None,
    "originate": ("live",),
    "kernel": None,
}

PEER_EFFECTS: dict[str, tuple[Effect, ...]] = {
    # A peer is the other end: its name may change, another end is another peer.
    "name": ("live",),
    "address": ("reset",),
    "range": ("reset",),
    "interface": ("reset",),
    "description": ("live",),
    # What the connection or its OPEN carries holds for the life of the session.
    "asn": ("reset",),
    "local_asn": ("reset",),
    "port": ("reset",),
    "source": ("reset",),
    "multihop": ("reset",),
    "ttl_security": ("reset",),
    "hold_time_s": ("reset",),
    "families": ("reset",),
    "client": ("reset",),
    "graceful_restart": ("reset",),
    "restart_time_s": ("reset",),
    "extended_next_hop": ("reset",),
    "extended_messages": ("reset",),
    "four_octet_asn": ("reset",),
    "route_refresh": ("reset",),
    # Checked or worked out when their OPEN came: a session that stands may stand on the old value.
    "min_hold_time_s": ("reset",),
    "keepalive_s": ("reset",),
    # Who dials, how soon and with which key: the standing session does not ask.
    "passive": ("live",),
    "password": ("live",),
    "connect_retry_s": ("live",),
    "idle_hold_s": ("live",),
    "max_prefixes": ("live",),  # counted against the new limit at once
    "shutdown": ("live",),  # stops or starts the peer by itself, with the reason sent (RFC 9003)
    # What is done to routes is done again, by route refresh inward, by comparison with what was sent outward.
    "import_policy": ("import",),
    "allowed_own_asn": ("import",),
    "unknown_attributes": ("import",),
    "enforce_first_asn": ("import",),
    "export_policy": ("export",),
    "next_hop": ("export",),
    "graceful_shutdown": ("export",),
}

KERNEL_EFFECTS: dict[str, tuple[Effect, ...]] = {
    "learn": ("kernel",),
    "program": ("kernel",),
    "route_protocol": ("kernel",),
    "table": ("kernel",),
    "metric": ("kernel",),
    "preferred_source": ("kernel",),
    "policy": ("kernel",),
    "tunnels": ("kernel",),
    "priority_base": ("kernel",),
    "persist": ("live",),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs. `old` and `new` are texts for people, never a password.

    `peer` is the name in the new configuration (in the old one if the peer is removed), None for the speaker itself,
    whose fields are called `asn`, `kernel.metric` and so on. A peer that comes or goes is a Change of field `peer`.
    """

    peer: str | None
    field: str
    old: str
    new: str
    effects: tuple[Effect, ...]

    def __str__(self) -> str:
        """`peer tor1: hold_time_s 90 → 30: sessions are reset`."""
        whose = "speaker" if self.peer is None else f"peer {self.peer}"
        what = "" if self.field == "peer" else f"{self.field} {self.old} → {self.new}: "
        return f"{whose}: {what}{' and '.join(EFFECTS[effect] for effect in self.effects)}"


@dataclass(frozen=True, slots=True)
class PeerPairs:
    """Who is who in two configurations. A peer is the same if its address (with interface) or range is."""

    added: tuple[PeerConfig, ...]
    removed: tuple[PeerConfig, ...]
    kept: tuple[tuple[PeerConfig, PeerConfig], ...]  # old, new; in the new order


def pair_peers(old: Iterable[PeerConfig], new: Iterable[PeerConfig]) -> PeerPairs:
    """Find every peer of `old` in `new`. Two peers on one address (on two ports) are told apart by port, then name."""
    left, wanted = list(old), list(new)
    # Most are the same objects where thousands are kept up to date.
    shared = {id(peer) for peer in left} & {id(peer) for peer in wanted}
    found = {at: peer for at, peer in enumerate(wanted) if id(peer) in shared}
    left = [peer for peer in left if id(peer) not in shared]
    rest = [(at, peer) for at, peer in enumerate(wanted) if at not in found]
    keys: tuple[Callable[[PeerConfig], Any], ...] = (
        lambda peer: (_other_end(peer), peer.port, peer.name),
        lambda peer: (_other_end(peer), peer.port),
        _other_end,
    )
    for key in keys:
        waiting: dict[Any, list[PeerConfig]] = {}
        for peer in left:
            waiting.setdefault(key(peer), []).append(peer)
        for at, peer in rest:
            same = waiting.get(key(peer)) if at not in found else None
            if same:
                found[at] = same.pop(0)
        left = [peer for peers in waiting.values() for peer in peers]
    return PeerPairs(
        added=tuple(peer for at, peer in enumerate(wanted) if at not in found),
        removed=tuple(left),
        kept=tuple((found[at], peer) for at, peer in enumerate(wanted) if at in found),
    )


def _other_end(peer: PeerConfig) -> tuple[object, ...]:
    return peer.address, peer.interface, peer.range


def differences(old: SpeakerConfig, new: SpeakerConfig) -> list[Change]:
    """Everything that differs: the speaker's own fields, peers that go, peers that come, then those that stay."""
    compare = _Comparison()
    changes = list(compare.differing(None, "", old, new, SPEAKER_EFFECTS))
    if old.kernel is not None and new.kernel is not None:
        changes += compare.differing(None, "kernel.", old.kernel, new.kernel, KERNEL_EFFECTS)
    elif old.kernel is not new.kernel:
        changes.append(Change(None, "kernel", _is_on(old.kernel), _is_on(new.kernel), ("kernel",)))
    pairs = pair_peers(old.peers, new.peers)
    changes += [Change(peer.name, "peer", "there", "gone", ("removed",)) for peer in pairs.removed]
    changes += [Change(peer.name, "peer", "not there", "there", ("added",)) for peer in pairs.added]
    for before, after in pairs.kept:
        if before is after:
            continue
        changes += compare.differing(after.name, "", before, after, PEER_EFFECTS)
    return changes


def _is_on(kernel: KernelConfig | None) -> str:
    return "off" if kernel is None else "on"


class _Comparison:
    """Compares field by field, and a policy that many peers share only once: it may have ten thousand rules."""

    def __init__(self) -> None:
        self._policies: dict[tuple[int, int], bool] = {}  # by identity; both configurations outlive this

    def differing(
        self, peer: str | None, prefix: str, old: Any, new: Any, effects: Mapping[str, tuple[Effect, ...] | None]
    ) -> Iterator[Change]:
        for name, effect in effects.items():
            if effect is None:
                continue
            before, after = getattr(old, name), getattr(new, name)
            if not self._is_same(before, after):
                yield Change(peer, prefix + name, *_texts(name, before, after), effect)

    def _is_same(self, before: Any, after: Any) -> bool:
        if not (isinstance(before, Policy) and isinstance(after, Policy)):
            return bool(before == after)
        key = (id(before), id(after))
        is_same = self._policies.get(key)
        if is_same is None:
            is_same = self._policies[key] = before == after
        return is_same


def _texts(name: str, before: Any, after: Any) -> tuple[str, str]:
    if name == "password":
        return "none" if before is None else "***", "none" if after is None else "*** (another)" if before else "***"
    old, new = _text(before), _text(after)
    return old, f"{new} (changed)" if old == new else new


def _text(value: Any) -> str:
    """Short and on one line; a long list is counted."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Policy):
        count = len(value.rules)
        rules = f"{count} rule{'s' if count > 1 else ''}, then {value.default}" if count else value.default
        return f"{value.label} ({rules})" if value.label else rules
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, tuple):
        if all(isinstance(item, int | Family | IPv4Address | IPv6Address) for item in value):
            return ", ".join(map(str, value)) or "none"
        return "1 entry" if len(value) == 1 else f"{len(value)} entries"
    return str(value)
