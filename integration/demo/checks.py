"""What `catbird demo --once` verifies, in order, each with how long it took. A check that fails raises Failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from bgp.families import IPNetwork
from integration.demo.kernel_view import DeletionWatch, KernelRoute, bgp_routes
from integration.demo.plan import Plan, Router, Workload
from integration.demo.probe import Losses, Pair, Stream
from integration.demo.routers import CannotRun, wait_until
from integration.demo.world import World

SESSIONS_TIMEOUT_S = 40.0
ROUTES_TIMEOUT_S = 20.0
PACKETS_TIMEOUT_S = 10.0
DOWN_S = 1.0  # how long a killed speaker stays dead
PACKETS_PER_S = 800
POLICY_TIMEOUT_S = 10.0


class Failed(Exception):
    """What was expected and what there was."""


@dataclass(slots=True)
class Result:
    name: str
    is_ok: bool
    took_s: float
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


Check = Callable[[World], tuple[str, dict[str, Any]]]  # detail, figures


def run_check(name: str, check: Check, world: World) -> Result:
    began = time.monotonic()
    try:
        detail, figures = check(world)
    except Failed as failure:
        return Result(name, False, time.monotonic() - began, str(failure))
    return Result(name, True, time.monotonic() - began, detail, figures)


def build_it(world: World) -> tuple[str, dict[str, Any]]:
    world.build()
    count = len(world.run.namespaces)
    return f"{count} namespaces, {len(world.plan.workloads)} workloads", {"namespaces": count}


def start_speakers(world: World) -> tuple[str, dict[str, Any]]:
    world.start()
    kinds = {router.name: router.kind for router in world.plan.routers}
    words = [f"{r.name} {r.kind}{' reflector' if r.is_reflector else ''}" for r in world.plan.routers]
    return ", ".join(words), {"speakers": kinds}


def start_workloads(world: World) -> tuple[str, dict[str, Any]]:
    try:
        world.start_workloads()
    except (TimeoutError, CannotRun) as error:
        raise Failed(str(error)) from None
    count = len([one for router in world.plan.nodes if router.is_whole for one in router.workloads])
    borrowed = len([one for one in world.plan.workloads if one.is_borrowed])
    return f"{count} by ADD, with addresses from IPAM, {borrowed} of them from another node's block", {
        "workloads": count
    }


def tenants_kept_apart(world: World) -> tuple[str, dict[str, Any]]:
    """The policies are written; then whoever may not reach somebody must not, and whoever may must."""
    world.cluster.write(world.cluster.policies())
    began = time.monotonic()
    denied = world.denied_pairs()

    def are_apart() -> bool:
        return not any(world.ping(denied, timeout_s=0.2).values())

    if not wait_until(are_apart, POLICY_TIMEOUT_S):
        through = [pair for pair, reply in world.ping(denied, timeout_s=0.3).items() if reply is not None]
        names = [f"{source.name}→{to.name} IPv{version}" for source, to, version in through]
        raise Failed(f"{POLICY_TIMEOUT_S:.0f} s after the policies still through: {', '.join(names[:8])}")
    took_s = time.monotonic() - began
    everybody_reaches_everybody(world)
    text = f"{len(denied)} pairs kept apart {took_s * 1000:.0f} ms after the policies were written, {len(world.pairs())} reach each other"
    return text, {"denied_pairs": len(denied), "allowed_pairs": len(world.pairs()), "enforced_s": round(took_s, 3)}


def sessions_established(world: World, timeout_s: float = SESSIONS_TIMEOUT_S) -> tuple[str, dict[str, Any]]:
    def all_up() -> bool:
        if dead := world.dead_daemons():
            raise Failed("; ".join(dead))
        return all(state == "Established" for state in world.sessions().values())

    if not wait_until(all_up, timeout_s, interval_s=0.1):
        down = [f"{at}→{peer}: {state}" for (at, peer), state in world.sessions().items() if state != "Established"]
        raise Failed(f"after {timeout_s:.0f} s {', '.join(down)}")
    count = sum(1 for _ in world.plan.sessions())
    return f"{count} of {count} Established, as both ends say", {"sessions": count}


def kernels_programmed(world: World) -> tuple[str, dict[str, Any]]:
    _wait_for_kernels(world, "")
    counts = {name: state.right for name, state in world.kernels().items()}
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"{text}: each by its right gateway, none else", {"routes": counts}


def everybody_reaches_everybody(world: World) -> tuple[str, dict[str, Any]]:
    answered: dict[Pair, float] = {}
    pairs = world.pairs()
    hops = 0
    deadline = time.monotonic() + PACKETS_TIMEOUT_S
    # A first packet may wait for ARP or neighbour discovery on three links in a row: ask again, as ping does.
    while (left := [pair for pair in pairs if pair not in answered]) and time.monotonic() < deadline:
        for pair, reply in world.ping(left).items():
            if reply is not None:
                answered[pair] = reply.round_trip_ms
                hops = max(hops, reply.hops)
    if left:
        silent = [f"{source.name}→{to.name} IPv{version}" for source, to, version in left]
        raise Failed(f"no reply on {len(silent)} of {len(pairs)} paths: {', '.join(silent[:8])}")
    if through := [pair for pair, reply in world.ping(world.denied_pairs(), timeout_s=0.2).items() if reply]:
        names = [f"{source.name}→{to.name} IPv{version}" for source, to, version in through]
        raise Failed(f"policies deny these, and they came through: {', '.join(names[:8])}")
    each = len(pairs) // 2
    worst = max(world.ping(pairs).values(), key=lambda reply: reply.round_trip_ms if reply else 0.0)
    figures = {
        "ipv4_pairs": each,
        "ipv6_pairs": each,
        "hops": hops,
        "slowest_ms": worst and round(worst.round_trip_ms, 2),
    }
    return f"{each} of {each} pairs over IPv4, {each} of {each} over IPv6, up to {hops} routers on the way", figures


def withdrawal_spreads(world: World) -> tuple[str, dict[str, Any]]:
    home = world.plan.nodes[0]
    gone, asking = home.workloads[1], world.plan.nodes[1].workloads[0]
    began = time.monotonic()
    world.take_away(gone)
    _wait_for_kernels(world, f"{gone.name} went away")
    took_s = time.monotonic() - began
    replies = world.ping([(asking, gone, version) for version in (4, 6)], timeout_s=0.3)
    if any(replies.values()):
        raise Failed(f"{gone.name} was taken away and still answers")
    world.put_back(gone)
    began = time.monotonic()
    _wait_for_kernels(world, f"{gone.name} came back")
    back_s = time.monotonic() - began
    everybody_reaches_everybody(world)
    text = f"{gone.name} deleted: gone from every kernel in {took_s * 1000:.0f} ms; back in {back_s * 1000:.0f} ms"
    return text, {"withdrawn_s": round(took_s, 3), "announced_s": round(back_s, 3)}


def killed_speaker_loses_nothing(world: World) -> tuple[str, dict[str, Any]]:
    """kill -9 of a speaker under traffic, changes while it is dead, restart: nothing lost, nothing stale.

    A workload of its own and one of a neighbour go away while it is dead: their routes are stale until it is back
    (the first in the neighbours' kernels, RFC 4724 §4.2; the second in its own, left by the process that died).
    """
    victim, other = world.plan.nodes[0], world.plan.nodes[1]
    gone = (victim.workloads[1], other.workloads[1])
    with Losing(world, _paths_through(world, victim, other)) as losing:
        before = set(bgp_routes(world.run.namespaces[victim.name]))
        _kill_and_change(world, victim, gone)
        stood = len(before & set(bgp_routes(world.run.namespaces[victim.name])))
        stale = sum(len(state.stale) for state in world.kernels().values())
        up_s, converged_s = _restart(world, victim)
    losses, lost = losing.packets, losing.routes_but(gone)
    if stood < len(before) or lost or losses.lost:
        raise Failed(
            f"{stood} of {len(before)} routes stood while it was dead; taken out at the restart: "
            f"{', '.join(lost) or 'none'}; {losses.lost} of {losses.sent} packets lost {losses.per_pair or ''}"
        )
    for workload in gone:
        world.put_back(workload)
    _wait_for_kernels(world, "both workloads came back")
    figures = {
        "packets_sent": losses.sent,
        "packets_lost": losses.lost,
        "longest_gap_ms": round(losses.longest_gap_s * 1000, 1),
        "routes_lost": len(lost),
        "stale_routes_before_restart": stale,
        "stale_routes_left": 0,  # _restart has waited for it
        "sessions_back_s": round(up_s, 2),
        "converged_s": round(converged_s, 2),
    }
    text = (
        f"{losses.sent} packets sent meanwhile, 0 lost; 0 of {len(before)} routes lost; "
        f"{stale} stale in all kernels before the restart, 0 after; "
        f"sessions back {up_s:.1f} s and converged {converged_s:.1f} s after it"
    )
    return text, figures


def killed_reflector_loses_nothing(world: World) -> tuple[str, dict[str, Any]]:
    """kill -9 of a reflector under traffic, and its restart: no kernel loses a route.

    Where there is another reflector, a workload returns meanwhile, and everybody hears of it.
    """
    victim, returning = world.plan.reflectors[0], world.plan.nodes[0].workloads[1]
    others = [router.name for router in world.plan.reflectors[1:]]
    back_s = 0.0
    if others:
        world.take_away(returning)
        _wait_for_kernels(world, f"{returning.name} went away")
    count = sum(state.right for state in world.kernels().values())
    with Losing(world, _paths_around(world)) as losing:
        world.daemons[victim.name].kill()
        _wait_until_noticed(world, victim)
        time.sleep(DOWN_S)
        if others:
            world.put_back(returning, is_probed=False)
            began = time.monotonic()
            _wait_for_kernels(world, f"{returning.name} came back while {victim.name} was dead")
            back_s = time.monotonic() - began
        up_s, converged_s = _restart(world, victim)
    world.probe(returning)
    losses, lost = losing.packets, losing.routes_but(())
    if lost or losses.lost:
        raise Failed(
            f"routes taken out: {', '.join(lost) or 'none'}; "
            f"{losses.lost} of {losses.sent} packets lost {losses.per_pair or ''}"
        )
    figures = {
        "packets_sent": losses.sent,
        "packets_lost": losses.lost,
        "longest_gap_ms": round(losses.longest_gap_s * 1000, 1),
        "routes_lost": len(lost),
        "announced_meanwhile_s": round(back_s, 3),
        "sessions_back_s": round(up_s, 2),
        "converged_s": round(converged_s, 2),
    }
    text = f"{losses.sent} packets sent meanwhile, 0 lost; 0 of {count} routes lost in all kernels; "
    if others:
        text += f"{returning.name} announced by {', '.join(others)} meanwhile in {back_s * 1000:.0f} ms; "
    return f"{text}sessions back {up_s:.1f} s and converged {converged_s:.1f} s after the restart", figures


class Losing:
    """Packets along `pairs` while the context lasts, and every route that leaves a kernel meanwhile."""

    def __init__(self, world: World, pairs: list[Pair]) -> None:
        self.packets = Losses()
        self._deleted: dict[str, list[KernelRoute]] = {}
        self._watches = {r.name: DeletionWatch(world.run.namespaces[r.name]) for r in world.plan.routers}
        self._stream = Stream(world.prober, pairs, interval_s=len(pairs) / PACKETS_PER_S)

    def __enter__(self) -> Losing:
        self._stream.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.packets = self._stream.stop()
        for name, watch in self._watches.items():
            self._deleted[name] = watch.deleted()
            watch.close()

    def routes_but(self, gone: Iterable[Workload]) -> list[str]:
        """All that went, without those of workloads that were taken away."""
        wanted = {prefix for workload in gone for prefix in workload.prefixes}
        return [
            f"{r.prefix} from {at}" for at, routes in self._deleted.items() for r in routes if r.prefix not in wanted
        ]


def _wait_until_noticed(world: World, victim: Router) -> None:
    def all_noticed() -> bool:
        names = [peer.name for peer in world.plan.peers_of(victim)]
        return all(world.daemons[name].sessions().get(victim.name) != "Established" for name in names)

    wait_until(all_noticed, 5)


def _kill_and_change(world: World, victim: Router, gone: tuple[Workload, Workload]) -> None:
    """Returns when the others have noticed both the death and what changed since, and DOWN_S later."""
    world.daemons[victim.name].kill()
    _wait_until_noticed(world, victim)
    for workload in gone:
        world.take_away(workload)
    third = world.plan.nodes[-1] if len(world.plan.nodes) > 2 else world.plan.tor
    wait_until(lambda: not _has_any(world, third, gone[1]), 5)
    time.sleep(DOWN_S)


def _restart(world: World, victim: Router) -> tuple[float, float]:
    """Seconds until all sessions stood again, and until every kernel was right."""
    began = time.monotonic()
    world.daemons[victim.name].start()
    sessions_established(world)
    up_s = time.monotonic() - began
    _wait_for_kernels(world, f"{victim.name} came back", SESSIONS_TIMEOUT_S)
    return up_s, time.monotonic() - began


def stops_cleanly(world: World) -> tuple[str, dict[str, Any]]:
    codes = {name: daemon.stop() for name, daemon in world.daemons.items()}
    bad = {name: code for name, code in codes.items() if any(code)}
    world.daemons.clear()
    if bad:
        raise Failed(f"SIGTERM should end a speaker with exit code 0: {bad}")
    return "SIGTERM, exit code 0 from all", {}


def first_steps(plan: Plan) -> list[tuple[str, Check]]:
    whole = [("workloads by the CNI plugin", start_workloads)] if any(one.is_whole for one in plan.nodes) else []
    policy = [("tenants kept apart", tenants_kept_apart)] if plan.has_policy else []
    return [
        ("build nodes, ToR and workloads", build_it),
        ("start a speaker on each", start_speakers),
        *whole,
        ("BGP sessions", sessions_established),
        ("routes in each kernel", kernels_programmed),
        *policy,
        ("packets between all workloads", everybody_reaches_everybody),
    ]


def all_steps(plan: Plan) -> list[tuple[str, Check]]:
    steps = [
        *first_steps(plan),
        ("a workload goes and returns", withdrawal_spreads),
        ("kill -9 and restart of node1's speaker", killed_speaker_loses_nothing),
    ]
    if plan.reflectors:
        steps.append((f"kill -9 and restart of {plan.reflectors[0].name}", killed_reflector_loses_nothing))
    return [
        *steps,
        ("packets between all workloads, again", everybody_reaches_everybody),
        ("speakers end when asked", stops_cleanly),
    ]


def _paths_through(world: World, victim: Router, other: Router) -> list[Pair]:
    """To and from the victim's workload, by iBGP and by eBGP routes."""
    mine, theirs, rack = victim.workloads[0], other.workloads[0], world.plan.tor.workloads[0]
    ends: list[tuple[Workload, Workload]] = [(mine, theirs), (theirs, mine), (mine, rack), (rack, mine)]
    return [(source, to, version) for version in (4, 6) for source, to in ends]


def _paths_around(world: World) -> list[Pair]:
    """From each node's first workload to the next node's, and from the last to the rack and on to the first."""
    ends = [node.workloads[0] for node in (*world.plan.nodes, world.plan.tor)]
    return [(source, to, version) for version in (4, 6) for source, to in zip(ends, ends[1:] + ends[:1], strict=True)]


def _has_any(world: World, router: Router, workload: Workload) -> bool:
    routes: dict[IPNetwork, Any] = dict(bgp_routes(world.run.namespaces[router.name]))
    return any(prefix in routes for prefix in workload.prefixes)


def _wait_for_kernels(world: World, after: str, timeout_s: float = ROUTES_TIMEOUT_S) -> None:
    if not wait_until(lambda: all(state.is_right for state in world.kernels().values()), timeout_s):
        bad = [f"{name}: {state}" for name, state in world.kernels().items() if not state.is_right]
        raise Failed(f"{timeout_s:.0f} s after {after or 'the sessions came up'}: {' | '.join(bad)}")
