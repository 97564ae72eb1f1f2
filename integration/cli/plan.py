"""What nodes would do if resources changed: their configuration before and after, and the difference by what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bgp.config import OriginateConfig, PeerConfig, RouteSource, SpeakerConfig
from bgp.families import IPV4, IPV6, nlri_of
from bgp.policy import Verdict, compile_policy
from bgp.reconfigure import Change, differences, pair_peers
from integration.bgpconfig import Environment, NodeConfig, NodeState, Problem, Snapshot
from integration.resources.base import Model
from integration.resources.keys import Key

Action = Literal["create", "update", "delete", "unchanged", "refused"]
Told = dict[str, tuple[OriginateConfig, Verdict]]
"""Prefix → the route and what the export policy makes of it."""


@dataclass(frozen=True, slots=True)
class ResourcePlan:
    """What would become of one resource; `why` it would be refused."""

    key: Key
    action: Action
    why: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"resource": str(self.key), "action": self.action, **({"why": list(self.why)} if self.why else {})}


@dataclass(frozen=True, slots=True)
class RoutesPlan:
    """Of the node's own routes, those that a peer would hear newly, otherwise, or no more."""

    peer: str
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def delta(self) -> tuple[tuple[str, ...], ...]:
        return self.added, self.changed, self.removed


@dataclass(frozen=True, slots=True)
class Moved:
    """Prefixes that a node would originate newly, otherwise, or no more."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node; holds no configuration, for in a mesh those of all nodes fill no memory.

    `is_gone`: its Node would not exist any more; then its speaker keeps the configuration it has. `held_down`: peers
    that stay, but whose sessions would end and not come back by themselves.
    """

    node: str
    is_gone: bool = False
    peers_added: tuple[dict[str, Any], ...] = ()
    peers_removed: tuple[dict[str, Any], ...] = ()
    resets: tuple[str, ...] = ()
    held_down: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    originate: Moved = Moved()
    routes: tuple[RoutesPlan, ...] = ()
    new_problems: tuple[Problem, ...] = ()
    solved_problems: tuple[Problem, ...] = ()

    @property
    def is_quiet(self) -> bool:
        return self == NodePlan(self.node)

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "node_gone": self.is_gone,
            "peers_added": list(self.peers_added),
            "peers_removed": list(self.peers_removed),
            "sessions_reset": list(self.resets),
            "sessions_held_down": list(self.held_down),
            "changes": [
                {"peer": one.peer, "field": one.field, "old": one.old, "new": one.new, "effects": list(one.effects)}
                for one in self.changes
            ],
            "originate": {
                "added": list(self.originate.added),
                "changed": list(self.originate.changed),
                "removed": list(self.originate.removed),
            },
            "routes": [
                {"peer": one.peer, "added": list(one.added), "changed": list(one.changed), "removed": list(one.removed)}
                for one in self.routes
            ],
            "problems": {
                "new": [str(problem) for problem in self.new_problems],
                "solved": [str(problem) for problem in self.solved_problems],
            },
        }


def nodes_of(*snapshots: Snapshot) -> list[str]:
    return sorted({key.name for snapshot in snapshots for key in snapshot.by_kind["Node"]})


def copy_of(snapshot: Snapshot) -> Snapshot:
    """May be changed; the resources in it are shared."""
    made = Snapshot()
    made.by_kind = {kind: dict(held) for kind, held in snapshot.by_kind.items()}
    made.unreadable = dict(snapshot.unreadable)
    return made


def plan_node(
    node: str, snapshot: Snapshot, updates: Sequence[tuple[Key, Model | None]], environment: Environment
) -> NodePlan:
    """`updates`: what each resource would be; None: deleted. The snapshot stays as it is."""
    state = NodeState(node, environment, copy_of(snapshot))
    before = state.config()
    for key, resource in updates:
        state.apply(key, resource)
    own = Key("Node", node)
    if own not in state.snapshot.by_kind["Node"]:
        return NodePlan(node, is_gone=own in snapshot.by_kind["Node"])
    after = state.config()
    if after is before:
        return NodePlan(node)
    changes = differences(before.speaker, after.speaker)
    kept = pair_peers(before.speaker.peers, after.speaker.peers).kept
    running = [(old, new) for old, new in kept if old.shutdown is None]
    return NodePlan(
        node,
        peers_added=peers_that("added", changes, after),
        peers_removed=peers_that("removed", changes, before),
        resets=resets(changes, [new for _, new in running if new.shutdown is None]),
        held_down=tuple(new.name for _, new in running if new.shutdown is not None),
        # Peers that come and go, and what is originated, are told in detail above and below.
        changes=tuple(change for change in changes if change.field not in ("peer", "originate")),
        originate=originated(before, after),
        routes=tuple(routes(before.speaker, after.speaker)),
        new_problems=tuple(one for one in after.problems if one not in before.problems),
        solved_problems=tuple(one for one in before.problems if one not in after.problems),
    )


def peers_that(
    effect: Literal["added", "removed"], changes: Iterable[Change], config: NodeConfig
) -> tuple[dict[str, Any], ...]:
    names = {change.peer for change in changes if change.field == "peer" and effect in change.effects}
    told = (report.to_json() for report in config.peers if report.config.name in names)
    return tuple({name: peer[name] for name in ("name", "address", "port", "remote_asn", "from")} for peer in told)


def originated(before: NodeConfig, after: NodeConfig) -> Moved:
    old, new = ({str(one.network): one for one in each.speaker.originate} for each in (before, after))
    return Moved(
        tuple(prefix for prefix in new if prefix not in old),
        tuple(prefix for prefix in new if prefix in old and old[prefix] != new[prefix]),
        tuple(prefix for prefix in old if prefix not in new),
    )


def resets(changes: Iterable[Change], running: Iterable[PeerConfig]) -> tuple[str, ...]:
    """Those of the peers that run before and after, but whose session would not survive."""
    hit = {change.peer for change in changes if "reset" in change.effects}
    return tuple(peer.name for peer in running if None in hit or peer.name in hit)


@dataclass(frozen=True, slots=True)
class OwnRoute:
    """A route of the speaker's own as policies see it."""

    local_pref: int | None
    communities: bytes
    source: RouteSource = "originate"
    as_path: tuple[int, ...] = ()
    extended_communities: bytes = b""
    large_communities: bytes = b""
    next_hop: bytes = b""
    interface: str = ""


def routes(before: SpeakerConfig, after: SpeakerConfig) -> Iterator[RoutesPlan]:
    old, new = Announcing(before), Announcing(after)
    pairs = pair_peers(before.peers, after.peers)
    for had, has in (
        *((peer, None) for peer in pairs.removed),
        *((None, peer) for peer in pairs.added),
        *pairs.kept,
    ):
        was: Told = old.told(had) if had is not None else {}
        now: Told = new.told(has) if has is not None else {}
        if was == now:
            continue
        whose = has or had
        assert whose is not None
        yield RoutesPlan(
            whose.name,
            added=tuple(prefix for prefix in now if prefix not in was),
            changed=tuple(prefix for prefix in now if prefix in was and was[prefix] != now[prefix]),
            removed=tuple(prefix for prefix in was if prefix not in now),
        )


class Announcing:
    """What a speaker tells each peer of what it originates; peers with one policy are told one and the same."""

    def __init__(self, speaker: SpeakerConfig) -> None:
        self._speaker = speaker
        self._told: dict[tuple[Any, ...], Told] = {}

    def told(self, peer: PeerConfig) -> Told:
        if peer.shutdown is not None:
            return {}
        is_ebgp = peer.asn != (peer.local_asn or self._speaker.asn)
        key = (id(peer.export_policy), is_ebgp, peer.families)
        if key not in self._told:
            self._told[key] = dict(self._judged(peer, is_ebgp))
        return self._told[key]

    def _judged(self, peer: PeerConfig, is_ebgp: bool) -> Iterator[tuple[str, tuple[OriginateConfig, Verdict]]]:
        policy = compile_policy(
            peer.export_policy,
            direction="export",
            is_ebgp=is_ebgp,
            ebgp_requires_policy=self._speaker.ebgp_requires_policy,
        )
        for route in self._speaker.originate:
            family = IPV4 if route.network.version == 4 else IPV6
            if family not in peer.families:
                continue
            view = OwnRoute(route.local_pref, b"".join(route.communities))
            verdict = policy.judge(view, nlri_of(route.network), family)
            if verdict is not None:
                yield str(route.network), (route, verdict)


def would_be(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Action:
    """Of a resource as it is stored and as it would be: what people write of it is compared."""
    if before is None:
        return "create"
    return "unchanged" if written_part(before) == written_part(after) else "update"


def written_part(value: Mapping[str, Any]) -> dict[str, Any]:
    metadata = value.get("metadata") or {}
    rest = {name: part for name, part in value.items() if name not in ("metadata", "kind", "apiVersion")}
    return rest | {name: metadata.get(name) or {} for name in ("labels", "annotations")}
