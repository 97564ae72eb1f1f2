"""How the demo looks: a line for each check, and a live picture of sessions, kernels and reachability."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from integration.demo.checks import Result
from integration.demo.plan import Router
from integration.demo.probe import Pair, Reply
from integration.demo.routers import Catbird
from integration.demo.world import KernelState, World

REFRESH_S = 1.0


def result_line(result: Result) -> Text:
    mark, style = ("✓", "green") if result.is_ok else ("✗", "bold red")
    return Text.assemble((f"{mark} ", style), f"{result.name}: ", result.detail, (f"  {result.took_s:.2f} s", "dim"))


def watch(world: World, console: Console) -> None:
    """Shows the world until a signal ends it. A daemon that somebody kills is seen dead, then started again."""
    found_dead: set[str] = set()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            for name, daemon in world.daemons.items():
                if daemon.why_dead() is None:
                    found_dead.discard(name)
                elif name in found_dead:
                    daemon.kill()
                    daemon.start()
                else:
                    found_dead.add(name)
            replies = world.ping(world.pairs(), timeout_s=0.5)
            live.update(picture(world, world.sessions(), world.kernels(), replies), refresh=True)
            time.sleep(max(0.0, began + REFRESH_S - time.monotonic()))


def picture(
    world: World,
    sessions: Mapping[tuple[str, str], str],
    kernels: Mapping[str, KernelState],
    replies: Mapping[Pair, Reply | None],
) -> RenderableType:
    return Group(_sessions_table(world, sessions, kernels), _reach_table(world, replies), _hints(world))


def _sessions_table(
    world: World, sessions: Mapping[tuple[str, str], str], kernels: Mapping[str, KernelState]
) -> RenderableType:
    table = Table(title="Sessions and kernels", title_justify="left", header_style="bold")
    for column in ("router", "speaker", "pid", "AS", "address", *(f"→ {router.name}" for router in world.plan.routers)):
        table.add_column(column)
    table.add_column("kernel routes by BGP")
    for router in world.plan.routers:
        states = [_state(world, router, peer, sessions) for peer in world.plan.routers]
        kernel = kernels[router.name]
        shown = Text(str(kernel), style="green" if kernel.is_right else "yellow")
        daemon = world.daemons[router.name]
        pid = str(daemon.processes[-1].pid) if daemon.why_dead() is None else "dead"
        table.add_row(router.name, router.kind, pid, str(router.asn), f"{router.ipv4}", *states, shown)
    return table


def _state(world: World, router: Router, peer: Router, sessions: Mapping[tuple[str, str], str]) -> Text:
    if not world.plan.is_session(router, peer):
        return Text("·", style="dim")
    state = sessions.get((router.name, peer.name), "?")
    return Text(state, style="green" if state == "Established" else "red")


def _reach_table(world: World, replies: Mapping[Pair, Reply | None]) -> RenderableType:
    table = Table(title="Packets: IPv4/IPv6 round trip in ms, from row to column", title_justify="left")
    table.add_column("workload", style="bold")
    table.add_column("address")
    for to in world.plan.workloads:
        table.add_column(to.name, justify="center")
    for source in world.plan.workloads:
        cells = [_reach(replies, source == to, (source, to, 4), (source, to, 6)) for to in world.plan.workloads]
        table.add_row(source.name, f"{source.ipv4}  {source.ipv6}", *cells)
    return table


def _reach(replies: Mapping[Pair, Reply | None], is_self: bool, ipv4: Pair, ipv6: Pair) -> Text:
    if is_self:
        return Text("·", style="dim")
    parts = []
    for pair in (ipv4, ipv6):
        reply = replies.get(pair)
        parts.append((f"{reply.round_trip_ms:.1f}", "green") if reply else ("✗", "bold red"))
    return Text.assemble(parts[0], "/", parts[1])


def _hints(world: World) -> RenderableType:
    first = world.plan.workloads[0]
    lines = ["Ctrl-C ends it and removes everything. Meanwhile, in another terminal:"]
    node = world.daemons.get(world.plan.nodes[0].name)
    if isinstance(node, Catbird):
        lines += [
            f"  catbird show peers --socket {node.socket_path}",
            f"  catbird show routes {world.plan.tor.aggregates[0]} --why --socket {node.socket_path}",
            f"  kill -9 {node.processes[-1].pid}    and no packet is lost",
        ]
        if world.plan.reflectors and (pids := world.daemons[world.plan.reflectors[0].name].processes):
            lines.append(f"  kill -9 {pids[-1].pid}    nor without that reflector")
    lines.append(f"  ip netns exec {world.run.namespaces[first.name].file_name} ping {world.plan.workloads[-1].ipv4}")
    return Text("\n".join(lines), style="dim")
