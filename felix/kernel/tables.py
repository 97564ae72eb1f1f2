"""A copy of what other programs have put into one of the kernel's routing tables. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from felix.kernel.netlink import NLM_F_REPLACE
from felix.kernel.rtnetlink import AF_INET6, Prefix, Via

Vias = tuple[Via, ...]  # of one prefix, lowest metric first: the order in which the kernel prefers them


class RouteTable:
    """One family of one table. A prefix has mostly one route; more differ in metric, or in nothing but their age.

    A single route is kept bare, not in a tuple: that is half of the memory of a table of a million routes.
    """

    def __init__(self, family: int) -> None:
        self._family = family
        self._max_bits = 128 if family == AF_INET6 else 32
        self._routes: dict[Prefix, Via | Vias] = {}
        self._lengths = [0] * (self._max_bits + 1)  # how many prefixes have this length

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[Prefix]:
        return iter(self._routes)

    def has_none_of(self, prefixes: Iterable[Prefix]) -> bool:
        return self._routes.keys().isdisjoint(prefixes)

    def get(self, prefix: Prefix) -> Vias:
        found = self._routes.get(prefix)
        if found is None:
            return ()
        return found if isinstance(found, tuple) else (found,)

    def at_metric(self, prefix: Prefix, metric: int) -> Via | None:
        found = self._routes.get(prefix)
        if found is None:
            return None
        if not isinstance(found, tuple):
            return found if found.metric == metric else None
        return next((via for via in found if via.metric == metric), None)

    def load(self, prefix: Prefix, via: Via) -> None:
        """Put in a route as a dump tells it."""
        routes = self._routes
        if prefix not in routes:
            routes[prefix] = via
            self._lengths[prefix[0]] += 1
        elif via not in (known := self.get(prefix)):
            routes[prefix] = tuple(sorted((*known, via), key=_by_metric))

    def put(self, prefix: Prefix, via: Via, flags: int) -> bool:
        """Put in a route as RTM_NEWROUTE tells it; False if it is not clear what became of the others there.

        IPv6 tells the whole set of next hops that stand at a metric. IPv4 tells one route, and whether it took the
        place of another of the same metric: of which one, if there are several, it does not say.
        """
        same = [known for known in self.get(prefix) if known.metric == via.metric]
        if same and (self._family == AF_INET6 or flags & NLM_F_REPLACE):
            self._set(prefix, [*(known for known in self.get(prefix) if known.metric != via.metric), via])
            return len(same) == 1
        self.load(prefix, via)
        return True

    def take(self, prefix: Prefix, via: Via) -> bool:
        """Take out a route as RTM_DELROUTE tells it; False if it does not fit what is known here."""
        known = list(self.get(prefix))
        for place, candidate in enumerate(known):
            if candidate == via:
                del known[place]
                self._set(prefix, known)
                return True
        # IPv6 tells of one next hop of several like of a route of its own.
        for place, candidate in enumerate(known):
            if candidate.metric == via.metric and set(via.hops) < set(candidate.hops):
                left = tuple(hop for hop in candidate.hops if hop not in via.hops)
                known[place] = replace(candidate, hops=left)
                self._set(prefix, known)
                return True
        return False

    def drop_metric(self, prefix: Prefix, metric: int) -> None:
        """A route of ours was put in the place of whatever stood at this metric."""
        known = self.get(prefix)
        if any(via.metric == metric for via in known):
            self._set(prefix, [via for via in known if via.metric != metric])

    def prefixes_where(self, holds: Callable[[Via], bool]) -> list[Prefix]:
        """The prefixes of which it holds for a route. Each distinct Via is asked once."""
        known: dict[int, bool] = {}  # by id(), as hashing costs more; the table keeps the Vias alive meanwhile

        def ask(found: Via | Vias) -> bool:
            answer = known.get(id(found))
            if answer is None:
                answer = known[id(found)] = any(map(holds, found if isinstance(found, tuple) else (found,)))
            return answer

        return [prefix for prefix, found in self._routes.items() if ask(found)]

    def longest_match(self, address: bytes, at_least_bits: int = 0) -> Vias:
        """The routes of the longest prefix that holds the packed address; empty: none does."""
        routes = self._routes
        number = int.from_bytes(address, "big")
        octets = self._max_bits >> 3
        for bits in range(self._max_bits, at_least_bits - 1, -1):
            if self._lengths[bits]:
                kept = number >> (self._max_bits - bits) << (self._max_bits - bits)
                prefix = bytes((bits,)) + kept.to_bytes(octets, "big")[: (bits + 7) >> 3]
                if prefix in routes:
                    return self.get(prefix)
        return ()

    def _set(self, prefix: Prefix, vias: list[Via]) -> None:
        if prefix in self._routes:
            self._lengths[prefix[0]] -= 1
        if not vias:
            self._routes.pop(prefix, None)
            return
        self._lengths[prefix[0]] += 1
        self._routes[prefix] = vias[0] if len(vias) == 1 else tuple(sorted(vias, key=_by_metric))


def _by_metric(via: Via) -> int:
    return via.metric
