"""A pod's network in the kernel: the veth pair, addresses, routes, sysctls on both sides.

As Calico's plugin lays it (cni-plugin/pkg/dataplane/linux): single addresses, a default route through 169.254.1.1 that
the host answers for by proxy ARP, IPv6 through the host side's link-local address. Blocking, some milliseconds.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from felix.kernel import devices
from felix.kernel.devices import LinkState
from felix.kernel.links import RTM_NEWADDR, RTM_NEWLINK, decode_address
from felix.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, KernelError
from felix.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_LINK,
    Hop,
    RouteDecoder,
    RouteEncoder,
    Via,
    dump_routes,
)
from felix.kernel.sockets import RequestSocket
from integration.cni.errors import GENERIC, IO_FAILURE, CNIError
from integration.cni.link_messages import create_veth
from integration.cni.namespaces import inside

HOST_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAY = "169.254.1.1"
LINK_LOCAL = "fe80::ecee:eeff:feee:eeee"  # of HOST_MAC, as the kernel forms it by default
LINK_LOCAL_TRIES, LINK_LOCAL_PAUSE_S = 20, 0.025
DELETING_POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class Wiring:
    """What one pod's network must be. Addresses with their length, routes as networks."""

    host_interface: str
    interface: str
    mtu: int
    addresses: Sequence[str]
    routes: Sequence[str]  # through the host
    mac: str = ""
    queues: int = 1
    allows_ip_forwarding: bool = False
    has_host_routes: bool = True  # not for the target of a live migration

    def of_version(self, version: int) -> list[str]:
        return [one for one in self.addresses if (":" in one) == (version == 6)]


class Kernel:
    """Requests in one namespace, with words for what it refuses."""

    def __init__(self) -> None:
        self._socket = RequestSocket()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, make: Callable[[int], bytes], what: str, ignored: Iterable[int] = ()) -> KernelError | None:
        """Send the message of a sequence number. Raises CNIError, unless the errno is among the ignored ones."""
        first = self._socket.sequences(1)
        error = self._socket.write([make(first)], first).get(0)
        if error is not None and error.code not in ignored:
            raise CNIError(GENERIC, f"{what}: {error}")
        return error

    def link(self, name: str) -> LinkState | None:
        try:
            for data, answers in self._socket.dump(lambda sequence: devices.get_link(sequence, name)):
                for kind, _, _, _, start, end in answers:
                    if kind == RTM_NEWLINK:
                        return devices.read_link(data, start, end)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        return None

    def addresses(self, index: int, family: int) -> list[bytes]:
        """Packed, those that may be used."""
        found = []
        for data, answers in self._socket.dump(lambda seq: devices.dump_addresses_of(seq, family, index)):
            for kind, _, _, _, start, end in answers:
                decoded = decode_address(data, start, end) if kind == RTM_NEWADDR else None
                if decoded is not None and decoded[0].ifindex == index and decoded[1]:
                    found.append(decoded[0].address)
        return found

    def add_route(self, destination: str, via: Via, ignored: Iterable[int] = ()) -> KernelError | None:
        prefix = wire_prefix(destination)
        encoder = RouteEncoder(via)
        return self.ask(
            lambda sequence: encoder.put(prefix, NLM_F_CREATE | NLM_F_EXCL, sequence), f"route {destination}", ignored
        )

    def routes(self, family: int) -> dict[bytes, list[Via]]:
        """The main table."""
        decoder = RouteDecoder()
        found: dict[bytes, list[Via]] = {}
        for data, answers in self._socket.dump(lambda sequence: dump_routes(family, 254, 0, sequence)):
            for _, _, _, _, start, end in answers:
                prefix, via = decoder.decode(data, start, end)
                if via.table == 254:
                    found.setdefault(prefix, []).append(via)
        return found


def wire_prefix(text: str) -> bytes:
    """`10.0.0.0/8` as the route encoder has it."""
    address, _, bits = text.partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    packed = socket.inet_pton(family, address)
    length = int(bits) if bits else len(packed) * 8
    return bytes((length,)) + packed[: (length + 7) >> 3]


def write_sysctl(path: str, value: str, *, is_needed: bool = True) -> None:
    """`path` below /proc/sys/net. Raises CNIError if it is needed and cannot be written."""
    file = Path("/proc/sys/net", path)
    try:
        if file.read_text().strip() != value:
            file.write_text(value)
    except OSError as error:
        if is_needed:
            raise CNIError(GENERIC, f"sysctl net/{path} = {value}: {error.strerror or error}") from None


def lay(wiring: Wiring, namespace: int) -> LinkState:
    """Make the pod's network, in place of an old pair of that name; the container's end as it is then. Raises CNIError.

    `namespace`: the pod's, open. What was made is removed again if something fails on the way.
    """
    with Kernel() as host:
        host.ask(
            lambda sequence: devices.delete_link(sequence, wiring.host_interface),
            f"removing the old {wiring.host_interface}", ignored=(errno.ENODEV,),
        )  # fmt: skip
        _create(host, wiring, namespace)
        try:
            return _configure(host, wiring, namespace)
        except BaseException:
            remove_host_interface(host, wiring.host_interface)
            raise


def _create(host: Kernel, wiring: Wiring, namespace: int) -> None:
    error = host.ask(
        lambda sequence: create_veth(
            sequence, host=wiring.host_interface, host_mac=HOST_MAC, container=wiring.interface,
            container_mac=wiring.mac, namespace=namespace, mtu=wiring.mtu, queues=wiring.queues,
        ),
        f"veth {wiring.host_interface} – {wiring.interface}", ignored=(errno.EEXIST,),
    )  # fmt: skip
    if error is not None:
        raise CNIError(
            GENERIC, f"the container already has an interface {wiring.interface}", "DEL it before it is added again"
        )


def _configure(host: Kernel, wiring: Wiring, namespace: int) -> LinkState:
    link = host.link(wiring.host_interface)
    if link is None:
        raise CNIError(GENERIC, f"{wiring.host_interface} vanished while it was set up")
    _host_sysctls(wiring)
    host.ask(lambda sequence: devices.set_up(sequence, link.index), f"{wiring.host_interface} up")
    index = inside(namespace, lambda: _bring_up(wiring))
    gateway6 = _link_local(host, link) if wiring.of_version(6) else ""
    container = inside(namespace, lambda: _container_side(wiring, index, gateway6))
    if wiring.has_host_routes:
        for address in wiring.addresses:
            _add_host_route(host, wiring, link, address)
    return container


def _host_sysctls(wiring: Wiring) -> None:
    name = wiring.host_interface
    write_sysctl(f"ipv6/conf/{name}/accept_ra", "0", is_needed=False)
    if wiring.of_version(4):
        write_sysctl(f"ipv4/conf/{name}/route_localnet", "1")
        write_sysctl(f"ipv4/neigh/{name}/proxy_delay", "0", is_needed=False)
        write_sysctl(f"ipv4/conf/{name}/proxy_arp", "1")
        write_sysctl(f"ipv4/conf/{name}/forwarding", "1")
    if wiring.of_version(6):
        # Without duplicate address detection the link-local address is there at once.
        write_sysctl(f"ipv6/conf/{name}/accept_dad", "0")
        write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0")
        write_sysctl(f"ipv6/conf/{name}/proxy_ndp", "1")
        write_sysctl(f"ipv6/conf/{name}/forwarding", "1")


def _bring_up(wiring: Wiring) -> int:
    with Kernel() as container:
        link = container.link(wiring.interface)
        if link is None:
            raise CNIError(GENERIC, f"{wiring.interface} vanished from the container while it was set up")
        if wiring.of_version(6):
            for name in ("all", "default", "lo"):
                write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0")
            write_sysctl(f"ipv6/conf/{wiring.interface}/accept_dad", "0")
        container.ask(lambda sequence: devices.set_up(sequence, link.index), f"{wiring.interface} up")
        return link.index


def _link_local(host: Kernel, link: LinkState) -> str:
    """The host side's, which the pod's IPv6 goes through: formed from the MAC, unless somebody wants it otherwise."""
    found: list[str] = []
    for _ in range(LINK_LOCAL_TRIES):
        addresses = [socket.inet_ntop(AF_INET6, one) for one in host.addresses(link.index, AF_INET6)]
        found = [one for one in addresses if one.startswith("fe80:")]
        if LINK_LOCAL in found:
            return LINK_LOCAL
        if found:
            return found[0]
        time.sleep(LINK_LOCAL_PAUSE_S)
    raise CNIError(GENERIC, f"{link.name} has got no IPv6 link-local address", "is IPv6 disabled on the host?")


def _container_side(wiring: Wiring, index: int, gateway6: str) -> LinkState:
    with Kernel() as container:
        if wiring.of_version(4):
            through = _hop(GATEWAY, index)
            container.add_route(GATEWAY, Via(AF_INET, scope=RT_SCOPE_LINK, hops=(Hop(ifindex=index),)))
            for route in (one for one in wiring.routes if ":" not in one):
                container.add_route(route, Via(AF_INET, hops=(through,)))
        if gateway6:
            through = _hop(gateway6, index)
            for route in (one for one in wiring.routes if ":" in one):
                container.add_route(route, Via(AF_INET6, metric=1024, hops=(through,)))
        for address in wiring.addresses:
            container.ask(
                lambda sequence, address=address: devices.add_address(sequence, index, address),  # type: ignore[misc]
                f"address {address}",
            )
        forwarding = "1" if wiring.allows_ip_forwarding else "0"
        if wiring.of_version(4):
            write_sysctl("ipv4/ip_forward", forwarding)
        if wiring.of_version(6):
            write_sysctl("ipv6/conf/all/forwarding", forwarding)
        link = container.link(wiring.interface)
        if link is None:
            raise CNIError(GENERIC, f"{wiring.interface} vanished from the container while it was set up")
        return link


def _hop(address: str, index: int) -> Hop:
    return Hop(socket.inet_pton(AF_INET6 if ":" in address else AF_INET, address), index)


def host_via(address: str, index: int) -> Via:
    """The host's route to a pod: straight out of its interface, as Felix writes it too."""
    if ":" in address:
        return Via(AF_INET6, metric=1024, hops=(Hop(ifindex=index),))
    return Via(AF_INET, scope=RT_SCOPE_LINK, hops=(Hop(ifindex=index),))


def _add_host_route(host: Kernel, wiring: Wiring, link: LinkState, address: str) -> None:
    """One that is there already is right if it leads to this interface (Felix was quicker)."""
    via = host_via(address, link.index)
    error = host.add_route(address, via, ignored=(errno.EEXIST,))
    if error is None:
        return
    there = host.routes(via.family).get(wire_prefix(address), [])
    others = [hop.ifindex for one in there for hop in one.hops if hop.ifindex != link.index]
    if others or not there:
        name = ", ".join(sorted({_name_of(index) for index in others})) or "another interface"
        raise CNIError(
            GENERIC, f"the host already has a route to {address} through {name}, not {wiring.host_interface}",
            "somebody else has that address",
        )  # fmt: skip


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"


def remove_host_interface(host: Kernel, name: str) -> None:
    host.ask(lambda sequence: devices.delete_link(sequence, name), f"removing {name}", ignored=(errno.ENODEV,))


def unroute(host_interface: str, addresses: Iterable[str]) -> None:
    """Take away the host's routes to a pod: from here on nothing reaches its addresses."""
    with Kernel() as host:
        link = host.link(host_interface)
        if link is None:
            return
        for address in addresses:
            prefix, encoder = wire_prefix(address), RouteEncoder(host_via(address, link.index))
            host.ask(
                lambda sequence, prefix=prefix, encoder=encoder: encoder.delete(prefix, sequence),  # type: ignore[misc]
                f"route {address}", ignored=(errno.ESRCH, errno.ENOENT, errno.EINVAL),
            )  # fmt: skip


def remove(interface: str, host_interface: str, namespace: int | None) -> None:
    """Take the pod's network away, from whichever side it can still be reached. Nothing there is success. Raises CNIError."""
    if namespace is not None:
        inside(namespace, lambda: _remove_inside(interface))
    if host_interface:
        with Kernel() as host:
            remove_host_interface(host, host_interface)


def _remove_inside(interface: str) -> None:
    """Until the link is gone for everybody. The kernel answers a deletion some 30 ms later, when its memory is free too."""
    failures: list[CNIError] = []

    def delete() -> None:
        try:
            with Kernel() as container:
                remove_host_interface(container, interface)
        except CNIError as error:
            failures.append(error)

    deleting = threading.Thread(target=delete, name=f"delete {interface}")
    deleting.start()
    with Kernel() as container:
        while container.link(interface) is not None and deleting.is_alive():
            deleting.join(DELETING_POLL_S)
    if failures:
        raise failures[0]


def open_namespace(path: str) -> int | None:
    """A descriptor of the namespace; None if it is gone. Raises CNIError 5."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CNIError(IO_FAILURE, f"the network namespace {path}: {error.strerror or error}") from None


def problems_of(wiring: Wiring, namespace: int) -> list[str]:
    """What of a pod's network is not as ADD left it (CHECK). Routes that others added are no problem."""
    problems = []
    with Kernel() as host:
        link = host.link(wiring.host_interface)
        if link is None:
            return [f"the host has no interface {wiring.host_interface}"]
        if not link.is_up:
            problems.append(f"{wiring.host_interface} is down")
        if wiring.has_host_routes:
            problems += _missing_host_routes(host, wiring, link)
    return problems + inside(namespace, lambda: _container_problems(wiring))


def _missing_host_routes(host: Kernel, wiring: Wiring, link: LinkState) -> Iterable[str]:
    for family, version in ((AF_INET, 4), (AF_INET6, 6)):
        wanted = wiring.of_version(version)
        there = host.routes(family) if wanted else {}
        for address in wanted:
            hops = [hop.ifindex for via in there.get(wire_prefix(address), []) for hop in via.hops]
            if link.index not in hops:
                yield f"the host has no route to {address} through {wiring.host_interface}"


def _container_problems(wiring: Wiring) -> list[str]:
    with Kernel() as container:
        link = container.link(wiring.interface)
        if link is None:
            return [f"the container has no interface {wiring.interface}"]
        problems = [] if link.is_up else [f"{wiring.interface} is down"]
        if wiring.mac and link.mac != wiring.mac:
            problems.append(f"{wiring.interface} has the MAC {link.mac} and not {wiring.mac}")
        for family, version in ((AF_INET, 4), (AF_INET6, 6)):
            if not (wanted := wiring.of_version(version)):
                continue
            has = container.addresses(link.index, family)
            routes = container.routes(family)
            problems += [
                f"{wiring.interface} lacks the address {one}"
                for one in wanted
                if socket.inet_pton(family, one.partition("/")[0]) not in has
            ]
            problems += [
                f"the container lacks the route {one}"
                for one in wiring.routes
                if (":" in one) == (version == 6) and wire_prefix(one) not in routes
            ]
        return problems
