"""Paths: attributes, where they came from, and how their next hop is reached. One object per UPDATE, shared by its prefixes."""

from __future__ import annotations

from bgp.config import RouteSource
from bgp.families import FAMILIES, Address, Family, Nlri
from bgp.ports import Resolution
from bgp.wire import as_path
from bgp.wire.attributes import PathAttributes

HERE = Resolution(reachable=True)


class HopState:
    """A next hop and what the kernel says of it. One object per address; the decision reads it, a change re-runs it."""

    __slots__ = ("address", "is_own", "resolution")

    def __init__(self, address: Address, resolution: Resolution, *, is_own: bool = False) -> None:
        self.address = address
        self.resolution = resolution
        self.is_own = is_own  # one of our own addresses: such a route would loop

    @property
    def reachable(self) -> bool:
        return self.resolution.reachable


LOCAL_HOP = HopState(b"", HERE)


class Source:
    """Who paths come from: a peer, the kernel or the configuration.

    `epoch` counts sessions: a path of an earlier one is stale (RFC 4724 §4.2). `rejected` keeps what import refused, so
    that a new policy can be applied without asking the peer again. `preference` comes before all that routes say, the
    lowest first: ours 0, a peer's 1.
    """

    __slots__ = (
        "accepted",
        "address",
        "default_local_pref",
        "epoch",
        "is_client",
        "kind",
        "name",
        "preference",
        "rejected",
        "router_id",
    )

    def __init__(
        self,
        name: str,
        kind: RouteSource,
        address: Address = b"",
        router_id: bytes = b"",
        *,
        preference: int | None = None,
    ) -> None:
        self.name = name
        self.preference = (0 if kind in ("kernel", "originate") else 1) if preference is None else preference
        self.kind: RouteSource = kind
        self.address = address
        self.router_id = router_id
        self.is_client = False  # RFC 4456
        self.epoch = 0
        self.default_local_pref = 100  # of its paths that carry none
        self.accepted = dict.fromkeys(FAMILIES, 0)
        self.rejected: dict[Family, dict[Nlri, Path]] = {family: {} for family in FAMILIES}

    @property
    def is_local(self) -> bool:
        return self.kind in ("kernel", "originate")

    def received(self, family: Family) -> int:
        return self.accepted[family] + len(self.rejected[family])


class Path:
    """`received` is what the peer sent, `attributes` what import made of it (the same object if it changed nothing).

    `rejected`: why import refused it, or ''.
    """

    __slots__ = ("_rank", "attributes", "epoch", "hop", "local_interface", "received", "rejected", "source")

    def __init__(
        self,
        source: Source,
        attributes: PathAttributes,
        hop: HopState,
        received: PathAttributes | None = None,
        rejected: str = "",
        local_interface: str = "",
    ) -> None:
        self.source = source
        self.attributes = attributes
        self.received = attributes if received is None else received
        self.hop = hop
        self.epoch = source.epoch
        self.rejected = rejected
        self.local_interface = local_interface
        self._rank: tuple[int, int, int, int] | None = None

    @property
    def is_stale(self) -> bool:
        return self.epoch != self.source.epoch

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """The steps that need no other path: local first, then RFC 4271 §9.1.1, §9.1.2.2 a and b. Lower is better."""
        rank = self._rank
        if rank is None:
            attributes = self.attributes
            block = attributes.block
            local_pref = self.source.default_local_pref
            if at := attributes.local_pref_at:
                length, origin = block[8] if block[6] else 0, block[3]
                if block.startswith(b"\x40\x05", at):
                    local_pref = int.from_bytes(block[at + 3 : at + 7], "big")
            else:
                fields = attributes.fields
                length, origin = fields.as_path_length, fields.origin
                if fields.local_pref is not None:
                    local_pref = fields.local_pref
            rank = self._rank = (self.source.preference, -local_pref, length, origin)
        return rank


class PathView:
    """A path as policies see it (bgp.policy.rules.RouteView)."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def as_path(self) -> tuple[int, ...]:
        return as_path.leading_sequence(self._path.attributes.fields.as_path)

    @property
    def communities(self) -> bytes:
        return self._path.attributes.fields.communities

    @property
    def extended_communities(self) -> bytes:
        return self._path.attributes.fields.extended_communities

    @property
    def large_communities(self) -> bytes:
        return self._path.attributes.fields.large_communities

    @property
    def local_pref(self) -> int | None:
        return self._path.attributes.fields.local_pref

    @property
    def next_hop(self) -> bytes:
        return self._path.attributes.next_hop

    @property
    def source(self) -> RouteSource:
        return self._path.source.kind

    @property
    def interface(self) -> str:
        return self._path.local_interface or self._path.hop.resolution.interface


Value = Path | tuple[Path, ...]  # of a destination; the best first where paths compete


def best_of(value: Value | None) -> Path | None:
    """The path in use, None if there is none that can be."""
    if value is None:
        return None
    path = value if type(value) is Path else value[0]  # type: ignore[index]
    return path if path.hop.resolution.reachable else None


def paths_of(value: Value | None) -> tuple[Path, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, Path) else value
