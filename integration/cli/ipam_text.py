"""What `catbird ipam show` and `check` print, in calicoctl's words: scripts read them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from integration.cli.boxes import box
from integration.ipam.survey import Survey
from integration.resources.fields import Address
from ipam.block import Attribute, Block, handle_of, host_of
from ipam.checking import Allocation, Findings
from ipam.repairing import Plan
from ipam.settings import Settings
from ipam.usage import BlockUsage, PoolUsage, Usage

USAGE = ("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE")
TOP = 20


def number(value: float) -> str:
    """Five significant digits, as Go's %.5g: the size of a large IPv6 pool would fill the screen."""
    return f"{value:.5g}"


def share(value: int, total: int) -> str:
    return f"{number(value)} ({100 * value / total:.0f}%)" if total else f"{number(value)} (0%)"


def usage_row(grouping: str, one: PoolUsage | BlockUsage) -> list[str]:
    total = one.capacity
    return [
        grouping, one.cidr, number(total), share(one.in_use, total), share(one.reserved, total), share(one.free, total),
    ]  # fmt: skip


def usage_lines(usage: Usage, *, with_blocks: bool) -> Iterator[str]:
    rows = []
    for pool in usage.pools:
        if pool.name:
            rows.append(usage_row("IP Pool", pool))
        if with_blocks:
            rows += [usage_row("Block", block) for block in pool.blocks]
    yield from box(USAGE, rows, frozenset({2}))


def usage_json(usage: Usage, *, with_blocks: bool) -> list[dict[str, Any]]:
    def counts(one: PoolUsage | BlockUsage) -> dict[str, Any]:
        return {
            "cidr": one.cidr,
            "total": one.capacity,
            "inUse": one.in_use,
            "reserved": one.reserved,
            "free": one.free,
        }

    found = []
    for pool in usage.pools:
        if not pool.name and not with_blocks:
            continue
        view: dict[str, Any] = {"pool": pool.name or None, **(counts(pool) if pool.name else {})}
        if with_blocks:
            view["blocks"] = [{**counts(block), "affinity": block.affinity} for block in pool.blocks]
        found.append(view)
    return found


def address_lines(address: Address, attribute: Attribute | None) -> Iterator[str]:
    if attribute is None:
        yield f"{address} is not assigned"
        return
    yield f"IP {address} is in use"
    if (handle := handle_of(attribute)) is not None:
        yield f"Handle ID: {handle}"
    secondary = attribute.get("secondary") or {}
    if secondary:
        yield "Attributes:"
        yield from (f"  {name}: {secondary[name]}" for name in sorted(secondary))
    else:
        yield "No attributes defined"


def borrowed_rows(blocks: Sequence[Block]) -> tuple[list[dict[str, str]], int]:
    """Addresses that a node has from another's block, and how many do not say whose they are."""
    found, unclassified = [], 0
    for block in blocks:
        owner = host_of(block.affinity)
        for ordinal, index in enumerate(block.allocations):
            if index is None or block.is_cooling(ordinal):
                continue
            secondary = block.attributes[index].get("secondary") or {}
            node = secondary.get("node")
            if node is None:
                unclassified += 1
            elif node != owner:
                pod = f"{secondary['namespace']}/{secondary['pod']}" if {"namespace", "pod"} <= secondary.keys() else ""
                found.append({
                    "ip": str(block.address(ordinal)), "borrowingNode": node, "block": str(block.cidr),
                    "blockOwner": owner or "", "type": secondary.get("type") or ("pod" if pod else ""), "allocatedTo": pod,
                })  # fmt: skip
    return found, unclassified


def borrowed_lines(rows: Sequence[dict[str, str]], unclassified: int) -> Iterator[str]:
    titles = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")
    yield from box(titles, [list(row.values()) for row in rows])
    if unclassified:
        yield f"{unclassified} addresses do not say which node has them."


def settings_json(settings: Settings) -> dict[str, Any]:
    return {
        "StrictAffinity": settings.strict_affinity,
        "AutoAllocateBlocks": settings.auto_allocate_blocks,
        "MaxBlocksPerHost": settings.max_blocks_per_host,
        "KubeVirtVMAddressPersistence": settings.vm_address_persistence,
        "IPCooldownSeconds": settings.cooldown_s,
    }


def settings_lines(settings: Settings) -> Iterator[str]:
    rows = [
        [name, str(value).lower() if isinstance(value, bool) else str(value)]
        for name, value in settings_json(settings).items()
    ]
    yield from box(("PROPERTY", "VALUE"), rows)


def check_lines(found: Survey, findings: Findings, *, all_ips: bool, problem_ips: bool) -> Iterator[str]:
    yield "Checking IPAM for inconsistencies..."
    yield ""
    yield "Loading all IPAM blocks..."
    yield f"Found {findings.block_count} IPAM blocks."
    for cidr, affinity in findings.affinities_of_blocks.items():
        yield f" IPAM block {cidr} affinity={affinity or '<none>'}:"
        if all_ips:
            yield from (
                f"  {one.address} allocated; attrs handle={one.handle or ''} {' '.join(f'{k}={v}' for k, v in sorted(one.attributes.items()))}"
                for each in findings.allocations.values()
                for one in each
                if one.block == cidr
            )
    yield f"IPAM blocks record {sum(map(len, findings.allocations.values()))} allocations."
    yield ""
    yield "Loading all IPAM pools..."
    yield from (f"  {pool.cidr}" for pool in found.evidence.pools)
    yield f"Found {len(found.evidence.pools)} active IP pools."
    yield ""
    yield "Loading all nodes."
    yield f"Found {len(found.node_addresses)} node tunnel IPs."
    yield ""
    yield "Loading all service load balancer IPs."
    yield f"Found {len(found.service_addresses)} service load balancer IPs."
    yield ""
    yield "Loading all workload endpoints."
    yield f"Found {len(found.workload_addresses)} workload IPs."
    yield f"Workloads and nodes are using {len(found.evidence.in_use)} IPs."
    yield ""
    yield "Loading all handles"
    yield from top_nodes(findings)
    yield from problem_lines(findings, found, show=problem_ips or all_ips)
    yield f"Check complete; found {findings.problems} problems."


def top_nodes(findings: Findings) -> Iterator[str]:
    counts = Counter(one.attributes.get("node", "<unknown>") for each in findings.allocations.values() for one in each)
    yield f"Looking for top (up to {TOP}) nodes by allocations..."
    for node, count in counts.most_common(TOP):
        yield f"  {node} has {count} allocations"
    if counts:
        yield f"Node with most allocations has {max(counts.values())}; median is {statistics.median_low(counts.values())}"
    yield ""


def problem_lines(findings: Findings, found: Survey, *, show: bool) -> Iterator[str]:
    yield "Scanning for IPs that are allocated but not actually in use..."
    if show:
        yield from (f"  {one.address} leaked; attrs {describe(one)}" for one in findings.leaked)
    leaked = len({one.address for one in findings.leaked})
    yield f"Found {leaked} IPs that are allocated in IPAM but not actually in use."
    yield "Scanning for IPs that are in use by a workload or node but not allocated in IPAM..."
    if show:
        for address in findings.outside_pools:
            yield f"  {address} in use by {', '.join(found.evidence.in_use[address])} is not in any active IP pool."
        for address in findings.not_allocated:
            yield f"  {address} in use by {', '.join(found.evidence.in_use[address])} and in an active IP pool but has no IPAM allocation."
    yield f"Found {len(findings.outside_pools)} in-use IPs that are not in active IP pools."
    yield (
        f"Found {len(findings.not_allocated)} in-use IPs that are in active IP pools but have no corresponding IPAM allocation."
    )
    yield ""
    yield "Scanning for IPAM handles with no matching IPs..."
    if show:
        yield from (f"  {handle.key.name} doesn't have any active IPs." for handle in findings.idle_handles)
    yield f"Found {len(findings.idle_handles)} handles with no matching IPs (and {findings.used_handles} handles with matches)."
    yield "Scanning for IPs with missing handle..."
    if show:
        yield from (
            f"  {name} is missing; it has {', '.join(map(str, each))}"
            for name, each in findings.missing_handles.items()
        )
    yield f"Found {len(findings.missing_handles)} handles mentioned in blocks with no matching handle resource."
    yield "Scanning for blocks that are invalid..."
    for cidr, problems in findings.bad_blocks.items():
        yield from (f"  {cidr}: {problem}" for problem in problems)
    yield f"Found {len(findings.bad_blocks)} invalid blocks."
    yield from disagreement_lines(findings, found)


def disagreement_lines(findings: Findings, found: Survey) -> Iterator[str]:
    yield "Scanning for handles, affinities and blocks that disagree..."
    for name, differing in findings.miscounted.items():
        yield from (
            f"  handle {name} counts {said} in {cidr}, which has {held}" for cidr, (said, held) in differing.items()
        )
    yield from (
        f"  block {cidr} is held by {findings.affinities_of_blocks[cidr]}, which has no affinity for it"
        for cidr in findings.lost_blocks
    )
    for one in findings.void_affinities:
        yield f"  the affinity of {one.key.namespace} for {one.key.name} stands for no block of its"
    yield from (f"  {name} cannot be read: {why}" for name, why in findings.unreadable)
    yield f"Found {findings.disagreements} disagreements."
    for text in found.unread:
        yield f"Warning: {text}"
    yield ""


def describe(one: Allocation) -> str:
    return " ".join(
        [f"handle={one.handle or ''}", *(f"{name}={text}" for name, text in sorted(one.attributes.items()))]
    )


def plan_lines(plan: Plan, *, is_acting: bool) -> Iterator[str]:
    if not plan.steps and not plan.left:
        yield "Nothing to repair."
        return
    for subject, why in plan.left:
        yield f"  left as it is: {subject}: {why}"
    if not is_acting:
        for step in plan.steps:
            yield f"  would {step.what}: {step.subject} {step.why}"
        yield f"{len(plan.steps)} repairs, {len(plan.left)} left to you. Nothing was changed: --yes repairs."
