"""Routes that the configuration originates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bgp.config import OriginateConfig
from bgp.families import FAMILIES, IPV4, IPV6, Family, Nlri, nlri_of
from bgp.rib.loc_rib import LocRib
from bgp.rib.path import LOCAL_HOP, Path, Source
from bgp.wire import attributes as wire_attributes


class Originated:
    def __init__(self) -> None:
        self.source = Source("originate", "originate")
        self.blackholes: set[tuple[Family, Nlri]] = set()

    def put(self, routes: Iterable[OriginateConfig], ribs: Mapping[Family, LocRib]) -> None:
        """Make these the ones there are."""
        wanted: dict[Family, dict[Nlri, Path]] = {family: {} for family in FAMILIES}
        blackholes: set[tuple[Family, Nlri]] = set()
        for route in routes:
            family = IPV4 if route.network.version == 4 else IPV6
            nlri = nlri_of(route.network)
            made = wire_attributes.build(
                next_hop=b"", med=route.med, local_pref=route.local_pref, communities=b"".join(route.communities)
            )
            wanted[family][nlri] = Path(self.source, made, LOCAL_HOP)
            if route.blackhole:
                blackholes.add((family, nlri))
        for family, rib in ribs.items():
            held = {nlri: path for path, nlris in rib.of_source(self.source) for nlri in nlris}
            gone = [nlri for nlri in held if nlri not in wanted[family]]
            if gone:
                rib.withdraw(self.source, gone)
            for nlri, path in wanted[family].items():
                if nlri not in held or held[nlri].attributes.block != path.attributes.block:
                    rib.announce(path, [nlri])
            if rib.tracks_fib:
                rib.dirty.update(nlri for kind, nlri in blackholes ^ self.blackholes if kind is family)
        self.blackholes = blackholes
