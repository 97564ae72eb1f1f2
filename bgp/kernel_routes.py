"""What goes between the table and the kernel: routes of other programs come in, best routes go out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bgp.config import KernelConfig, TunnelRule
from bgp.families import FAMILIES, IPV4, Address, Family, Nlri
from bgp.policy import CompiledPolicy, compile_policy
from bgp.ports import FibRoute, LearnedRoute, NextHop, split_through, through
from bgp.rib.hops import Hops
from bgp.rib.loc_rib import LocRib
from bgp.rib.path import LOCAL_HOP, HopState, Path, PathView, Source, Value, best_of
from bgp.wire import attributes as wire_attributes

CONNECTED = 2  # rtm_protocol `kernel`: what the kernel made of an interface's address
_PATHS_KEPT = 4096
_Kind = tuple[int, str, int | None]  # preference, interface, LOCAL_PREF


class KernelRoutes:
    """`ribs` are the speaker's; `multipath` chooses among the paths of a destination."""

    def __init__(
        self,
        config: KernelConfig | None,
        ribs: Mapping[Family, LocRib],
        hops: Hops,
        multipath: Callable[[tuple[Path, ...]], tuple[Path, ...]],
    ) -> None:
        self._config = config or KernelConfig()
        self._ribs = ribs
        self._hops = hops
        self._multipath = multipath
        self._policy = _compiled(self._config)
        # Before peers, beside them and behind them.
        self._sources = tuple(Source("kernel", "kernel", preference=preference) for preference in range(3))
        self._paths: dict[_Kind, Path] = {}
        # What was learned, kept where a change of the configuration makes other paths of it.
        self._learned: dict[Family, dict[Nlri, LearnedRoute]] = {family: {} for family in FAMILIES}

    # --- in ---------------------------------------------------------------------------------------------------------

    def changed(
        self, family: Family, announced: Iterable[tuple[Nlri, LearnedRoute]], withdrawn: Iterable[Nlri]
    ) -> None:
        rib, kept = self._ribs[family], self._learned[family]
        is_kept = self._config.priority_base is not None
        runs: dict[_Kind, list[Nlri]] = {}
        for nlri, learned in announced:
            runs.setdefault(self._kind(learned), []).append(nlri)
            if is_kept:
                kept[nlri] = learned
        gone = list(withdrawn)
        self._withdraw(rib, gone, self._sources)
        for nlri in gone:
            kept.pop(nlri, None)
        for kind, nlris in runs.items():
            path = self._path(kind)
            rib.announce(path, nlris)
            self._withdraw(rib, nlris, [source for source in self._sources if source is not path.source])

    @staticmethod
    def _withdraw(rib: LocRib, nlris: list[Nlri], sources: Iterable[Source]) -> None:
        for source in sources:
            if nlris and source.accepted[rib.family]:
                rib.withdraw(source, nlris)

    def _kind(self, learned: LearnedRoute) -> _Kind:
        base, is_connected = self._config.priority_base, learned.protocol == CONNECTED
        preference = 2 if learned.behind_peers else 0 if base is None or is_connected else 1
        if base is None:
            return preference, learned.interface, None
        # The metric of a connected subnet is the kernel's own.
        metric = self._config.metric if is_connected or not learned.metric else learned.metric
        return preference, learned.interface, max(base - metric, 0)

    def _path(self, kind: _Kind) -> Path:
        path = self._paths.get(kind)
        if path is None:
            if len(self._paths) > _PATHS_KEPT:
                self._paths.clear()
            preference, interface, local_pref = kind
            made = wire_attributes.build(next_hop=b"", local_pref=local_pref)
            path = self._paths[kind] = Path(self._sources[preference], made, LOCAL_HOP, local_interface=interface)
        return path

    def reconfigure(self, config: KernelConfig | None) -> None:
        """Other rules from now on, for what is in already too."""
        before, self._config = self._config, config or KernelConfig()
        if (before.policy, before.tunnels) != (self._config.policy, self._config.tunnels):
            self._policy = _compiled(self._config)
            self._look_again()
        if _priorities(before) == _priorities(self._config):
            return
        for family, learned in self._learned.items():
            self.changed(family, list(learned.items()), [])
        self._look_again()

    def _look_again(self) -> None:
        for rib in self._ribs.values():
            if rib.tracks_fib:
                rib.dirty.update(rib.table)

    def hops_changed(self, states: Iterable[HopState]) -> None:
        """Next hops are reached otherwise. Those through tunnels are no path's own."""
        if self._config.tunnels and any(split_through(state.address) for state in states):
            self._look_again()

    def hops_in_use(self, plain: set[Address]) -> set[Address]:
        """These, and what they are through tunnels."""
        names = {tunnel.interface for tunnel in self._config.tunnels}
        return plain | {through(address, name) for address in plain if len(address) == 4 for name in names}

    # --- out --------------------------------------------------------------------------------------------------------

    def routes(self, family: Family, nlris: Iterable[Nlri]) -> dict[Nlri, FibRoute | None]:
        """What should stand in the kernel."""
        if family is IPV4 and self._config.tunnels:
            routes: dict[Nlri, FibRoute | None] = {}
            for tunnel, run in self._by_tunnel(nlris).items():
                routes.update(self._made(family, run, tunnel))
        else:
            routes = self._made(family, nlris, None)
        if self._policy is not None:
            self._judge(self._policy, family, routes)
        return routes

    def _by_tunnel(self, nlris: Iterable[Nlri]) -> dict[TunnelRule | None, list[Nlri]]:
        runs: dict[TunnelRule | None, list[Nlri]] = {}
        for nlri in nlris:
            tunnel = next((rule for rule in self._config.tunnels if _is_inside(nlri, rule)), None)
            runs.setdefault(tunnel, []).append(nlri)
        return runs

    def _made(self, family: Family, nlris: Iterable[Nlri], tunnel: TunnelRule | None) -> dict[Nlri, FibRoute | None]:
        """Prefixes often share their value, and so their route."""
        get = self._ribs[family].table.get
        known: dict[int, FibRoute | None] = {}
        routes: dict[Nlri, FibRoute | None] = {}
        for nlri in nlris:
            value = get(nlri)
            key = id(value)
            if key not in known:
                known[key] = self._route(value, tunnel)
            routes[nlri] = known[key]
        return routes

    def _judge(self, policy: CompiledPolicy, family: Family, routes: dict[Nlri, FibRoute | None]) -> None:
        """Take out what the policy does not accept."""
        get = self._ribs[family].table.get
        runs: dict[Path, list[Nlri]] = {}
        for nlri, route in routes.items():
            if route is not None and (best := best_of(get(nlri))) is not None:
                runs.setdefault(best, []).append(nlri)
        for path, run in runs.items():
            for verdict, some in policy.judge_all(PathView(path), family, run):
                if verdict is None:
                    routes.update(dict.fromkeys(some))

    def _route(self, value: Value | None, tunnel: TunnelRule | None) -> FibRoute | None:
        best = best_of(value)
        if best is None or best.source.is_local:
            return None
        paths = (best,) if isinstance(value, Path) else self._multipath(value)  # type: ignore[arg-type]
        hops: dict[NextHop, None] = {}
        for path in paths:
            hops.update(dict.fromkeys(self._hop_of(path, tunnel).resolution.hops))
        if not hops:
            return None
        base = self._config.priority_base
        # rank[1] is LOCAL_PREF, or what stands for it, the other way round.
        return FibRoute(next_hops=tuple(hops), metric=0 if base is None else max(base + best.rank[1], 1))

    def _hop_of(self, path: Path, tunnel: TunnelRule | None) -> HopState:
        next_hop = path.attributes.next_hop
        if tunnel is None or len(next_hop) != 4:
            return path.hop
        direct = tunnel.direct
        if direct is not None and _top(next_hop, direct.prefixlen) == _top(
            direct.network_address.packed, direct.prefixlen
        ):
            return path.hop
        return self._hops.track(through(next_hop, tunnel.interface))


def _is_inside(nlri: Nlri, rule: TunnelRule) -> bool:
    bits = rule.network.prefixlen
    return nlri[0] >= bits and _top(nlri[1:], bits) == _top(rule.network.network_address.packed, bits)


def _top(octets: bytes, bits: int) -> int:
    """The first bits of an IPv4 address, of which trailing octets may be missing."""
    return int.from_bytes(octets.ljust(4, b"\0"), "big") >> (32 - bits)


def _compiled(config: KernelConfig) -> CompiledPolicy | None:
    if config.policy is None:
        return None
    compiled = compile_policy(config.policy, direction="export", is_ebgp=False)
    return None if compiled.accepts_all else compiled


def _priorities(config: KernelConfig) -> tuple[int | None, int]:
    return config.priority_base, 0 if config.priority_base is None else config.metric
