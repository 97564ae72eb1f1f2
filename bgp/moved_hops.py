"""Next hops that are reached by another interface now, and the import policies that ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bgp.families import Address, Family, Nlri
from bgp.neighbour import Neighbour
from bgp.rib.loc_rib import LocRib
from bgp.rib.path import Path, Source, paths_of


def judge_again(neighbours: Iterable[Neighbour], ribs: Mapping[Family, LocRib], moved: set[Address]) -> None:
    """What counts is the next hop that was received: the policy may have set another. One walk for all peers."""
    asking = _asking(neighbours)
    if not asking:
        return

    def is_concerned(path: Path) -> bool:
        neighbour = asking.get(path.source)
        return neighbour is not None and neighbour.scoped(path.received.next_hop) in moved

    for neighbour in asking.values():
        neighbour.forget_imported()
    for family, rib in ribs.items():
        held: dict[Source, list[tuple[Path, list[Nlri]]]] = {source: [] for source in asking}
        for path, run in rib.where(is_concerned):
            held[path.source].append((path, run))
        for source, neighbour in asking.items():
            assert neighbour.adj_rib_in is not None
            neighbour.adj_rib_in.interfaces_changed(family, held[source], is_concerned)


def hops_in_use(neighbours: Iterable[Neighbour], ribs: Mapping[Family, LocRib]) -> set[Address]:
    """The next hops of which every change must be heard; all others may be forgotten then.

    Between two reads only: what import has made of sets that may come again goes, for it holds next hops.
    """
    neighbours = list(neighbours)
    for neighbour in neighbours:
        neighbour.forget_imported()
    asking = _asking(neighbours)
    used: set[Address] = set()
    for family, rib in ribs.items():
        for value in set(rib.table.values()):
            for path in paths_of(value):
                used.add(path.hop.address)
                if path.source in asking:
                    used.add(asking[path.source].scoped(path.received.next_hop))
        for source in asking:
            used.update(path.hop.address for path in source.rejected[family].values())
    return used


def _asking(neighbours: Iterable[Neighbour]) -> dict[Source, Neighbour]:
    return {n.source: n for n in neighbours if n.import_policy.needs_interface and n.adj_rib_in is not None}
