"""Felix' routes in the kernel's main table: reading them, writing them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set

from felix.kernel.links import address_text
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
from felix.kernel.sockets import TRIES, DumpInterrupted, RequestSocket
from felix.ports import Failure
from felix.sync.routes import KernelRoute, WantedRoute

IPV6_DEFAULT_METRIC = 1024
BATCH = 500


def prefix_of(destination: str) -> tuple[int, Prefix]:
    """Family, and the prefix as rtnetlink's encoder has it."""
    address, _, bits = destination.partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    packed = socket.inet_pton(family, address)
    length = int(bits) if bits else len(packed) * 8
    return family, bytes((length,)) + packed[: (length + 7) >> 3]


def text_of(family: int, prefix: Prefix) -> str:
    octets = 16 if family == AF_INET6 else 4
    return f"{address_text(prefix[1:].ljust(octets, bytes(1)))}/{prefix[0]}"


class KernelRoutes:
    """A batch of 500 blocks for some milliseconds."""

    def __init__(self) -> None:
        self._socket = RequestSocket()
        self.port_id = self._socket.port_id

    def close(self) -> None:
        self._socket.close()

    async def read(self, wanted: Collection[str], is_ours: Callable[[int, int], bool]) -> list[KernelRoute]:
        """Of the main table what leads to a destination that is wanted, and what `is_ours` by protocol and interface index.

        Others get their turn in between: a BGP speaker may have filled the table. What changed while it was read is read
        again, some times. Raises OSError.
        """
        prefixes: dict[int, set[Prefix]] = {AF_INET: set(), AF_INET6: set()}
        for destination in wanted:
            family, prefix = prefix_of(destination)
            prefixes[family].add(prefix)
        found: list[KernelRoute] = []
        for family in (AF_INET, AF_INET6):
            found += await self._read_family(family, prefixes[family], is_ours)
        return found

    async def _read_family(
        self, family: int, prefixes: Set[Prefix], is_ours: Callable[[int, int], bool]
    ) -> list[KernelRoute]:
        for attempt in range(1, TRIES + 1):
            found: list[KernelRoute] = []
            try:
                for some in self._of_family(family, prefixes, is_ours):
                    found += some
                    await asyncio.sleep(0)
            except DumpInterrupted:
                if attempt == TRIES:
                    raise
            else:
                break
        return found

    def _of_family(
        self, family: int, prefixes: Set[Prefix], is_ours: Callable[[int, int], bool]
    ) -> Iterator[list[KernelRoute]]:
        decoder = RouteDecoder()
        kept: dict[int, tuple[Via, bool]] = {}  # by identity: the decoder makes equal ones one
        for data, answers in self._socket.dump(lambda sequence: dump_routes(family, RT_TABLE_MAIN, 0, sequence)):
            found = []
            for _, _, _, _, start, end in answers:
                prefix, via = decoder.decode(data, start, end)
                known = kept.get(id(via))
                if known is None:
                    # A kernel that does not filter tells of all tables.
                    is_kept = via.table == RT_TABLE_MAIN and is_ours(via.protocol, index_of(via))
                    known = kept[id(via)] = via, is_kept
                if known[1] or (prefix in prefixes and via.table == RT_TABLE_MAIN):
                    found.append(kernel_route(family, prefix, via))
            yield found

    async def write(
        self, puts: Sequence[WantedRoute], deletes: Sequence[KernelRoute], up: Mapping[str, int]
    ) -> list[Failure]:
        """A route that is wanted replaces one of the same metric, whoever's it is on a workload's interface.

        Where it cannot be written the old one stays. Others get their turn between batches. Raises OSError when what
        became of it is not known.
        """
        failures: list[Failure] = []
        encoders: dict[Via, RouteEncoder] = {}
        for at in range(0, len(puts), BATCH):
            if at:
                await asyncio.sleep(0)
            requests = []
            for route in puts[at : at + BATCH]:
                via = via_of(route, up)
                encoder = encoders.get(via)
                if encoder is None:
                    encoder = encoders[via] = RouteEncoder(via)
                requests.append((route.destination, encoder, True))
            failures += self._send(requests)
        unwritten = {failure.what for failure in failures}
        deletes = [one for one in deletes if what(one.destination) not in unwritten]
        for at in range(0, len(deletes), BATCH):
            await asyncio.sleep(0)
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


def _text(packed: bytes) -> str:
    return address_text(packed) if packed else ""


def index_of(via: Via) -> int:
    return via.hops[0].ifindex if via.hops else 0


def kernel_route(family: int, prefix: Prefix, via: Via) -> KernelRoute:
    metric = 0 if family == AF_INET6 and via.metric == IPV6_DEFAULT_METRIC else via.metric
    is_plain = via.is_plain and len(via.hops) <= 1 and via.type in (RTN_UNICAST, RTN_BLACKHOLE)
    hop = via.hops[0] if via.hops else Hop()
    return KernelRoute(
        text_of(family, prefix), index_of(via), _text(hop.gateway), via.protocol, metric, _text(via.prefsrc),
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
