"""Makes the plan's links, addresses and kernel routes: a fabric switch, routers on it, workloads behind the routers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from bgp.families import IPAddress
from integration.demo.namespaces import Namespace, Run
from integration.demo.plan import FABRIC_IPV4, FABRIC_IPV6, RACK_IPV4, RACK_IPV6, Plan, Router, Workload

FELIX_PROTOCOL = 80  # rtm_protocol of Felix's routes
SCOPE_LINK, SCOPE_UNIVERSE = 253, 0
NUD_PERMANENT = 0x80

# Felix gives every workload's host side this address, so that the workload's gateway never changes as it moves.
CALI_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAY_IPV4 = "169.254.1.1"
GATEWAY_IPV6 = "fe80::ecee:eeff:feee:eeee"  # the link-local address that follows from CALI_MAC

ROUTER_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/forwarding": "1",
}
# Duplicate address detection would keep an address unusable for its first second; the kernel adds link-local ones
# itself, for ours IFA_F_NODAD says so in the request.
IFA_F_NODAD = 0x02
ALL_SETTINGS = {"net/ipv6/conf/default/accept_dad": "0", "net/ipv6/conf/default/dad_transmits": "0"}
# What Felix sets on a workload's interface.
CALI_SETTINGS = {
    "net/ipv4/conf/{}/route_localnet": "1",
    "net/ipv4/neigh/{}/proxy_delay": "0",
    "net/ipv4/conf/{}/proxy_arp": "1",
    "net/ipv6/conf/{}/proxy_ndp": "1",
}


def build(plan: Plan, run: Run) -> None:
    fabric = run.add("fabric")
    fabric.run(_make_switch)
    for router in plan.routers:
        home = run.add(router.name)
        settings = ALL_SETTINGS if router.is_reflector else ALL_SETTINGS | ROUTER_SETTINGS
        home.run(lambda: write_settings(settings))  # noqa: B023 - called within the loop
        _plug_in(router, home, fabric)
        if router.is_whole:
            # The CNI plugin and Felix do the rest. A host without a default route answers no ARP for others.
            home.run(lambda: _default_route(plan.tor))
            for workload in router.workloads:
                run.add(workload.name).run(lambda: write_settings(ALL_SETTINGS))
            continue
        for workload in router.workloads:
            add_workload(router, workload, run)
        if not router.is_tor:
            home.run(_blackholes_of(router))


def add_workload(router: Router, workload: Workload, run: Run) -> None:
    """A namespace, its veth, and on the router what Felix writes for it (or a plain subnet, for the host in the rack)."""
    home = run.namespaces[router.name]
    inside = run.namespaces.get(workload.name) or run.add(workload.name)
    inside.run(lambda: write_settings(ALL_SETTINGS))
    home.run(lambda: _veth(workload.interface, inside, CALI_MAC))
    if router.is_tor:
        home.run(lambda: _serve_rack(workload))
        inside.run(lambda: _configure_rack_host(workload))
    else:
        home.run(lambda: write_felix_routes(workload))
        inside.run(lambda: _configure_pod(workload))


def remove_workload(router: Router, workload: Workload, run: Run) -> None:
    """As when a pod is deleted: its veth goes, and with it the kernel's routes."""
    run.namespaces[router.name].run(lambda: _delete_link(workload.interface))


def write_settings(settings: dict[str, str]) -> None:
    """Sysctls of the namespace this runs in. What the kernel has not got (IPv6 switched off, say) is left."""
    for name, value in settings.items():
        with suppress(FileNotFoundError):
            Path("/proc/sys", name).write_text(value)


def _make_switch() -> None:
    with IPRoute() as netlink:
        netlink.link("add", ifname="br0", kind="bridge", br_forward_delay=0, br_stp_state=0)
        netlink.link("set", index=_index(netlink, "br0"), state="up")


def _plug_in(router: Router, home: Namespace, fabric: Namespace) -> None:
    def at_switch() -> None:
        with IPRoute() as netlink:
            netlink.link("add", ifname=router.name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": home.fd})
            port = _index(netlink, router.name)
            netlink.link("set", index=port, master=_index(netlink, "br0"), state="up")

    def at_router() -> None:
        with IPRoute() as netlink:
            _up(netlink, "lo")
            eth0 = _index(netlink, "eth0")
            netlink.addr("add", index=eth0, address=str(router.ipv4), prefixlen=FABRIC_IPV4.prefixlen)
            _add_ipv6(netlink, eth0, router.ipv6, FABRIC_IPV6.prefixlen)
            _up(netlink, "eth0")

    fabric.run(at_switch)
    home.run(at_router)


def _default_route(tor: Router) -> None:
    with IPRoute() as netlink:
        netlink.route("add", dst="default", gateway=str(tor.ipv4), oif=_index(netlink, "eth0"))


def _veth(interface: str, inside: Namespace, mac: str) -> None:
    with IPRoute() as netlink:
        peer = {"ifname": "eth0", "net_ns_fd": inside.fd}
        netlink.link("add", ifname=interface, kind="veth", address=mac, peer=peer)
        write_settings({name.format(interface): value for name, value in CALI_SETTINGS.items()})
        _up(netlink, interface)


def write_felix_routes(workload: Workload) -> None:
    with IPRoute() as netlink:
        cali = _index(netlink, workload.interface)
        for prefix in workload.prefixes:
            netlink.route(
                "replace",
                family=AF_INET if prefix.version == 4 else AF_INET6,
                dst=str(prefix),
                oif=cali,
                proto=FELIX_PROTOCOL,
                scope=SCOPE_LINK if prefix.version == 4 else SCOPE_UNIVERSE,
            )


def _blackholes_of(router: Router) -> Callable[[], None]:
    """A block's holes must not follow a default route, or an aggregate learned from the ToR, back out."""

    def write() -> None:
        with IPRoute() as netlink:
            for block in router.aggregates:
                family = AF_INET if block.version == 4 else AF_INET6
                netlink.route("replace", family=family, dst=str(block), type="blackhole", proto=FELIX_PROTOCOL)

    return write


def _configure_pod(workload: Workload) -> None:
    with IPRoute() as netlink:
        eth0 = _start_workload(netlink)
        netlink.addr("add", index=eth0, address=str(workload.ipv4), prefixlen=32)
        _add_ipv6(netlink, eth0, workload.ipv6, 128)
        # Calico leaves this answer to proxy ARP, which needs a default route on the node. The nodes here have none, on
        # purpose: a packet arrives because of a BGP route or not at all.
        netlink.neigh("add", ifindex=eth0, dst=GATEWAY_IPV4, lladdr=CALI_MAC, state=NUD_PERMANENT)
        netlink.route("add", dst=f"{GATEWAY_IPV4}/32", oif=eth0, scope=SCOPE_LINK)
        netlink.route("add", dst="default", gateway=GATEWAY_IPV4, oif=eth0)
        netlink.route("add", family=AF_INET6, dst="default", gateway=GATEWAY_IPV6, oif=eth0)


def _serve_rack(workload: Workload) -> None:
    with IPRoute() as netlink:
        port = _index(netlink, workload.interface)
        netlink.addr("add", index=port, address=str(RACK_IPV4[1]), prefixlen=RACK_IPV4.prefixlen)
        _add_ipv6(netlink, port, RACK_IPV6[1], RACK_IPV6.prefixlen)


def _configure_rack_host(workload: Workload) -> None:
    with IPRoute() as netlink:
        eth0 = _start_workload(netlink)
        netlink.addr("add", index=eth0, address=str(workload.ipv4), prefixlen=RACK_IPV4.prefixlen)
        _add_ipv6(netlink, eth0, workload.ipv6, RACK_IPV6.prefixlen)
        netlink.route("add", dst="default", gateway=str(RACK_IPV4[1]), oif=eth0)
        netlink.route("add", family=AF_INET6, dst="default", gateway=str(RACK_IPV6[1]), oif=eth0)


def _add_ipv6(netlink: Any, index: int, address: IPAddress, bits: int) -> None:
    netlink.addr("add", index=index, address=str(address), prefixlen=bits, flags=IFA_F_NODAD)


def _start_workload(netlink: Any) -> int:
    _up(netlink, "lo")
    return _up(netlink, "eth0")


def _delete_link(interface: str) -> None:
    with IPRoute() as netlink, suppress(NetlinkError):
        netlink.link("del", index=_index(netlink, interface))


def _up(netlink: Any, interface: str) -> int:
    index = _index(netlink, interface)
    netlink.link("set", index=index, state="up")
    return index


def _index(netlink: Any, interface: str) -> int:
    found: list[int] = netlink.link_lookup(ifname=interface)
    if not found:
        raise NetlinkError(19, f"no interface {interface}")
    return found[0]
