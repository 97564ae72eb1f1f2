"""What goes between the table and the kernel: routes of other programs come in, best routes go out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bgp.config import KernelConfig
from bgp.families import FAMILIES, Family, Nlri
from bgp.policy import CompiledPolicy, compile_policy
from bgp.ports import FibRoute, LearnedRoute, NextHop
from bgp.rib.loc_rib import LocRib
from bgp.rib.path import LOCAL_HOP, Path, PathView, Source, Value, best_of
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
        multipath: Callable[[tuple[Path, ...]], tuple[Path, ...]],
    ) -> None:
        self._config = config or KernelConfig()
        self._ribs = ribs
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
        if before.policy != self._config.policy:
            self._policy = _compiled(self._config)
            for rib in self._ribs.values():
                if rib.tracks_fib:
                    rib.dirty.update(rib.table)
        if _priorities(before) == _priorities(self._config):
            return
        for family, learned in self._learned.items():
            self.changed(family, list(learned.items()), [])
            if self._ribs[family].tracks_fib:
                self._ribs[family].dirty.update(self._ribs[family].table)

    # --- out --------------------------------------------------------------------------------------------------------

    def routes(self, family: Family, nlris: Iterable[Nlri]) -> dict[Nlri, FibRoute | None]:
        """What should stand in the kernel. Prefixes often share their value, and so their route."""
        get = self._ribs[family].table.get
        known: dict[int, FibRoute | None] = {}
        routes: dict[Nlri, FibRoute | None] = {}
        judged: dict[Path, list[Nlri]] = {}
        for nlri in nlris:
            value = get(nlri)
            key = id(value)
            if key not in known:
                known[key] = self._route(value)
            route = routes[nlri] = known[key]
            if route is not None and self._policy is not None:
                judged.setdefault(best_of(value), []).append(nlri)  # type: ignore[arg-type]
        if self._policy is not None:
            for path, run in judged.items():
                for verdict, some in self._policy.judge_all(PathView(path), family, run):
                    if verdict is None:
                        routes.update(dict.fromkeys(some))
        return routes

    def _route(self, value: Value | None) -> FibRoute | None:
        best = best_of(value)
        if best is None or best.source.is_local:
            return None
        paths = (best,) if isinstance(value, Path) else self._multipath(value)  # type: ignore[arg-type]
        hops: dict[NextHop, None] = {}
        for path in paths:
            hops.update(dict.fromkeys(path.hop.resolution.hops))
        if not hops:
            return None
        base = self._config.priority_base
        # rank[1] is LOCAL_PREF, or what stands for it, the other way round.
        return FibRoute(next_hops=tuple(hops), metric=0 if base is None else max(base + best.rank[1], 1))


def _compiled(config: KernelConfig) -> CompiledPolicy | None:
    if config.policy is None:
        return None
    compiled = compile_policy(config.policy, direction="export", is_ebgp=False)
    return None if compiled.accepts_all else compiled


def _priorities(config: KernelConfig) -> tuple[int | None, int]:
    return config.priority_base, 0 if config.priority_base is None else config.metric
