"""What Felix needs of the kernel and of the world outside. Thin adapters provide it; tests may provide others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from felix.desired import IPSetType, IPVersion, Message
from felix.filter_rules import Chain, Hook, HookRules, Table


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be programmed. It alone stays as it was and is tried again; `reason` in the kernel's words."""

    what: str  # `chain filter cali-pi-…`, `set s:…`, `route 10.0.0.1/32`, `interface cali123`
    reason: str


@dataclass(frozen=True, slots=True)
class RuleCount:
    """A rule's counter. `position` counts from 0 within the chain as it was given."""

    table: Table
    chain: str
    position: int
    packets: int
    octets: int


class PacketFilter(Protocol):
    """The rules, sets and maps of one IP version in the kernel.

    Everything but `apply`, `check` and `counts` only notes what is wanted, does no I/O, and may be repeated. A chain may
    name sets, chains and maps that were told before the next `apply`. What was programmed by an earlier process and is
    wanted again is adopted, or replaced in one transaction; packets never meet half a ruleset.
    """

    version: IPVersion
    has_verdict_maps: bool  # GoToByInterface may be used
    has_alternatives: bool  # NetAnyOf may be used, Ports takes any number of ranges, sets may be matched in any number

    def set_ip_set(self, id: str, type: IPSetType, members: Collection[str]) -> None:
        """Members of the other IP version are ignored."""
        ...

    def change_ip_set(self, id: str, added: Collection[str], removed: Collection[str]) -> None: ...

    def remove_ip_set(self, id: str) -> None: ...

    def set_chains(self, table: Table, chains: Iterable[Chain]) -> None: ...

    def remove_chains(self, table: Table, names: Iterable[str]) -> None: ...

    def set_hook(self, table: Table, hook: Hook, rules: HookRules) -> None: ...

    def set_map(self, table: Table, name: str, targets: Mapping[str, str]) -> None:
        """A whole verdict map: interface → chain. Only differences are written."""
        ...

    async def apply(self) -> list[Failure]:
        """Write what differs: sets that grow first, then chains and maps, then what is gone. Never raises for the kernel's refusals."""
        ...

    async def check(self) -> list[str]:
        """Compare with the kernel and mark what others altered or removed; the next `apply` puts it right. Says what it found."""
        ...

    async def counts(self, table: Table, chains: Iterable[str]) -> list[RuleCount]: ...

    async def remove_everything(self) -> None:
        """All of ours, historic names too (`catbird felix --clean-up`, or a change of renderer)."""
        ...


class Programmer(Protocol):
    """One part of the dataplane that follows the calculation: rules, workload routes, tunnels…"""

    def on_message(self, message: Message) -> None:
        """Note it; no I/O. Unknown messages are ignored."""
        ...

    async def apply(self, now: float) -> list[Failure]:
        """Make the kernel so. `now`: monotonic seconds. Never raises for what the kernel refuses."""
        ...


class InterfaceListener(Protocol):
    """Whoever wants to know of interfaces."""

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        """`addresses` without length. `up` is operational."""
        ...
