"""What is known of our routes: wanted, written, waiting, left over. RouteWriter keeps these books."""

from __future__ import annotations

from dataclasses import dataclass, field

from bgp.families import Family, Nlri
from bgp.ports import FibRoute
from felix.kernel.rtnetlink import RouteEncoder, Via
from integration.node.route_templates import is_same_place


@dataclass(slots=True)
class Waiting:
    """A route that is not in the kernel, why, and when it is tried again (monotonic seconds)."""

    text: str
    retry_at: float
    delay_s: float


@dataclass(slots=True)
class Counters:
    writes: int = 0
    deletes: int = 0
    adopted: int = 0
    batches: int = 0
    errors: int = 0
    conflicts: int = 0
    put_back: int = 0


@dataclass(slots=True)
class FamilyRoutes:
    """One family. `stale`: of our protocol in the kernel, by prefix and metric, and not known to be wanted.

    `doomed`: the same, but to be deleted whether everything has converged or not.
    """

    family: Family
    desired: dict[Nlri, FibRoute] = field(default_factory=dict)
    programmed: dict[Nlri, RouteEncoder] = field(default_factory=dict)
    stale: dict[tuple[Nlri, int], Via] = field(default_factory=dict)
    doomed: dict[tuple[Nlri, int], Via] = field(default_factory=dict)
    waiting: dict[Nlri, Waiting] = field(default_factory=dict)
    conflicts: dict[Nlri, Via] = field(default_factory=dict)
    dirty: dict[Nlri, None] = field(default_factory=dict)
    lost_at: dict[Nlri, tuple[float, float]] = field(default_factory=dict)  # when last taken from us, next delay

    def take_left(self, prefix: Nlri, via: Via) -> Via | None:
        """A route of ours that stands where `via` shall stand, though it was not known to be wanted."""
        for left in (self.stale, self.doomed):
            found = left.get((prefix, via.metric))
            if found is not None and is_same_place(found, via):
                return left.pop((prefix, via.metric))
        return None


# One request of a batch: where it belongs, its prefix, what it writes (None: it deletes), what stood there before.
Request = tuple[FamilyRoutes, Nlri, RouteEncoder | None, RouteEncoder | None]


@dataclass(slots=True)
class Batch:
    messages: list[bytes] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
