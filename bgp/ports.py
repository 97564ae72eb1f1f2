"""What the engine needs from outside. It never imports who provides it; `integration/node` plugs the parts together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bgp.families import Address, Family, Nlri


@dataclass(frozen=True, slots=True)
class NextHop:
    """One way out. `address` may be of the other family than the prefix (RFC 8950). `ifindex` 0 = let the kernel choose.

    A link-local `address` always comes with its `ifindex`. `on_link`: reachable although no subnet covers it.
    """

    address: Address
    ifindex: int = 0
    on_link: bool = False


@dataclass(frozen=True, slots=True)
class FibRoute:
    """What should stand in the kernel for one prefix. No next hops = blackhole (an originated aggregate)."""

    next_hops: tuple[NextHop, ...]
    preferred_source: Address = b""
    metric: int = 0  # 0 = the adapter's default


class Fib(Protocol):
    """Where best routes go."""

    def apply(self, family: Family, changes: Mapping[Nlri, FibRoute | None]) -> None:
        """Make these prefixes be so; None = no route of ours. Returns at once, writes in batches. Never raises."""

    def converged(self) -> None:
        """All peers have said End-of-RIB or timed out: what an earlier run left and nobody asked for may go now."""


@dataclass(frozen=True, slots=True)
class LearnedRoute:
    """A route that stands in the kernel and may be originated."""

    next_hop: Address = b""  # empty: blackhole or directly connected
    interface: str = ""
    protocol: int = 0  # rtm_protocol
    metric: int = 0
    behind_peers: bool = False  # as the learn rule says


@dataclass(frozen=True, slots=True)
class Resolution:
    """How to get to a BGP next hop by the kernel's table, never by a route of our own making."""

    reachable: bool
    metric: int = 0  # interior cost (RFC 4271 §9.1.2.2 e)
    hops: tuple[
        NextHop, ...
    ] = ()  # what to programme; the address is the gateway, or the next hop itself if on a connected subnet
    interface: str = ""


_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2


def through(address: Address, interface: str) -> Address:
    """What to track for an IPv4 address as it is reached through a device that takes packets to any."""
    return _MAPPED + address + interface.encode()


def split_through(address: Address) -> tuple[Address, str] | None:
    """The IPv4 address and the interface; None if the address was not made so."""
    if len(address) > 16 and address.startswith(_MAPPED):
        return address[12:16], address[16:].decode()
    return None


class NextHopTracker(Protocol):
    """Resolves next hops against the kernel and says when an answer changes (Speaker.next_hops_changed)."""

    def track(self, address: Address) -> Resolution:
        """Answer now and keep watching. A 32-octet address is global + link-local (RFC 2545).

        A link-local address alone is followed by the name of its interface: there it is somebody, elsewhere another.
        So is an IPv4 address (as an IPv4-mapped one, `through`) that is asked for on one interface, whatever the routes.
        """

    def forget(self, address: Address) -> None: ...


class Reflection(Protocol):
    """RFC 4456 as the engine asks for it. Without one nothing that an internal peer says goes to an internal peer.

    Compared by value: it is part of what makes peers be told the same.
    """

    @property
    def cluster_id(self) -> bytes: ...

    def passes(self, *, from_client: bool, to_client: bool) -> bool: ...

    def reflected(self, block: bytes, originator: bytes) -> bytes:
        """An internal peer's attribute block as it goes to another one; `originator`: that peer's BGP identifier."""

    def added(self, originator: bytes) -> bytes:
        """What `reflected` puts into a block that was not reflected before."""


class EventSink(Protocol):
    """Where the engine tells what happened: logs and metrics. Called for sessions and configuration, never per route."""

    def event(self, name: str, **fields: Any) -> None: ...


class FibListener(Protocol):
    """What the FIB adapter calls on the speaker."""

    def fib_changed(
        self, family: Family, announced: Iterable[tuple[Nlri, LearnedRoute]], withdrawn: Iterable[Nlri]
    ) -> None: ...

    def next_hops_changed(self, changed: Mapping[Address, Resolution]) -> None: ...

    def local_addresses_changed(self, addresses: frozenset[Address]) -> None: ...


class Transport(Protocol):
    """TCP, as the speaker needs it. `session` is a bgp.session.session.Session, used as a key."""

    def dial(self, session: Any, config: Any) -> None:
        """Connect as this PeerConfig says, then call Speaker.connection_made or connection_failed."""

    def send(self, session: Any, buffers: list[bytes | memoryview]) -> int:
        """Returns how many octets TCP has not taken yet. If that is not 0, Speaker.drained is called when it is."""

    def close(self, session: Any, abort: bool) -> None:
        """Send what is queued, then close; with `abort` at once."""

    def flush_soon(self) -> None:
        """Call Speaker.flush in this turn of the loop, after everything readable has been taken in."""

    def own_addresses(self, session: Any) -> dict[Family, Address]:
        """The session's own address, and one of the other family on the same interface if there is one."""
