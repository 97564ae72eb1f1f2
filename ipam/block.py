"""One block: which of its addresses are free, and who holds the others. Values in, values out.

The stored form is Calico's (libcalico-go/lib/ipam/ipam_block.go), so that its nodes and ours share blocks; what it
knows and we do not is kept. An ordinal is an address's distance from the block's first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any

from integration.resources.fields import Address, Network, parse_network
from ipam.errors import AddressTaken, BrokenBlock
from ipam.moments import SECOND_NS, ns_of, text_of
from ipam.ports import Value
from ipam.reserved import Reserved

Interface = IPv4Interface | IPv6Interface
"""An assigned address with its block's prefix length."""
Attribute = dict[str, Any]
"""`handle_id`, `secondary` (who holds it), `releasedAt`, each absent if there is none."""
WINDOWS_HANDLE = "windows-reserved-ipam-handle"
MAX_BLOCK_BITS = 16  # a block of more addresses is nobody's; Calico's have 12 at most
FIELDS = frozenset({
    "cidr", "affinity", "affinity_claim_time", "allocations", "unallocated", "attributes", "sequenceNumber",
    "sequenceNumberForAllocation", "deleted", "hostAffinity",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostReservation:
    """Addresses that every new block sets aside at its start and end for the host itself (Windows)."""

    start: int = 0
    end: int = 0
    handle: str = WINDOWS_HANDLE
    note: str = "windows host rsvd"


@dataclass(slots=True)
class Block:
    """`unallocated` is in the order in which addresses are given out. Changed in place; `to_json` is what to store."""

    cidr: Network
    affinity: str | None
    claimed_at: str | None
    allocations: list[int | None]
    unallocated: list[int]
    attributes: list[Attribute]
    sequence_number: int
    sequence_numbers: dict[str, int]
    deleted: bool = False
    unknown: dict[str, Any] = field(default_factory=dict)

    # What it says

    @property
    def size(self) -> int:
        return len(self.allocations)

    @property
    def version(self) -> int:
        return self.cidr.version

    @property
    def holder_host(self) -> str | None:
        """The node it is affine to; None also for blocks held for load balancers."""
        return host_of(self.affinity)

    def address(self, ordinal: int) -> Address:
        return self.cidr[ordinal]

    def interface(self, ordinal: int) -> Interface:
        return ip_interface(f"{self.cidr[ordinal]}/{self.cidr.prefixlen}")

    def ordinal(self, address: Address) -> int:
        """Raises ValueError if it is not in this block."""
        if address not in self.cidr:
            raise ValueError(f"{address} is not in block {self.cidr}")
        return int(address) - int(self.cidr.network_address)

    def attribute(self, ordinal: int) -> Attribute | None:
        """None: the address is free."""
        index = self.allocations[ordinal]
        return None if index is None else self.attributes[index]

    def is_cooling(self, ordinal: int) -> bool:
        attribute = self.attribute(ordinal)
        return attribute is not None and bool(attribute.get("releasedAt"))

    def ordinals_of(self, handle: str) -> list[int]:
        indexes = {index for index, each in enumerate(self.attributes) if handle_of(each) == handle}
        return [ordinal for ordinal, index in enumerate(self.allocations) if index in indexes] if indexes else []

    def sequence_of(self, ordinal: int) -> int:
        return self.sequence_numbers.get(str(ordinal), 0)

    def is_empty(self) -> bool:
        """Nobody holds an address, the host's own reservation aside. One that cools down counts as held."""
        if len(self.unallocated) == self.size:
            return True
        held = [each for each in self.attributes if (handle_of(each) or "").lower() != WINDOWS_HANDLE]
        return not held or not any(
            index is not None and (handle_of(self.attributes[index]) or "").lower() != WINDOWS_HANDLE
            for index in self.allocations
        )

    def free_count(self, reserved: Reserved) -> int:
        """How many addresses may be assigned automatically."""
        if not reserved.touches(self.cidr):
            return len(self.unallocated)
        base = int(self.cidr.network_address)
        return sum(not reserved.holds(self.version, base + ordinal) for ordinal in self.unallocated)

    # Changes

    def assign_some(
        self, count: int, handle: str | None, attributes: Mapping[str, str] | None, reserved: Reserved
    ) -> list[int]:
        """The ordinals taken from the head of `unallocated`, fewer than `count` if there are fewer; reserved ones stay."""
        if count <= 0 or not self.unallocated:
            return []
        if not reserved.touches(self.cidr):
            taken, self.unallocated = self.unallocated[:count], self.unallocated[count:]
        else:
            base = int(self.cidr.network_address)
            taken, kept = list[int](), list[int]()
            for ordinal in self.unallocated:
                is_wanted = len(taken) < count and not reserved.holds(self.version, base + ordinal)
                (taken if is_wanted else kept).append(ordinal)
            self.unallocated = kept
        self._point(taken, attribute_of(handle, attributes))
        return taken

    def assign(self, ordinal: int, handle: str | None, attributes: Mapping[str, str] | None) -> None:
        """One address, reserved or not. Raises AddressTaken."""
        if self.allocations[ordinal] is not None:
            why = "cools down" if self.is_cooling(ordinal) else "is assigned already"
            raise AddressTaken(f"{self.address(ordinal)} {why}")
        self.unallocated.remove(ordinal)
        self._point([ordinal], attribute_of(handle, attributes))

    def _point(self, ordinals: Iterable[int], attribute: Attribute) -> None:
        """Identical attributes are stored once."""
        index: int | None = None
        for ordinal in ordinals:
            if index is None:
                index = self._index_of(attribute)
            self.allocations[ordinal] = index
            self.sequence_numbers[str(ordinal)] = self.sequence_number

    def _index_of(self, attribute: Attribute) -> int:
        try:
            return self.attributes.index(attribute)
        except ValueError:
            self.attributes.append(attribute)
            return len(self.attributes) - 1

    def release(self, ordinals: Iterable[int], now_ns: int, *, by_handle: bool = False) -> dict[str, int]:
        """They begin to cool down; `collect` frees them. Returns how many each handle gave back.

        Ordinals must be held, and not cooling. By address, the address's sequence number becomes the block's, so that
        who has looked at it before cannot release it again; by handle it stays (Calico).
        """
        given_back: dict[str, int] = {}
        cooling = {"releasedAt": text_of(now_ns)}
        for ordinal in ordinals:
            attribute = self.attribute(ordinal)
            handle = handle_of(attribute) if attribute is not None else None
            if handle is not None:
                given_back[handle] = given_back.get(handle, 0) + 1
            self.allocations[ordinal] = self._index_of(cooling)
            if not by_handle:
                self.sequence_numbers[str(ordinal)] = self.sequence_number
        self.prune()
        return given_back

    def collect(self, now_ns: int, cooldown_s: int) -> int:
        """Free what has cooled down, to the end of `unallocated`; returns how many. Only this adds to `unallocated`."""
        done = {index for index, each in enumerate(self.attributes) if is_cool(each, now_ns, cooldown_s)}
        if not done:
            return 0
        freed = [ordinal for ordinal, index in enumerate(self.allocations) if index in done]
        for ordinal in freed:
            self.allocations[ordinal] = None
            self.sequence_numbers.pop(str(ordinal), None)
        self.unallocated += freed
        self.prune()
        return len(freed)

    def prune(self) -> None:
        """Forget attributes that no address has; the others keep their order."""
        used = {index for index in self.allocations if index is not None}
        if len(used) == len(self.attributes):
            return
        moved = {old: new for new, old in enumerate(sorted(used))}
        self.attributes = [self.attributes[old] for old in moved]
        self.allocations = [None if index is None else moved[index] for index in self.allocations]

    def to_json(self) -> Value:
        """What to store now: the sequence number is counted up, as with every write."""
        self.sequence_number += 1
        value: Value = {"cidr": str(self.cidr), "affinity": self.affinity}
        if self.claimed_at is not None:
            value["affinity_claim_time"] = self.claimed_at
        return value | {
            "allocations": list(self.allocations),
            "unallocated": list(self.unallocated),
            "attributes": [dict(each) for each in self.attributes],
            "sequenceNumber": self.sequence_number,
            "sequenceNumberForAllocation": dict(self.sequence_numbers),
            "deleted": self.deleted,
            **self.unknown,
        }


def new_block(cidr: Network, affinity: str, now_ns: int, reservation: HostReservation | None = None) -> Block:
    """All free. The sequence number begins with the clock, so that a block made again repeats none of its numbers."""
    size = cidr.num_addresses
    block = Block(cidr, affinity, text_of(now_ns), [None] * size, list(range(size)), [], now_ns, {})
    if reservation is not None and reservation.start + reservation.end:
        ends = {*range(min(reservation.start, size)), *range(max(0, size - reservation.end), size)}
        block.unallocated = [ordinal for ordinal in block.unallocated if ordinal not in ends]
        block.attributes = [attribute_of(reservation.handle, {"note": reservation.note})]
        for ordinal in ends:
            block.allocations[ordinal] = 0
    return block


def read_block(value: Mapping[str, Any], cidr_text: str) -> Block:
    """A block from its stored form. Raises BrokenBlock.

    `unallocated` is made to agree with `allocations`, which alone says who holds what: an address that stands in both
    would be given to two. `cidr_text` is what the key says.
    """
    try:
        cidr = parse_network(cidr_text, bare=False, masked=True)
        if parse_network(value["cidr"]) != cidr:
            raise ValueError(f"it says of itself that it is {value['cidr']}")
        if cidr.max_prefixlen - cidr.prefixlen > MAX_BLOCK_BITS:
            raise ValueError("it is larger than any block")
        block = Block(
            cidr,
            affinity_of(value),
            value.get("affinity_claim_time") or None,
            _indexes(value.get("allocations"), cidr.num_addresses, len(value.get("attributes") or ())),
            _ordinals(value.get("unallocated")),
            [_attribute(each) for each in value.get("attributes") or ()],
            int(value.get("sequenceNumber") or 0),
            {str(ordinal): int(number) for ordinal, number in (value.get("sequenceNumberForAllocation") or {}).items()},
            bool(value.get("deleted")),
            {name: part for name, part in value.items() if name not in FIELDS},
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        text = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise BrokenBlock(cidr_text, text) from None
    _agree(block)
    return block


def _indexes(values: object, size: int, attributes: int) -> list[int | None]:
    if not isinstance(values, list) or len(values) != size:
        raise ValueError(f"it has not {size} allocations")
    for index in values:
        if index is not None and not (type(index) is int and 0 <= index < attributes):
            raise ValueError(f"an allocation points at attribute {index!r}, which is not there")
    return list(values)


def _ordinals(values: object) -> list[int]:
    if not isinstance(values, list | None):
        raise ValueError("unallocated is no list")
    return list(values or ())


def _attribute(value: object) -> Attribute:
    if not isinstance(value, dict):
        raise ValueError("an attribute is no object")
    handle, secondary = value.get("handle_id"), value.get("secondary")
    if not isinstance(handle, str | None) or not isinstance(secondary, dict | None):
        raise ValueError("an attribute is not of its shape")
    return {name: part for name, part in value.items() if part is not None}


def _agree(block: Block) -> None:
    free = block.allocations.count(None)
    listed = block.unallocated
    try:
        if (
            len(listed) == free
            and len(set(listed)) == free
            and all(ordinal >= 0 and block.allocations[ordinal] is None for ordinal in listed)
        ):
            return
    except (TypeError, IndexError):
        pass
    free_ordinals = {ordinal for ordinal, index in enumerate(block.allocations) if index is None}
    kept = [each for each in dict.fromkeys(listed) if type(each) is int and each in free_ordinals]
    block.unallocated = kept + sorted(free_ordinals.difference(kept))


def affinity_of(value: Mapping[str, Any]) -> str | None:
    """Who holds a stored block: `host:NODE`, `virtual:NAME` or None. Old versions wrote the node's name alone."""
    affinity, old = value.get("affinity"), value.get("hostAffinity")
    if isinstance(affinity, str) and affinity:
        return affinity
    return f"host:{old}" if isinstance(old, str) and old else None


def host_of(affinity: str | None) -> str | None:
    kind, _, name = (affinity or "").partition(":")
    return name if kind == "host" else None


def attribute_of(handle: str | None, attributes: Mapping[str, str] | None) -> Attribute:
    made: Attribute = {} if handle is None else {"handle_id": handle}
    return made if attributes is None else made | {"secondary": dict(attributes)}


def handle_of(attribute: Mapping[str, Any]) -> str | None:
    """Old Windows nodes wrote handles with a carriage return and what came behind it."""
    handle: str | None = attribute.get("handle_id")
    return handle.partition("\r")[0] if handle is not None and "\r" in handle else handle


def is_cool(attribute: Mapping[str, Any], now_ns: int, cooldown_s: int) -> bool:
    """It was released, and long enough ago.

    The time is stored in whole seconds, so the release may be almost a second later than it says. Without a cool-down
    nothing depends on a clock. What is no time was released at some time.
    """
    released_at = attribute.get("releasedAt")
    if not released_at:
        return False
    if cooldown_s <= 0:
        return True
    try:
        return ns_of(released_at) + SECOND_NS <= now_ns - cooldown_s * SECOND_NS
    except (ValueError, TypeError):
        return True


def block_cidr(address: Address, block_size: int) -> Network:
    """The block of a pool in which the address is."""
    return parse_network(f"{address}/{block_size}")


def address_of(version: int, number: int) -> Address:
    """IPv6 addresses may be small numbers, too."""
    return ip_address(number) if version == 4 else ip_address(number.to_bytes(16, "big"))
