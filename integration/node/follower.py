"""What a netlink notification means for what is known here, and for whom. No I/O, no clock."""

from __future__ import annotations

from bgp.config import KernelConfig
from felix.kernel.links import RTM_DELADDR, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, decode_address, decode_link
from felix.kernel.netlink import NLM_F_REPLACE, Frame
from felix.kernel.rtnetlink import RTM_DELROUTE, RTM_NEWROUTE, RouteDecoder
from felix.kernel.state import KernelState
from integration.node.learned_routes import LearnedRoutes
from integration.node.route_writer import RouteWriter


class Follower:
    """Keeps the state up, and notes what must be told, written or read anew because of it."""

    def __init__(
        self,
        config: KernelConfig,
        state: KernelState,
        decoder: RouteDecoder,
        learned: LearnedRoutes,
        writer: RouteWriter,
    ) -> None:
        self._config = config
        self._state = state
        self._decoder = decoder
        self._learned = learned
        self._writer = writer
        self._changed_links: set[int] = set()
        self._routes_moved = False
        self.is_in_doubt = False  # the kernel may hold something else than we think

    def set_config(self, config: KernelConfig) -> None:
        self._config = config

    def take_changed_links(self) -> frozenset[int]:
        """Links that changed their name or went up or down since the last call."""
        changed, self._changed_links = frozenset(self._changed_links), set()
        return changed

    def take_routes_moved(self) -> bool:
        """Whether next hops may resolve otherwise than at the last call."""
        moved, self._routes_moved = self._routes_moved, False
        return moved

    def all_moved(self) -> None:
        self._routes_moved = True

    def take(self, data: bytes, frame: Frame, now: float) -> None:
        """One notification. Raises NetlinkFormatError and changes nothing then."""
        kind, _, _, _, start, end = frame
        if kind in (RTM_NEWROUTE, RTM_DELROUTE):
            self._take_route(data, frame, now)
        elif kind in (RTM_NEWLINK, RTM_DELLINK):
            self._take_link(data, start, end, kind == RTM_NEWLINK)
        elif kind in (RTM_NEWADDR, RTM_DELADDR):
            self._take_address(data, start, end, kind == RTM_NEWADDR)

    def _take_route(self, data: bytes, frame: Frame, now: float) -> None:
        kind, flags, _, _, start, end = frame
        is_new, is_replacement = kind == RTM_NEWROUTE, bool(flags & NLM_F_REPLACE)
        prefix, via = self._decoder.decode(data, start, end)
        table = self._state.tables.get((via.family, via.table))
        if table is None or not via.is_plain:
            return
        may_concern_ours = self._config.program and via.table == self._config.table
        if via.protocol == self._config.route_protocol:
            if may_concern_ours and not is_new:
                self._writer.lost(prefix, via.family, via.metric, now, "deleted by another program")
            elif may_concern_ours:
                self._writer.seen(prefix, via, now)
                if is_replacement:
                    table.drop_metric(prefix, via.metric)
            return
        is_clear = table.put(prefix, via, flags) if is_new else table.take(prefix, via)
        self.is_in_doubt = self.is_in_doubt or not is_clear
        self._learned.touch(prefix, via)
        self._routes_moved = True
        if may_concern_ours and is_replacement:
            self._writer.lost(prefix, via.family, via.metric, now, "replaced by another program")
        elif may_concern_ours and not is_new:
            self._writer.foreign_went(prefix, via.family)

    def _take_link(self, data: bytes, start: int, end: int, is_new: bool) -> None:
        link = decode_link(data, start, end)
        if link is None:
            return
        links = self._state.links
        before = links.pop(link.index, None)
        if is_new:
            links[link.index] = link
        if before is None or (is_new and before == link):
            return  # nothing can stand on a link that was not there
        self._routes_moved = True
        if not is_new or (before.name, before.is_up) != (link.name, link.is_up):
            self._changed_links.add(link.index)
        if is_new and (link.is_up, link.is_running) > (before.is_up, before.is_running):
            self._writer.retry_all()
        if before.is_up and not (is_new and link.is_up):
            self.is_in_doubt = True  # the kernel drops the link's IPv4 routes and tells nobody

    def _take_address(self, data: bytes, start: int, end: int, is_new: bool) -> None:
        found = decode_address(data, start, end)
        if found is None:
            return
        address, is_usable = found
        if not self._state.set_address(address, is_usable if is_new else None):
            return
        self._routes_moved = True
        if is_new:
            self._writer.retry_all()
        elif len(address.address) == 4:
            self.is_in_doubt = True  # as with a link: what had it as its source, or was the last one's, is gone
