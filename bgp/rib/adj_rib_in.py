"""What one session announces, on its way into the Loc-RIB: loop checks, RFC 8326, import policy.

The paths themselves stand in the Loc-RIB's table (one copy of truth); refused ones in `Source.rejected`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bgp.config import RouteSetting
from bgp.families import Address, Family, Nlri
from bgp.policy.compiled import EMPTY_SETTING, CompiledPolicy
from bgp.rib import rewrite
from bgp.rib.loc_rib import LocRib
from bgp.rib.path import HopState, Path, PathView, Source
from bgp.wire import as_path
from bgp.wire.attributes import ORIGINATOR_ID, PathAttributes
from bgp.wire.update import ANNOUNCE, END_OF_RIB, WITHDRAW

_GRACEFUL_SHUTDOWN = rewrite.GRACEFUL_SHUTDOWN


class AdjRibIn:
    """`own_asns`, `cluster_id`: those that make a loop. `track`: next hop → its state."""

    def __init__(
        self,
        source: Source,
        policy: CompiledPolicy,
        ribs: dict[Family, LocRib],
        *,
        own_asns: tuple[int, ...],
        allowed_own_asn: int,
        router_id: bytes,
        cluster_id: bytes,
        own_address: Address,
        track: Callable[[Address], HopState],
    ) -> None:
        self.source = source
        self._is_ebgp = source.kind == "ebgp"
        self.policy = policy
        self._ribs = ribs
        self._own_asns = [(asn, asn.to_bytes(4, "big")) for asn in own_asns]
        self.allowed_own_asn = allowed_own_asn
        self._router_id = router_id
        self.cluster_id = cluster_id
        self._own_address = own_address
        self._track = track

    def take(self, changes: list[Any], end_of_rib: Callable[[Family], None]) -> None:
        """Route changes of bgp.wire.update, in wire order."""
        ribs = self._ribs
        for kind, family, nlris, attributes in changes:
            if kind == ANNOUNCE:
                path = attributes.imported
                if path is None and self.policy.accepts_all:
                    path = attributes.imported = self._candidate(attributes)
                if type(path) is not Path or path.rejected:
                    self._announce(family, nlris, attributes)
                else:
                    ribs[family].announce(path, nlris)
            elif kind == WITHDRAW:
                ribs[family].withdraw(self.source, nlris)
            elif kind == END_OF_RIB:
                end_of_rib(family)

    def _announce(self, family: Family, nlris: list[Nlri], attributes: PathAttributes) -> None:
        rib = self._ribs[family]
        for path, run in self.sort(family, nlris, attributes):
            if path.rejected:
                rib.reject(path, run)
            else:
                rib.announce(path, run)

    def sort(self, family: Family, nlris: list[Nlri], attributes: PathAttributes) -> list[tuple[Path, list[Nlri]]]:
        """The paths that import makes of a set, with their prefixes."""
        policy = self.policy
        known = attributes.imported
        if isinstance(known, Path):
            return [(known, nlris)]
        if known is None:
            candidate = self._candidate(attributes)
            known = attributes.imported = {}
            if candidate.rejected or policy.accepts_all:
                attributes.imported = candidate
                return [(candidate, nlris)]
            if not policy.needs_prefix:
                path = (
                    candidate
                    if candidate.rejected
                    else self._judged(candidate, policy.judge(PathView(candidate), None, family))
                )
                attributes.imported = path
                return [(path, nlris)]
            known[""] = candidate
        candidate = known[""]
        found = []
        for verdict, run in policy.judge_all(PathView(candidate), family, nlris):
            path = known.get(verdict)
            if path is None:
                path = known[verdict] = self._judged(candidate, verdict)
            found.append((path, run))
        return found

    def _candidate(self, attributes: PathAttributes) -> Path:
        source, block = self.source, attributes.block
        hop = self._track(attributes.next_hop)
        why = "the next hop is one of our own addresses" if hop.is_own else ""  # RFC 4271 §6.3
        for asn, octets in self._own_asns:
            if octets in block:  # in C; the exact count is for those few
                why = self._as_loop(attributes, asn) or why
        if not self._is_ebgp:
            if not attributes.reflect_at and attributes.seen >> ORIGINATOR_ID & 3:
                why = self._reflection_loop(attributes) or why
        elif _GRACEFUL_SHUTDOWN in block and rewrite.has_community(attributes.fields.communities, _GRACEFUL_SHUTDOWN):
            lowered = rewrite.imported(attributes, EMPTY_SETTING, b"", 0)  # RFC 8326 §4.3
            return Path(source, lowered, hop, attributes, why)
        return Path(source, attributes, hop, attributes, why)

    def _as_loop(self, attributes: PathAttributes, asn: int) -> str:
        """RFC 4271 §9.1.2."""
        count = as_path.occurrences(attributes.fields.as_path, asn)
        return f"AS loop: own AS {asn} is in the path" if count > self.allowed_own_asn else ""

    def _reflection_loop(self, attributes: PathAttributes) -> str:
        """RFC 4456 §8."""
        if attributes.fields.originator_id == self._router_id:
            return "ORIGINATOR_ID is our own (RFC 4456 §8)"
        clusters = attributes.fields.cluster_list
        if any(clusters[at : at + 4] == self.cluster_id for at in range(0, len(clusters), 4)):
            return "own cluster in CLUSTER_LIST (RFC 4456 §8)"
        return ""

    def _judged(self, candidate: Path, verdict: RouteSetting | None) -> Path:
        if verdict is None:
            return Path(
                self.source, candidate.attributes, candidate.hop, received=candidate.received, rejected="import policy"
            )
        if verdict is EMPTY_SETTING:
            return candidate
        attributes = rewrite.imported(candidate.attributes, verdict, self._own_address, None)
        return Path(self.source, attributes, self._track(attributes.next_hop), received=candidate.received)

    def again(self) -> None:
        """Apply a new policy, or new addresses of our own, to all that was received."""
        for family, rib in self._ribs.items():
            self._judge_again(family, [*rib.of_source(self.source), *self._refused(family)], lambda _old, _new: True)

    def interfaces_changed(
        self, family: Family, held: list[tuple[Path, list[Nlri]]], is_concerned: Callable[[Path], bool]
    ) -> None:
        """Ask the policy once more about the paths concerned; `held` are those in the table. Where it says the same,
        nothing changes and nobody is told."""
        refused = [(path, run) for path, run in self._refused(family) if is_concerned(path)]
        self._judge_again(family, held + refused, _differ)

    def _refused(self, family: Family) -> list[tuple[Path, list[Nlri]]]:
        found: dict[int, tuple[Path, list[Nlri]]] = {}
        for nlri, path in self.source.rejected[family].items():
            found.setdefault(id(path), (path, []))[1].append(nlri)
        return list(found.values())

    def _judge_again(
        self, family: Family, paths: list[tuple[Path, list[Nlri]]], is_news: Callable[[Path, Path], bool]
    ) -> None:
        """`paths` with their prefixes: all, or none, of those with the same received set."""
        rib = self._ribs[family]
        for path, _ in paths:
            path.received.imported = None
        for path, run in paths:
            for made, some in self.sort(family, run, path.received):
                made.epoch = path.epoch
                if not is_news(path, made):
                    continue
                if made.rejected:
                    rib.reject(made, some)
                else:
                    rib.announce(made, some)


def _differ(path: Path, other: Path) -> bool:
    return (path.rejected, path.hop, path.attributes.block) != (other.rejected, other.hop, other.attributes.block)
