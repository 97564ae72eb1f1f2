"""Route reflection (RFC 4456): catbird as the reflector of the others, as their client, above and below them."""

from __future__ import annotations

from tests.interop.router import Announcement, Router, SeenRoute, wait_no_routes, wait_routes
from tests.interop.world import World, peer_of, prefixes

ASN = 65001
CLUSTER = "10.99.0.1"  # nobody's router ID


def routes_of(router: Router) -> list[Announcement]:
    """One prefix of each family that tells whose it is, with all that a reflector must leave alone."""
    number = router.node.number
    return [
        Announcement(prefix=prefix, communities=(f"{ASN}:{number}",), med=30 + number, local_pref=150)
        for prefix in (f"10.{number}.1.0/24", f"2001:db8:{number}:1::/64")
    ]


def start_reflector(
    reflector: Router, *clients: Router, below: Router | None = None, above: Router | None = None
) -> None:
    """With sessions to the routers given; `below` is a reflector that is a client too, `above` one whose client this is."""
    peers = [peer_of(client, client=True) for client in clients]
    if below:
        peers.append(peer_of(below, client=True))
    if above:
        peers.append(peer_of(above))
    reflector.start(*peers)


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
    one.kill()
    assert set(prefixes(routes_of(two))).isdisjoint(two.routes("ipv4")), "nobody hears himself"


def test_two_clients_of_catbird_exchange_routes(world: World, kind: str) -> None:
    assert_reflects(world.catbird(ASN), world.router(kind, ASN), world.router(kind, ASN))


def test_two_catbirds_behind_a_reflector_exchange_routes(world: World, kind: str) -> None:
    assert_reflects(world.router(kind, ASN), world.catbird(ASN), world.catbird(ASN))
