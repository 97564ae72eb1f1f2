"""Routes that really stand in the kernels, and the ones that are nobody's business."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.interop.lan import Node
from tests.interop.router import holds_for, until, wait_no_routes, wait_routes
from tests.interop.world import World, establish, peer_of, plain, prefixes, wait_both

KERNEL = 'program = true\nlearn = [{ protocol = "static" }]'


def kernel_routes(node: Node) -> dict[str, dict[str, Any]]:
    """`ip -j route` of both families by prefix, without what the kernel itself makes."""
    rows = [row for family in ("-4", "-6") for row in json.loads(node.ip(family, "-j", "-d", "route", "show"))]
    return {row["dst"]: row for row in rows if row.get("protocol") != "kernel"}


def test_learned_routes_stand_in_the_kernel_and_go_with_their_withdrawal(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    establish(catbird, other, announce_two=plain(65002))
    until(lambda: set(prefixes(plain(65002))) <= set(kernel_routes(catbird.node)), "both are in the kernel")
    routes = kernel_routes(catbird.node)
    assert routes["10.2.1.0/24"]["gateway"] == other.node.ipv4
    assert routes["10.2.1.0/24"]["dev"] == "eth0"
    assert routes["10.2.1.0/24"]["protocol"] == "bird"
    assert routes["10.2.1.0/24"]["metric"] == 32
    # BIRD and FRR send their link-local address beside the global one, and that is what to forward to (RFC 2545).
    gateway = routes["2001:db8:2:1::/64"]["gateway"]
    assert gateway == other.node.ipv6 or gateway.startswith("fe80:")
    other.withdraw("10.2.1.0/24")
    until(lambda: "10.2.1.0/24" not in kernel_routes(catbird.node), "the withdrawn one is gone")
    assert "2001:db8:2:1::/64" in kernel_routes(catbird.node)


def test_kernel_routes_are_learned_announced_and_withdrawn(world: World, kind: str) -> None:
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    catbird.node.ip("route", "add", "10.1.0.0/26", "dev", "lo", "proto", "static")
    catbird.node.ip("route", "add", "10.66.0.0/26", "dev", "lo", "proto", "110")
    establish(catbird, other)
    wait_routes(other, "10.1.0.0/26")
    catbird.node.ip("-6", "route", "add", "2001:db8:1::/64", "dev", "lo", "proto", "static")
    wait_routes(other, "2001:db8:1::/64")
    assert "10.66.0.0/26" not in other.routes("ipv4"), "only what the rules name is learned"
    catbird.node.ip("route", "delete", "10.1.0.0/26")
    wait_no_routes(other, "10.1.0.0/26")
    assert "2001:db8:1::/64" in other.routes("ipv6")


def test_foreign_routes_are_untouched_whatever_happens_to_catbird(world: World) -> None:
    catbird, bird = world.catbird(65001, kernel=KERNEL), world.bird()
    node = catbird.node
    node.ip("route", "add", "10.50.0.0/16", "via", bird.node.ipv4, "proto", "110")
    node.ip("route", "add", "10.2.1.0/24", "via", bird.node.ipv4, "metric", "500", "proto", "111")
    node.ip("route", "add", "blackhole", "10.51.0.0/24", "proto", "80")
    node.ip("-6", "route", "add", "2001:db8:50::/48", "via", bird.node.ipv6, "proto", "110")
    # The very prefix and metric that catbird would write: it must not replace what somebody else put there.
    node.ip("route", "add", "10.2.2.0/24", "via", bird.node.ipv4, "metric", "32", "proto", "112")

    def foreign() -> list[str]:
        lines = (node.ip("-d", "route", "show") + node.ip("-6", "-d", "route", "show")).splitlines()
        return sorted(
            line.strip() for line in lines if any(f"proto {n} " in f"{line} " for n in ("110", "111", "112", "80"))
        )

    before = foreign()
    assert len(before) == 5
    theirs = plain(65002, count=3)
    establish(catbird, bird, announce_two=theirs)
    until(lambda: "10.2.3.0/24" in kernel_routes(node), "catbird programs")
    assert foreign() == before
    catbird.kill()
    assert foreign() == before
    catbird.start()
    wait_both(catbird, bird)
    wait_routes(catbird, *prefixes(theirs))
    assert foreign() == before
    bird.withdraw("10.2.1.0/24", "10.2.2.0/24")
    wait_no_routes(catbird, "10.2.1.0/24", "10.2.2.0/24")
    until(lambda: "10.2.1.0/24 via 10.77.0.2 dev eth0 proto bird" not in node.ip("route"), "its own route is gone")
    assert foreign() == before
    catbird.stop()
    assert foreign() == before


def test_a_killed_catbird_finds_its_routes_again_and_drops_what_nobody_announces_now(world: World) -> None:
    """BIRD without graceful restart loses two prefixes while catbird is dead."""
    catbird, bird = world.catbird(65001, kernel=KERNEL), world.bird()
    theirs = plain(65002, count=3)
    establish(catbird, bird, announce_two=theirs)
    until(lambda: set(prefixes(theirs)) <= set(kernel_routes(catbird.node)), "all are in the kernel")
    catbird.kill()
    bird.withdraw("10.2.3.0/24", "2001:db8:2:3::/64")
    kept = {prefix for prefix in prefixes(theirs) if prefix in bird.announcements}
    catbird.start()

    def is_settled() -> bool:
        standing = set(kernel_routes(catbird.node))
        assert kept <= standing, "a route that still holds was taken away"
        return not {"10.2.3.0/24", "2001:db8:2:3::/64"} & standing

    until(is_settled, "what nobody announces any more is gone")


@pytest.mark.parametrize("kind", ["bird", "frr", "gobgp"])
def test_ipv4_over_an_ipv6_next_hop_stands_in_the_kernel(world: World, kind: str) -> None:
    """RFC 8950: `10.2.1.0/24 via inet6 fd77::2 dev eth0`; with a daemon that programs, in both kernels."""
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    establish(catbird, other, over="ipv6", announce_one=plain(65001), announce_two=plain(65002), extended_next_hop=True)
    until(lambda: "10.2.1.0/24" in kernel_routes(catbird.node), "catbird wrote it")
    via = kernel_routes(catbird.node)["10.2.1.0/24"]["via"]
    assert via["family"] == "inet6"
    assert via["host"] == other.node.ipv6 or via["host"].startswith("fe80:")
    if other.programs_kernel:
        until(lambda: "10.1.1.0/24" in kernel_routes(other.node), f"{kind} wrote ours")


def test_two_equal_paths_become_one_route_with_two_next_hops(world: World) -> None:
    catbird = world.catbird(65001, kernel=KERNEL, speaker_lines="multipath = 4")
    bird, frr = world.bird(65002), world.frr(65002)
    theirs = plain(65002)
    establish(catbird, bird, announce_two=theirs)
    frr.start(peer_of(catbird), announce=theirs)
    catbird.peers[frr.node.ipv4] = peer_of(frr)
    catbird.reload()
    wait_both(catbird, frr)

    def gateways(prefix: str) -> set[str]:
        route = kernel_routes(catbird.node).get(prefix, {})
        return {hop["gateway"] for hop in route.get("nexthops", [])}

    until(lambda: gateways("10.2.1.0/24") == {bird.node.ipv4, frr.node.ipv4}, "two next hops for IPv4")
    until(lambda: len(gateways("2001:db8:2:1::/64")) == 2, "two next hops for IPv6")
    frr.kill()
    until(lambda: kernel_routes(catbird.node)["10.2.1.0/24"].get("gateway") == bird.node.ipv4, "one is left")


@pytest.mark.parametrize("kind", ["bird", "frr"])
def test_packets_flow_between_addresses_that_only_bgp_made_known(world: World, kind: str) -> None:
    """Only with the daemons that program their kernel."""
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    catbird.node.ip("address", "add", "10.1.1.1/32", "dev", "lo")
    catbird.node.ip("address", "add", "2001:db8:1:1::1/128", "dev", "lo", "nodad")
    other.node.ip("address", "add", "10.2.1.1/32", "dev", "lo")
    other.node.ip("address", "add", "2001:db8:2:1::1/128", "dev", "lo", "nodad")
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002))
    until(lambda: set(prefixes(plain(65002))) <= set(kernel_routes(catbird.node)), "catbird's kernel knows the way")
    until(lambda: set(prefixes(plain(65001))) <= set(kernel_routes(other.node)), "the other's kernel the way back")
    catbird.node.run("ping", "-c", "1", "-W", "2", "-I", "10.1.1.1", "10.2.1.1")
    catbird.node.run("ping", "-6", "-c", "1", "-W", "2", "-I", "2001:db8:1:1::1", "2001:db8:2:1::1")


def test_an_originated_aggregate_stands_as_a_blackhole_and_goes_with_its_line(world: World) -> None:
    catbird, bird = world.catbird(65001, kernel=KERNEL, originate_lines="blackhole = true\n"), world.bird()
    establish(catbird, bird, announce_one=plain(65001))
    wait_routes(bird, *prefixes(plain(65001)))
    until(lambda: "blackhole 10.1.1.0/24 proto bird" in catbird.node.ip("route"), "IPv4 blackhole")
    until(lambda: "blackhole 2001:db8:1:1::/64" in catbird.node.ip("-6", "route"), "IPv6 blackhole")
    catbird.withdraw("10.1.1.0/24")
    wait_no_routes(bird, "10.1.1.0/24")
    until(lambda: "10.1.1.0/24" not in catbird.node.ip("route"), "its blackhole is gone")


@pytest.mark.parametrize("kind", ["bird", "frr"])
def test_no_packet_is_lost_while_catbird_is_killed_and_started_again(world: World, kind: str) -> None:
    """40 packets a second over routes that both sides learned by BGP, from before the kill until after the return."""
    catbird, other = world.catbird(65001, kernel=KERNEL), world.router(kind, 65002)
    catbird.node.ip("address", "add", "10.1.1.1/32", "dev", "lo")
    other.node.ip("address", "add", "10.2.1.1/32", "dev", "lo")
    establish(catbird, other, announce_one=plain(65001), announce_two=plain(65002), graceful_restart=True)
    until(lambda: set(prefixes(plain(65002))) <= set(kernel_routes(catbird.node)), "catbird's kernel knows the way")
    until(lambda: set(prefixes(plain(65001))) <= set(kernel_routes(other.node)), "the other's kernel the way back")
    wait_routes(catbird, *prefixes(plain(65002)))
    command = catbird.node.command("ping", "-i", "0.025", "-w", "60", "-I", "10.1.1.1", "10.2.1.1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ping:
        catbird.kill()
        catbird.start()
        wait_both(catbird, other)
        wait_routes(catbird, *prefixes(plain(65002)))
        wait_routes(other, *prefixes(plain(65001)))
        until(lambda: bool(catbird.show("/v1/status")["converged"]), "converged, so that what is stale is swept")
        holds_for(lambda: True, "the sweep is over", 0.5)
        ping.send_signal(signal.SIGINT)
        output = ping.communicate()[0]
    assert " 0% packet loss" in output, output[-300:]
    assert int(output.split(" packets transmitted")[0].split()[-1]) > 20, output[-300:]
