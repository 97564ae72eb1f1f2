"""Route reflection (RFC 4456): catbird as the reflector of the others, as their client, above and below them."""

from __future__ import annotations

import re
import signal
import subprocess
from types import TracebackType

import pytest

from tests.interop.catbird import Catbird
from tests.interop.lan import Node
from tests.interop.router import (
    Announcement,
    Router,
    SeenRoute,
    holds_for,
    until,
    wait_down,
    wait_no_routes,
    wait_routes,
)
from tests.interop.world import World, peer_of, prefixes, wait_both

ASN = 65001
CLUSTER = "10.99.0.1"  # nobody's router ID


def routes_of(router: Router) -> list[Announcement]:
    """One prefix of each family that tells whose it is, with all that a reflector must leave alone."""
    number = router.node.number
    return [
        Announcement(prefix=prefix, communities=(f"{ASN}:{number}",), med=30 + number, local_pref=150)
        for prefix in (f"10.{number}.1.0/24", f"2001:db8:{number}:1::/64")
    ]


def start_reflector(reflector: Router, *clients: Router, others: tuple[Router, ...] = ()) -> None:
    """`others` are reflectors beside it or above it: to a non-client, and to the one whose client this is."""
    reflector.start(*(peer_of(client, client=True) for client in clients), *(peer_of(other) for other in others))


def start_client(client: Router, *reflectors: Router) -> None:
    client.start(*(peer_of(reflector) for reflector in reflectors), announce=routes_of(client))


def wait_reflected(reader: Router, sender: Router, *clusters: str) -> None:
    """`reader` has all of `sender`'s routes, as they were and by these reflectors, nearest first."""
    seen = wait_routes(reader, *prefixes(routes_of(sender)))
    for route in routes_of(sender):
        next_hop = sender.node.ipv4 if route.family == "ipv4" else sender.node.ipv6
        assert seen[route.prefix] == SeenRoute(
            prefix=route.prefix,
            next_hop=next_hop,
            origin="igp",
            communities=frozenset(route.communities),
            med=route.med,
            local_pref=route.local_pref,
            originator_id=sender.router_id,
            cluster_list=clusters,
        )


def assert_reflects(reflector: Router, one: Router, two: Router) -> None:
    reflector.cluster_id = CLUSTER
    start_reflector(reflector, one, two)
    for client in (one, two):
        start_client(client, reflector)
    wait_reflected(two, one, CLUSTER)
    wait_reflected(one, two, CLUSTER)
    ipv4, ipv6 = prefixes(routes_of(one))
    one.withdraw(ipv4)
    wait_no_routes(two, ipv4)
    assert ipv6 in two.routes("ipv6")
    one.withdraw(ipv6)
    wait_no_routes(two, ipv6)


def test_two_clients_of_catbird_exchange_routes(world: World, kind: str) -> None:
    assert_reflects(world.catbird(ASN), world.router(kind, ASN), world.router(kind, ASN))


def test_two_catbirds_behind_a_reflector_exchange_routes(world: World, kind: str) -> None:
    assert_reflects(world.router(kind, ASN), world.catbird(ASN), world.catbird(ASN))


@pytest.mark.parametrize(("upper_kind", "lower_kind"), [("bird", "catbird"), ("catbird", "bird")])
def test_a_reflector_that_is_a_client_of_another_passes_routes_up_and_down(
    world: World, upper_kind: str, lower_kind: str
) -> None:
    """high - upper - lower - two clients. The upper one's client is a catbird, the lower one's are FRR and catbird."""
    upper, lower = world.router(upper_kind, ASN), world.router(lower_kind, ASN)
    high, low, lowest = world.catbird(ASN), world.frr(ASN), world.catbird(ASN)
    start_reflector(upper, high, lower)
    start_reflector(lower, low, lowest, others=(upper,))
    start_client(high, upper)
    for client in (low, lowest):
        start_client(client, lower)
        wait_reflected(high, client, upper.router_id, lower.router_id)
    wait_reflected(low, high, lower.router_id, upper.router_id)
    wait_reflected(lowest, high, lower.router_id, upper.router_id)
    wait_reflected(lowest, low, lower.router_id)
    low.withdraw(*prefixes(routes_of(low)))
    wait_no_routes(high, *prefixes(routes_of(low)))
    high.withdraw(*prefixes(routes_of(high)))
    wait_no_routes(lowest, *prefixes(routes_of(high)))


class Losing:
    """Packets between two nodes' addresses over both families, both ways, and routes that leave a kernel meanwhile."""

    def __init__(self, one: Node, two: Node) -> None:
        self.nodes = (one, two)
        self.sent = self.lost = 0
        self.routes_lost: list[str] = []
        self._pings: list[subprocess.Popen[str]] = []
        self._monitors: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Losing:
        one, two = self.nodes
        for node in self.nodes:
            self._monitors.append(self._spawn(node, "ip", "-o", "monitor", "route"))
        for source, to in ((one, two), (two, one)):
            for ours, theirs in zip(workload(source), workload(to), strict=True):
                self._pings.append(self._spawn(source, "ping", "-i", "0.01", "-w", "60", "-I", ours, theirs))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for ping in self._pings:
            ping.send_signal(signal.SIGINT)  # tells its counts
        for monitor in self._monitors:
            monitor.terminate()  # a run in a shell's background ignores SIGINT, and so do its children
        for ping in self._pings:
            output = ping.communicate(timeout=20)[0]
            counts = re.search(r"(\d+) packets transmitted, (\d+) received", output)
            assert counts, output[-300:]
            self.sent += int(counts[1])
            self.lost += int(counts[1]) - int(counts[2])
        for monitor in self._monitors:
            lines = monitor.communicate(timeout=20)[0].splitlines()
            self.routes_lost += [line for line in lines if line.startswith("Deleted") and "proto bird" in line]

    @staticmethod
    def _spawn(node: Node, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(node.command(*command), stdout=subprocess.PIPE, text=True)


def workload(node: Node) -> tuple[str, str]:
    """Addresses inside what `routes_of` has: known to others by BGP alone."""
    return f"10.{node.number}.1.1", f"2001:db8:{node.number}:1::1"


@pytest.mark.parametrize("graceful", [False, True], ids=["plain", "graceful"])
@pytest.mark.parametrize(("victim", "survivor"), [("catbird", "bird"), ("bird", "catbird"), ("catbird", "catbird")])
def test_no_packet_is_lost_when_one_of_two_reflectors_is_killed(
    world: World, victim: str, survivor: str, graceful: bool
) -> None:
    """Without graceful restart the clients must change over to the other's path before the kernel knows of it."""
    first, second = world.router(victim, ASN), world.router(survivor, ASN)
    clients = [world.catbird(ASN, kernel="program = true") for _ in range(2)]
    for reflector, other in ((first, second), (second, first)):
        peers = [peer_of(client, client=True, graceful_restart=graceful) for client in clients]
        reflector.start(*peers, peer_of(other, graceful_restart=graceful))
    for client in clients:
        for address in workload(client.node):
            client.node.ip("address", "add", address, "dev", "lo", *(("nodad",) if ":" in address else ()))
        client.start(*(peer_of(r, graceful_restart=graceful) for r in (first, second)), announce=routes_of(client))
    wait_both_paths(clients)
    with Losing(clients[0].node, clients[1].node) as losing:
        until(lambda: all_reach(clients), "packets flow")
        first.kill()
        for router in (*clients, second):
            wait_down(router, first.node.ipv4)
        # The survivor goes on reflecting.
        clients[0].announce(Announcement(prefix="10.200.0.0/16"))
        assert wait_routes(clients[1], "10.200.0.0/16")["10.200.0.0/16"].cluster_list == (second.router_id,)
        holds_for(lambda: all(map(is_programmed, clients)), "both kernels keep the routes without it", 0.5)
        first.start(recovering=graceful)
        for router in (*clients, second):
            wait_both(first, router)
        wait_both_paths(clients)
        holds_for(lambda: all(map(is_programmed, clients)), "nor is anything taken away late", 0.5)
    print(f"{victim} killed, {survivor} left: {losing.sent} packets sent, {losing.lost} lost")
    assert losing.sent > 200
    assert (losing.lost, losing.routes_lost) == (0, [])


def wait_both_paths(clients: list[Catbird]) -> None:
    """Each client has the other's routes from both reflectors, and in its kernel."""
    for reader, sender in (clients, clients[::-1]):
        for prefix in prefixes(routes_of(sender)):
            until(lambda: path_count(reader, prefix) == 2, f"two paths to {prefix}")  # noqa: B023 - called within the loop
    until(lambda: all(map(is_programmed, clients)), "all are in the kernels")


def is_programmed(client: Catbird) -> bool:
    """One IPv4 and one IPv6 route by BGP at least: the other client's."""
    return all("proto bird" in client.node.ip(family, "route") for family in ("-4", "-6"))


def path_count(reader: Catbird, prefix: str) -> int:
    return sum(len(view["paths"]) for view in reader.route_views(f"which=all&prefix={prefix}"))


def all_reach(clients: list[Catbird]) -> bool:
    one, two = (client.node for client in clients)
    pairs = [*zip(workload(one), workload(two), strict=True)]
    return all("1 received" in one.run("ping", "-c1", "-W1", "-I", a, b, check=False) for a, b in pairs)
