"""What is stored against what is in use: addresses that leaked, handles and blocks that disagree.

Calico: `calicoctl ipam check` (calicoctl/commands/ipam/check.go). Beyond it, what keeps the parts of the store together:
counts of handles, affinities without blocks and blocks without affinities. Values in, findings out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.resources.fields import Address
from integration.resources.keys import cidr_of
from ipam.block import WINDOWS_HANDLE, Block, affinity_of, handle_of, host_of, read_block
from ipam.errors import BrokenBlock
from ipam.handles import counts_of
from ipam.moments import SECOND_NS, ns_of
from ipam.pools import Pool, pool_of
from ipam.ports import Listed, Stored
from ipam.scene import network_or_none


@dataclass(frozen=True, slots=True)
class Allocation:
    """One address that a block says is held. `owners` are those that really use it, as texts for people."""

    address: Address
    block: str
    block_affinity: str | None
    handle: str | None
    sequence_number: int
    attributes: Mapping[str, str]
    is_cooling: bool
    owners: Sequence[str]

    @property
    def is_in_use(self) -> bool:
        return bool(self.owners)

    @property
    def is_leaked(self) -> bool:
        return not self.owners and not self.is_cooling

    @property
    def is_borrowed(self) -> bool:
        """By a node from another's block."""
        node, host = self.attributes.get("node"), host_of(self.block_affinity)
        return node is not None and node != host


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is. `in_use`: address → who uses it. `pools` are the enabled ones; `nodes` None: not known."""

    blocks: Listed
    affinities: Listed
    handles: Listed
    pools: Sequence[Pool]
    in_use: Mapping[Address, Sequence[str]]
    nodes: frozenset[str] | None
    now_ns: int


@dataclass(slots=True)
class Findings:
    """Addresses and names in order. Counts are of what Calico's check counts, `disagreements` aside."""

    block_count: int = 0
    blocks: dict[str, Block] = field(default_factory=dict)  # those that can be read
    affinities_of_blocks: dict[str, str | None] = field(default_factory=dict)
    allocations: dict[Address, list[Allocation]] = field(default_factory=dict)
    outside_pools: list[Address] = field(default_factory=list)
    not_allocated: list[Address] = field(default_factory=list)
    idle_handles: list[Stored] = field(default_factory=list)
    used_handles: int = 0
    missing_handles: dict[str, list[Address]] = field(default_factory=dict)
    bad_blocks: dict[str, list[str]] = field(default_factory=dict)
    miscounted: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)  # handle → block → said, held
    lost_blocks: list[str] = field(default_factory=list)  # held by a host that has no affinity for it
    void_affinities: list[Stored] = field(default_factory=list)  # no block, or another's
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    @property
    def leaked(self) -> list[Allocation]:
        return [one for each in self.allocations.values() for one in each if one.is_leaked]

    @property
    def disagreements(self) -> int:
        return len(self.miscounted) + len(self.lost_blocks) + len(self.void_affinities) + len(self.unreadable)

    @property
    def problems(self) -> int:
        """Handles that blocks name and that are missing are told, but not counted (Calico)."""
        leaked = sum(any(one.is_leaked for one in each) for each in self.allocations.values())
        bad = leaked + len(self.outside_pools) + len(self.not_allocated) + len(self.idle_handles)
        return bad + len(self.bad_blocks) + self.disagreements


def find(evidence: Evidence) -> Findings:
    findings = Findings(block_count=len(evidence.blocks.found))
    blocks = findings.blocks
    for key, why in evidence.blocks.unreadable:
        findings.bad_blocks[cidr_of(key)] = [why]
    for stored in evidence.blocks.found:
        cidr = cidr_of(stored.key)
        findings.affinities_of_blocks[cidr] = affinity_of(stored.value)
        problems = block_problems(stored.value, cidr, evidence.now_ns)
        if problems:
            findings.bad_blocks[cidr] = problems
        try:
            blocks[cidr] = read_block(stored.value, cidr)
        except BrokenBlock:
            continue
    collect_allocations(findings, blocks.values(), evidence.in_use)
    find_strays(findings, evidence)
    compare_handles(findings, blocks, evidence.handles)
    compare_affinities(findings, evidence)
    return findings


def block_problems(value: Mapping[str, Any], cidr: str, now_ns: int) -> list[str]:
    """What is wrong inside a block, each as a text for people; [] if nothing."""
    try:
        block = read_block(value, cidr)
    except BrokenBlock as error:
        return [error.why]
    problems = []
    used = {index for index in block.allocations if index is not None}
    problems += [f"attribute {index} is of no address" for index in range(len(block.attributes)) if index not in used]
    for attribute in block.attributes:
        released_at = attribute.get("releasedAt")
        try:
            if released_at and ns_of(released_at) > now_ns + SECOND_NS:
                problems.append(f"an address was released in the future ({released_at})")
        except (ValueError, TypeError):
            problems.append(f"an address was released at no time ({released_at!r})")
    listed = value.get("unallocated") or []
    problems += unallocated_problems(block, listed)
    return problems


def unallocated_problems(block: Block, listed: Sequence[Any]) -> list[str]:
    problems = []
    counts = Counter(ordinal for ordinal in listed if type(ordinal) is int)
    for ordinal in listed:
        if type(ordinal) is not int or not 0 <= ordinal < block.size:
            problems.append(f"the free ordinal {ordinal!r} is none of this block")
    for ordinal, count in counts.items():
        if count > 1:
            problems.append(f"ordinal {ordinal} is free {count} times")
        if 0 <= ordinal < block.size and block.allocations[ordinal] is not None:
            problems.append(f"ordinal {ordinal} ({block.address(ordinal)}) is both free and held")
    lost = sorted(ordinal for ordinal in block.unallocated if ordinal not in counts)
    if lost:
        problems.append(f"{len(lost)} addresses are neither free nor held, {block.address(lost[0])} for one")
    return problems


def collect_allocations(findings: Findings, blocks: Iterable[Block], in_use: Mapping[Address, Sequence[str]]) -> None:
    for block in blocks:
        cidr = str(block.cidr)
        for ordinal, index in enumerate(block.allocations):
            if index is None:
                continue
            attribute, address = block.attributes[index], block.address(ordinal)
            handle = handle_of(attribute)
            owners = list(in_use.get(address, ()))
            if (handle or "").lower() == WINDOWS_HANDLE:
                owners.append("Windows: set aside for the host")
            one = Allocation(
                address, cidr, block.affinity, handle, block.sequence_of(ordinal),
                {str(name): str(text) for name, text in (attribute.get("secondary") or {}).items()},
                block.is_cooling(ordinal), tuple(owners),
            )  # fmt: skip
            findings.allocations.setdefault(address, []).append(one)


def find_strays(findings: Findings, evidence: Evidence) -> None:
    for address in sorted(evidence.in_use, key=lambda address: (address.version, address)):
        if address in findings.allocations and not all(one.is_cooling for one in findings.allocations[address]):
            continue
        in_pool = pool_of(evidence.pools, address) is not None
        (findings.not_allocated if in_pool else findings.outside_pools).append(address)
    findings.outside_pools += [
        address
        for address, each in findings.allocations.items()
        if each[0].is_in_use and address in evidence.in_use and pool_of(evidence.pools, address) is None
        and address not in findings.outside_pools
    ]  # fmt: skip


def compare_handles(findings: Findings, blocks: Mapping[str, Block], handles: Listed) -> None:
    held: dict[str, Counter[str]] = {}
    addresses: dict[str, list[Address]] = {}
    for address, each in findings.allocations.items():
        for one in each:
            if one.handle is not None and one.handle.lower() != WINDOWS_HANDLE:
                held.setdefault(one.handle, Counter())[one.block] += 1
                addresses.setdefault(one.handle, []).append(address)
    there = {stored.key.name for stored in handles.found}
    findings.unreadable += [(str(key), why) for key, why in handles.unreadable]
    there |= {key.name for key, _ in handles.unreadable}
    for stored in handles.found:
        name, said = stored.key.name, counts_of(stored.value)
        if name not in held:
            # What it says of a block that cannot be read may be true.
            if all(cidr in blocks or cidr not in findings.bad_blocks for cidr in said):
                findings.idle_handles.append(stored)
            continue
        findings.used_handles += 1
        differing = {
            cidr: (said.get(cidr, 0), held[name][cidr])
            for cidr in sorted(said.keys() | held[name].keys())
            if said.get(cidr, 0) != held[name][cidr] and (cidr in blocks or cidr not in findings.bad_blocks)
        }
        if differing:
            findings.miscounted[name] = differing
    findings.missing_handles = {name: each for name, each in sorted(addresses.items()) if name not in there}


def compare_affinities(findings: Findings, evidence: Evidence) -> None:
    held = {
        (affinity, cidr) for cidr, affinity in findings.affinities_of_blocks.items()
    }  # fmt: skip
    said = set()
    for stored in evidence.affinities.found:
        cidr = cidr_of(stored.key)
        said.add((stored.key.namespace, cidr))
        if network_or_none(cidr) is None or (
            (stored.key.namespace, cidr) not in held and cidr not in findings.bad_blocks
        ):
            findings.void_affinities.append(stored)
    findings.unreadable += [(str(key), why) for key, why in evidence.affinities.unreadable]
    said |= {(key.namespace, cidr_of(key)) for key, _ in evidence.affinities.unreadable}
    findings.lost_blocks = sorted(
        cidr for affinity, cidr in held if affinity is not None and (affinity, cidr) not in said
    )
