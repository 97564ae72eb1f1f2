"""Host routes that the speaker needs before it can reach a peer (BGPPeer's reachableBy): BIRD's static routes in Calico.

They have a protocol number of their own, so that what an earlier run left is known, and nobody else's is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from bgp.families import IPV4, IPV6, prefix_text
from felix.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE
from felix.kernel.rtnetlink import (
    AF_INET,
    AF_INET6,
    RT_TABLE_MAIN,
    RTM_NEWROUTE,
    Hop,
    RouteDecoder,
    RouteEncoder,
    Via,
    dump_routes,
)
from felix.kernel.sockets import RequestSocket
from integration.bgpconfig import StaticRoute
from integration.logs import EventLog

PROTOCOL = 82
BY_AFI = {AF_INET: IPV4, AF_INET6: IPV6}

Prefix = bytes
Routes = dict[tuple[int, Prefix], Via]


class StaticRoutes:
    """In the main table. What the kernel refuses is logged and tried again with the next change."""

    def __init__(self, log: EventLog, open_socket: Callable[[], RequestSocket] = RequestSocket) -> None:
        self._log = log
        self._open_socket = open_socket
        self._socket: RequestSocket | None = None
        self._held: Routes = {}

    def put(self, routes: Iterable[StaticRoute]) -> None:
        """Make these the ones there are. A handful: it takes a fraction of a millisecond."""
        wanted = dict(map(_of, routes))
        try:
            if self._socket is None:
                self._socket = self._open_socket()
                self._held = _left_by_others(self._socket)
            if wanted != self._held:
                self._write(self._socket, wanted)
        except OSError as error:
            self._log.event("static_routes_failed", level="error", error=error.strerror or str(error))

    def _write(self, kernel: RequestSocket, wanted: Routes) -> None:
        changes: list[tuple[tuple[int, Prefix], Via | None]] = [(key, None) for key in self._held if key not in wanted]
        changes += [(key, via) for key, via in wanted.items() if self._held.get(key) != via]
        first = kernel.sequences(len(changes))
        messages = []
        for at, (key, via) in enumerate(changes):
            if via is None:
                messages.append(RouteEncoder(self._held[key]).delete(key[1], first + at))
            else:
                messages.append(RouteEncoder(via).put(key[1], NLM_F_CREATE | NLM_F_REPLACE, first + at))
        errors = kernel.write(messages, first)
        for at, (key, via) in enumerate(changes):
            if at in errors:
                self._log.event(
                    "static_route_failed",
                    level="error",
                    prefix=prefix_text(BY_AFI[key[0]], key[1]),
                    error=errors[at].text,
                )
            elif via is None:
                del self._held[key]
            else:
                self._held[key] = via

    def close(self) -> None:
        """The routes stay, as those of peers do: whoever starts next knows them."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _of(route: StaticRoute) -> tuple[tuple[int, Prefix], Via]:
    network = route.network
    family = AF_INET if network.version == 4 else AF_INET6
    octets = network.network_address.packed[: (network.prefixlen + 7) // 8]
    via = Via(family, protocol=PROTOCOL, hops=(Hop(route.gateway.packed),))
    return (family, bytes((network.prefixlen,)) + octets), via


def _left_by_others(kernel: RequestSocket) -> Routes:
    """Of our protocol, by an earlier run. Where they lead is of no matter: what is wanted is written again."""
    found: Routes = {}
    for family in (AF_INET, AF_INET6):
        decode = RouteDecoder().decode
        for data, frames in kernel.dump(partial(dump_routes, family, RT_TABLE_MAIN, PROTOCOL)):
            for kind, _, _, _, start, end in frames:
                if kind == RTM_NEWROUTE:
                    prefix, via = decode(data, start, end)
                    if (via.protocol, via.table) == (PROTOCOL, RT_TABLE_MAIN):
                        found[family, prefix] = via
    return found
