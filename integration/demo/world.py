"""The demo while it runs: the plan, the namespaces, the daemons in them and the packets; and how all that compares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bgp.families import IPAddress, IPNetwork
from integration.demo.build import add_workload, build, remove_workload
from integration.demo.cluster import Cluster
from integration.demo.containers import Containers
from integration.demo.kernel_view import addresses_of, bgp_routes
from integration.demo.namespaces import Run
from integration.demo.plan import Plan, Router, Workload
from integration.demo.probe import Pair, Prober, Reply
from integration.demo.routers import RunningRouter, WholeNode, make_router, merged, wait_until


@dataclass(slots=True)
class KernelState:
    """One router's kernel against the plan."""

    right: int
    missing: list[IPNetwork]
    wrong: list[IPNetwork]  # they lead to the wrong router
    stale: list[IPNetwork]  # nobody announces them any more

    @property
    def is_right(self) -> bool:
        return not (self.missing or self.wrong or self.stale)

    def __str__(self) -> str:
        parts = [f"{self.right} right"]
        for name, prefixes in (("missing", self.missing), ("to the wrong router", self.wrong), ("stale", self.stale)):
            if prefixes:
                parts.append(f"{name}: {', '.join(map(str, prefixes[:4]))}{' …' if len(prefixes) > 4 else ''}")
        return "; ".join(parts)


READY_S = 30.0


@dataclass(slots=True)
class World:
    plan: Plan
    run: Run
    prober: Prober
    daemons: dict[str, RunningRouter] = field(default_factory=dict)
    absent: set[Workload] = field(default_factory=set)  # workloads that were taken away
    _addresses: dict[str, frozenset[IPAddress]] = field(default_factory=dict)

    def build(self) -> None:
        build(self.plan, self.run)
        for router in self.plan.routers:
            self._addresses[router.name] = addresses_of(self.run.namespaces[router.name])
        for router in self.plan.routers:
            for workload in () if router.is_whole else router.workloads:
                self.probe(workload)

    def start(self) -> None:
        if any(router.is_whole for router in self.plan.routers):
            self.cluster.write(self.cluster.beginning())
            self.containers.install()
        for router in self.plan.routers:
            self.daemons[router.name] = make_router(self.plan, router, self.run)
            self.daemons[router.name].start()

    def start_workloads(self) -> None:
        """By the CNI plugin, each node's own first: whoever lends addresses must have the block."""
        nodes = [router for router in self.plan.nodes if router.is_whole]
        for router in nodes:
            daemon = self.daemons[router.name]
            assert isinstance(daemon, WholeNode)
            if not wait_until(daemon.is_ready, READY_S):
                raise TimeoutError(f"{router.name} is not ready after {READY_S:.0f} s")
        for borrowed in (False, True):
            for router in nodes:
                for workload in router.workloads:
                    if workload.is_borrowed is borrowed:
                        self.containers.add(router, workload)
                        self.probe(workload)

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.plan, self.run.folder)

    @property
    def containers(self) -> Containers:
        return Containers(self.run)

    def home_of(self, workload: Workload) -> Router:
        return next(router for router in self.plan.routers if workload in router.workloads)

    def take_away(self, workload: Workload) -> None:
        home = self.home_of(workload)
        if home.is_whole:
            self.containers.delete(home, workload)
        else:
            remove_workload(home, workload, self.run)
        self.absent.add(workload)

    def put_back(self, workload: Workload, *, is_probed: bool = True) -> None:
        """`is_probed` is False while a Stream uses the prober's sockets: `probe` it later."""
        home = self.home_of(workload)
        if home.is_whole:
            self.containers.add(home, workload)
        else:
            add_workload(home, workload, self.run)
        self.absent.discard(workload)
        if is_probed:
            self.probe(workload)

    def probe(self, workload: Workload) -> None:
        self.prober.open(workload, self.run.namespaces[workload.name])

    @property
    def present(self) -> list[Workload]:
        return [workload for workload in self.plan.workloads if workload not in self.absent]

    def sessions(self) -> dict[tuple[str, str], str]:
        """(router, peer) → state as the router says it; "no answer" from a router that does not speak."""
        states = {}
        for router in self.plan.routers:
            said = merged(self.daemons[router.name].sessions())
            for peer in self.plan.peers_of(router):
                states[router.name, peer.name] = said.get(peer.name, "no answer")
        return states

    def kernel(self, router: Router) -> KernelState:
        withdrawn = frozenset(prefix for workload in self.absent for prefix in workload.prefixes)
        expected = self.plan.expected_in_kernel(router, without=withdrawn)
        routes = bgp_routes(self.run.namespaces[router.name])
        # A whole node's own blocks are there too, and lead nowhere: what nobody has must not go out by the default route.
        actual = {
            prefix: route for prefix, route in routes.items() if route.gateways or prefix not in router.aggregates
        }
        missing = [prefix for prefix in expected if prefix not in actual]
        wrong = [
            prefix
            for prefix, to in expected.items()
            if prefix in actual and not actual[prefix].gateways & self._addresses[to.name]
        ]
        stale = [prefix for prefix in actual if prefix not in expected]
        return KernelState(len(expected) - len(missing) - len(wrong), missing, wrong, stale)

    def kernels(self) -> dict[str, KernelState]:
        return {router.name: self.kernel(router) for router in self.plan.routers}

    def pairs(self) -> list[Pair]:
        """That may reach each other."""
        return [pair for pair in self._all_pairs() if self.plan.may_reach(pair[0], pair[1])]

    def denied_pairs(self) -> list[Pair]:
        return [pair for pair in self._all_pairs() if not self.plan.may_reach(pair[0], pair[1])]

    def _all_pairs(self) -> list[Pair]:
        here = self.present
        return [(source, to, version) for version in (4, 6) for source in here for to in here if source != to]

    def ping(self, pairs: Iterable[Pair], timeout_s: float = 1.0) -> dict[Pair, Reply | None]:
        return self.prober.ping(pairs, timeout_s)

    def dead_daemons(self) -> list[str]:
        return [why for daemon in self.daemons.values() if (why := daemon.why_dead())]
