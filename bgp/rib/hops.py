"""The next hops that paths have, one `HopState` an address, and which of them are addresses of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bgp.families import Address
from bgp.ports import NextHopTracker
from bgp.rib.path import HERE, HopState

_KEPT = 4096


class Hops:
    """Without a `tracker` all are reachable."""

    def __init__(self, tracker: NextHopTracker | None) -> None:
        self._tracker = tracker
        self._states: dict[Address, HopState] = {}
        self._limit = _KEPT
        self._local: frozenset[Address] = frozenset()
        self._sessions: Counter[Address] = Counter()  # our addresses of Established sessions

    def track(self, address: Address) -> HopState:
        state = self._states.get(address)
        if state is None:
            resolution = HERE if self._tracker is None else self._tracker.track(address)
            state = self._states[address] = HopState(address, resolution, is_own=self._is_own(address))
        return state

    def known(self, addresses: Iterable[Address]) -> set[HopState]:
        return {self._states[address] for address in addresses if address in self._states}

    def set_local(self, addresses: frozenset[Address]) -> bool:
        """The kernel's addresses. True: some next hop is our own now, or no longer."""
        if addresses == self._local:
            return False
        self._local = addresses
        return self._mark_own()

    def count_session(self, address: Address, sessions: int) -> None:
        """One session more or less stands on this address of ours."""
        had = address in self._sessions
        self._sessions[address] += sessions
        if self._sessions[address] <= 0:
            del self._sessions[address]
        if had is not (address in self._sessions):
            self._mark_own()

    @property
    def are_many(self) -> bool:
        return len(self._states) >= self._limit

    def forget_all_but(self, used: set[Address]) -> None:
        """Nothing may hold the others any more."""
        for address in list(self._states):
            if address not in used:
                del self._states[address]
                if self._tracker is not None:
                    self._tracker.forget(address)
        self._limit = max(_KEPT, 2 * len(self._states))

    def _is_own(self, address: Address) -> bool:
        return address[:16] in self._local or address[:16] in self._sessions

    def _mark_own(self) -> bool:
        changed = False
        for address, state in self._states.items():
            is_own = self._is_own(address)
            changed = changed or is_own != state.is_own
            state.is_own = is_own
        return changed
