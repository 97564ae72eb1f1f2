"""The interfaces of this network namespace and their addresses, as they are and as they change."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from felix.kernel.links import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    address_text,
    decode_address,
    decode_link,
    dump_addresses,
    dump_links,
)
from felix.kernel.netlink import NLM_F_REPLACE, NetlinkFormatError
from felix.kernel.routes import kernel_route
from felix.kernel.rtnetlink import RT_TABLE_MAIN, RTM_DELROUTE, RTM_NEWROUTE, RouteDecoder
from felix.kernel.sockets import MONITOR_BUFFER_OCTETS, DumpInterrupted, MonitorSocket, RepliesLost, RequestSocket
from felix.ports import InterfaceListener
from felix.sync.routes import KernelRoute

State = Literal["up", "down", "gone"]
READ_AT_ONCE = 500
READ_AGAIN_S = 1.0


@dataclass(slots=True)
class Interface:
    """`is_up` is operational: somebody wants it up, and it has a carrier."""

    index: int
    name: str
    is_up: bool
    addresses: frozenset[str] = frozenset()


class RouteListener(Protocol):
    """Told of what others do to the main table: routes of certain protocols, and replacements whose protocol is anybody's."""

    def route_changed(self, route: KernelRoute, *, is_gone: bool, is_replacement: bool) -> None:
        """As it is now, or as it was. What was replaced the kernel does not say."""
        ...

    def routes_lost(self) -> None:
        """Not everything could be told."""
        ...


class InterfaceMonitor:
    """Tells listeners of every interface when it starts, and of each change after that, once a loop turn.

    Also tells `routes` when somebody else than the socket `own_port_id` has changed a route of the main table. `start` and `close` from the event
    loop. Notifications that were lost (ENOBUFS) are made up for by reading everything anew.
    """

    def __init__(
        self,
        listeners: Iterable[InterfaceListener],
        routes: RouteListener,
        protocols: Collection[int],
        own_port_id: int,
        buffer_octets: int = MONITOR_BUFFER_OCTETS,
    ) -> None:
        self._listeners = list(listeners)
        self._routes = routes
        self._decoder = RouteDecoder()
        self._protocols = frozenset(protocols)
        self._own_port_id, self._buffer_octets = own_port_id, buffer_octets
        self._requests = RequestSocket()
        self._monitor: MonitorSocket | None = None
        self._by_index: dict[int, Interface] = {}
        self._addresses: dict[int, set[str]] = {}
        self._changed: set[int] = set()
        self._gone: dict[str, int] = {}
        self._is_telling = False

    def start(self) -> None:
        self._open()
        self._read_all()

    def close(self) -> None:
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
        self._requests.close()

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._monitor is not None:
            loop.remove_reader(self._monitor.fileno())
            self._monitor.close()
        self._monitor = MonitorSocket(self._own_port_id, [RT_TABLE_MAIN], buffer_octets=self._buffer_octets)
        loop.add_reader(self._monitor.fileno(), self._readable)

    def _readable(self) -> None:
        assert self._monitor is not None
        try:
            told = self._monitor.read(READ_AT_ONCE)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._open()
            self._read_all()
            self._routes.routes_lost()
            return
        for data, (kind, flags, _, _, start, end) in told:
            try:
                if kind in (RTM_NEWROUTE, RTM_DELROUTE):
                    # A BGP speaker writes thousands: only who might touch ours is looked at.
                    if flags & NLM_F_REPLACE or (end - start > 5 and data[start + 5] in self._protocols):
                        self._take_route(data, kind, start, end, is_replacement=bool(flags & NLM_F_REPLACE))
                else:
                    self._take(data, kind, start, end)
            except NetlinkFormatError:
                continue

    def _take_route(self, data: bytes, kind: int, start: int, end: int, *, is_replacement: bool) -> None:
        prefix, via = self._decoder.decode(data, start, end)
        if via.table == RT_TABLE_MAIN:
            route = kernel_route(data[start], prefix, via)
            is_gone = kind == RTM_DELROUTE
            self._routes.route_changed(route, is_gone=is_gone, is_replacement=is_replacement and not is_gone)

    def _take(self, data: bytes, kind: int, start: int, end: int) -> None:
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            link = decode_link(data, start, end)
            if link is not None:
                self._set_link(link.index, link.name, link.is_running, is_gone=kind == RTM_DELLINK)
        elif kind in (RTM_NEWADDR, RTM_DELADDR):
            decoded = decode_address(data, start, end)
            if decoded is not None:
                address, is_usable = decoded
                self._set_address(address.ifindex, address.address, kind == RTM_NEWADDR and is_usable)

    def _set_link(self, index: int, name: str, is_up: bool, *, is_gone: bool) -> None:
        before = self._by_index.get(index)
        if is_gone:
            if before is not None:
                del self._by_index[index]
                self._addresses.pop(index, None)
                self._gone[before.name] = index
                self._changed.discard(index)
        else:
            if before is not None and before.name != name:
                self._gone[before.name] = index
            if before is None or (before.name, before.is_up) != (name, is_up):
                self._by_index[index] = Interface(index, name, is_up)
                self._changed.add(index)
        self._tell_soon()

    def _set_address(self, index: int, packed: bytes, is_there: bool) -> None:
        text = address_text(packed)
        known = self._addresses.setdefault(index, set())
        if is_there == (text in known):
            return
        if is_there:
            known.add(text)
        else:
            known.discard(text)
        self._changed.add(index)
        self._tell_soon()

    def _read_all(self) -> None:
        """Everything anew; what is otherwise than known is told."""
        if self._monitor is None:
            return
        try:
            links, addresses = self._dump()
        except (DumpInterrupted, RepliesLost):
            asyncio.get_running_loop().call_later(READ_AGAIN_S, self._read_all)
            return
        for index in self._by_index.keys() - links.keys():
            self._set_link(index, "", False, is_gone=True)
        for index, (name, is_up) in links.items():
            self._set_link(index, name, is_up, is_gone=False)
            if self._addresses.get(index, set()) != addresses.get(index, set()):
                self._changed.add(index)
        self._addresses = addresses
        self._tell_soon()

    def _dump(self) -> tuple[dict[int, tuple[str, bool]], dict[int, set[str]]]:
        links: dict[int, tuple[str, bool]] = {}
        for data, answers in self._requests.dump(dump_links):
            for kind, _, _, _, start, end in answers:
                link = decode_link(data, start, end) if kind == RTM_NEWLINK else None
                if link is not None:
                    links[link.index] = (link.name, link.is_running)
        addresses: dict[int, set[str]] = {}
        for data, answers in self._requests.dump(dump_addresses):
            for kind, _, _, _, start, end in answers:
                decoded = decode_address(data, start, end) if kind == RTM_NEWADDR else None
                if decoded is not None and decoded[1]:
                    packed = decoded[0].address
                    text = address_text(packed)
                    addresses.setdefault(decoded[0].ifindex, set()).add(text)
        return links, addresses

    def _tell_soon(self) -> None:
        if not self._is_telling and (self._changed or self._gone):
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._is_telling = False
        gone, self._gone = self._gone, {}
        changed, self._changed = self._changed, set()
        names = {one.name for one in self._by_index.values()}
        for name, index in gone.items():
            if name not in names:
                self._tell_one(name, "gone", frozenset(), index)
        for index in changed:
            one = self._by_index.get(index)
            if one is not None:
                one.addresses = frozenset(self._addresses.get(index, ()))
                self._tell_one(one.name, "up" if one.is_up else "down", one.addresses, index)

    def _tell_one(self, name: str, state: State, addresses: frozenset[str], index: int) -> None:
        for listener in self._listeners:
            listener.interface_changed(name, state, addresses, index)
