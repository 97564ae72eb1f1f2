"""Felix' routes in the kernel's main table: reading them, writing them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence

from felix.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, KernelError
from felix.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTN_BLACKHOLE,
    RTN_UNICAST,
    Hop,
    Prefix,
    RouteDecoder,
    RouteEncoder,
    Via,
    dump_routes,
)
from felix.kernel.sockets import RequestSocket
from felix.ports import Failure
from felix.sync.routes import KernelRoute, WantedRoute

IPV6_DEFAULT_METRIC = 1024
BATCH = 500
LOOPBACK = 1


def prefix_of(destination: str) -> tuple[int, Prefix]:
    """Family, and the prefix as rtnetlink's encoder has it."""
    address, _, bits = destination.partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    packed = socket.inet_pton(family, address)
    length = int(bits) if bits else len(packed) * 8
    return family, bytes((length,)) + packed[: (length + 7) >> 3]


def text_of(family: int, prefix: Prefix) -> str:
    octets = 16 if family == AF_INET6 else 4
    return f"{socket.inet_ntop(family, prefix[1:].ljust(octets, bytes(1)))}/{prefix[0]}"


def address_text(packed: bytes) -> str:
    return socket.inet_ntop(AF_INET6 if len(packed) == 16 else AF_INET, packed) if packed else ""


class KernelRoutes:
    """Blocking; a batch of 500 takes some milliseconds."""

    def __init__(self) -> None:
        self._socket = RequestSocket()
        self.port_id = self._socket.port_id

    def close(self) -> None:
        self._socket.close()

    def read(self, protocol: int = 0) -> list[KernelRoute]:
        """The main table, or what carries `protocol`, both families. Raises OSError."""
        return [*self._of_family(AF_INET, protocol), *self._of_family(AF_INET6, protocol)]

    def _of_family(self, family: int, protocol: int) -> Iterator[KernelRoute]:
        decoder = RouteDecoder()
        for data, answers in self._socket.dump(lambda seq: dump_routes(family, RT_TABLE_MAIN, protocol, seq)):
            for _, _, _, _, start, end in answers:
                prefix, via = decoder.decode(data, start, end)
                # A kernel that does not filter tells all.
                if via.table == RT_TABLE_MAIN and protocol in (0, via.protocol):
                    yield kernel_route(family, prefix, via)

    def write(
        self, puts: Sequence[WantedRoute], deletes: Sequence[KernelRoute], up: Mapping[str, int]
    ) -> list[Failure]:
        """A route that is wanted replaces one of the same metric, whoever's it is on a workload's interface.

        Where it cannot be written the old one stays.
        """
        failures: list[Failure] = []
        for at in range(0, len(puts), BATCH):
            some = puts[at : at + BATCH]
            vias = [via_of(route, up) for route in some]
            failures += self._send(
                [(route.destination, RouteEncoder(via), True) for route, via in zip(some, vias, strict=True)]
            )
        unwritten = {failure.what for failure in failures}
        deletes = [one for one in deletes if what(one.destination) not in unwritten]
        for at in range(0, len(deletes), BATCH):
            failures += self._send(
                [(one.destination, RouteEncoder(_via_to_delete(one)), False) for one in deletes[at : at + BATCH]]
            )
        return failures

    def _send(self, requests: Sequence[tuple[str, RouteEncoder, bool]]) -> Iterable[Failure]:
        first = self._socket.sequences(len(requests))
        messages = []
        for sequence, (destination, encoder, is_put) in enumerate(requests, start=first):
            prefix = prefix_of(destination)[1]
            if is_put:
                messages.append(encoder.put(prefix, NLM_F_CREATE | NLM_F_REPLACE, sequence))
            else:
                messages.append(encoder.delete(prefix, sequence, is_exact=bool(encoder.via.hops)))
        errors = self._socket.write(messages, first)
        return [
            Failure(what(requests[at][0]), str(error))
            for at, error in errors.items()
            if not (_is_gone(error) and not requests[at][2])
        ]


def what(destination: str) -> str:
    """As `Failure.what` has it."""
    return f"route {destination}"


def _is_gone(error: KernelError) -> bool:
    return error.code in (errno.ESRCH, errno.ENOENT)


def kernel_route(family: int, prefix: Prefix, via: Via) -> KernelRoute:
    metric = 0 if family == AF_INET6 and via.metric == IPV6_DEFAULT_METRIC else via.metric
    is_plain = via.is_plain and len(via.hops) <= 1 and via.type in (RTN_UNICAST, RTN_BLACKHOLE)
    hop = via.hops[0] if via.hops else Hop()
    index = 0 if via.type == RTN_BLACKHOLE else hop.ifindex
    return KernelRoute(
        text_of(family, prefix), index, address_text(hop.gateway), via.protocol, metric, address_text(via.prefsrc),
        hop.onlink, is_plain,
    )  # fmt: skip


def via_of(route: WantedRoute, up: Mapping[str, int]) -> Via:
    family = AF_INET6 if ":" in route.destination else AF_INET
    metric = route.metric or (IPV6_DEFAULT_METRIC if family == AF_INET6 else 0)
    source = socket.inet_pton(family, route.source) if route.source else b""
    if not route.interface:
        return Via(family, RT_TABLE_MAIN, route.protocol, RTN_BLACKHOLE, RT_SCOPE_UNIVERSE, metric, source)
    gateway = socket.inet_pton(AF_INET6 if ":" in route.gateway else AF_INET, route.gateway) if route.gateway else b""
    scope = RT_SCOPE_LINK if family == AF_INET and not gateway else RT_SCOPE_UNIVERSE
    hop = Hop(gateway, up[route.interface], 1, route.is_onlink)
    return Via(family, RT_TABLE_MAIN, route.protocol, RTN_UNICAST, scope, metric, source, (hop,))


def _via_to_delete(one: KernelRoute) -> Via:
    """With its way out, so that no other of the same metric goes; several ways out are not known one by one."""
    family = AF_INET6 if ":" in one.destination else AF_INET
    metric = one.metric or (IPV6_DEFAULT_METRIC if family == AF_INET6 else 0)
    hops: tuple[Hop, ...] = ()
    if one.is_plain and one.interface_index:
        gateway = socket.inet_pton(AF_INET6 if ":" in one.gateway else AF_INET, one.gateway) if one.gateway else b""
        hops = (Hop(gateway, one.interface_index),)
    return Via(family, RT_TABLE_MAIN, one.protocol, metric=metric, hops=hops)
