"""Putting right what `checking` found: first as a list that people read, then step by step.

Each step looks again before it writes and compares what it writes over, so that a cluster at work is not harmed: at worst a
step finds nothing to do.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from integration.resources.keys import cidr_of
from ipam.allocator import Allocator
from ipam.block import host_of
from ipam.checking import Allocation, Evidence, Findings
from ipam.errors import BrokenBlock, IpamError
from ipam.handles import counts_of, handle_key
from ipam.moments import SECOND_NS, ns_of
from ipam.ports import Changed, Missing, Stored, Value
from ipam.releasing import Release
from ipam.retrying import until_unchallenged
from ipam.scene import Tools, open_tools
from ipam.search import claim
from ipam.tunnels import TUNNELS

YOUNG_S = 300  # an address this young may be one whose pod is just being made
GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) \+0000 UTC.*")
TUNNEL_TYPES = frozenset(tunnel.type for tunnel in TUNNELS.values())


@dataclass(frozen=True, slots=True)
class Step:
    """`act` returns what it did, as a text."""

    subject: str
    why: str
    what: str
    act: Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Plan:
    """`left`: (subject, why nothing is done about it)."""

    steps: list[Step]
    left: list[tuple[str, str]]


def plan(allocator: Allocator, findings: Findings, evidence: Evidence, *, is_locked: bool, knows_users: bool) -> Plan:
    """`knows_users` False: not everything that may use an address could be read, so no address is released."""
    made = Plan([], [])
    for one in findings.leaked:
        reason = why_kept(one, evidence, is_locked=is_locked, knows_users=knows_users)
        if reason:
            made.left.append((str(one.address), reason))
        else:
            made.steps.append(release_step(allocator, one))
    made.steps.extend(handle_steps(allocator, findings))
    for cidr, problems in findings.bad_blocks.items():
        name, why = f"block {cidr}", "; ".join(problems)
        if cidr in findings.blocks:
            made.steps.append(Step(name, why, "write its free addresses anew", partial(rewrite, allocator, cidr)))
        else:
            made.left.append((name, f"{why}: restore or delete it"))
    made.steps.extend(affinity_steps(allocator, findings, evidence))
    made.left.extend((name, f"cannot be read: {why}") for name, why in findings.unreadable)
    for address in findings.outside_pools:
        made.left.append((str(address), "is in use and in no enabled pool: enable or make a pool, or move its user"))
    for address in findings.not_allocated:
        made.left.append((str(address), "is in use and not allocated: restart its user, so that it gets another"))
    return made


def why_kept(one: Allocation, evidence: Evidence, *, is_locked: bool, knows_users: bool) -> str:
    """Why an address that nobody seems to use is not released; "" if it may be."""
    if not knows_users:
        return "seems unused, but not all workloads could be read"
    kind = one.attributes.get("type", "")
    if kind not in TUNNEL_TYPES and not {"pod", "namespace"} <= one.attributes.keys():
        return "seems unused, but it is no pod's nor tunnel's: only its owner knows; `catbird ipam release --ip` releases it"
    if is_locked:
        return ""
    age_s = age_of(one, evidence.now_ns)
    if kind in TUNNEL_TYPES and evidence.nodes is not None and one.attributes.get("node") not in evidence.nodes:
        return ""
    if age_s is None:
        return "seems unused, but does not say since when: lock the datastore (datastoreReady: false) and check again"
    return "" if age_s >= YOUNG_S else f"is only {max(0, int(age_s))} s old: its user may be about to begin"


def age_of(one: Allocation, now_ns: int) -> float | None:
    found = GO_TIME.fullmatch(one.attributes.get("timestamp", ""))
    if found is None:
        return None
    try:
        return (now_ns - ns_of(f"{found[1]}T{found[2]}Z")) / SECOND_NS
    except ValueError:
        return None


def release_step(allocator: Allocator, one: Allocation) -> Step:
    async def act() -> str:
        outcome = await allocator.release([Release(one.address, one.handle, one.sequence_number)])
        for error in outcome.failed.values():
            return f"kept: {error}"
        return "released" if outcome.released else "was released meanwhile"

    who = one.attributes
    owner = f"pod {who['namespace']}/{who['pod']}" if "pod" in who and "namespace" in who else who.get("type", "nobody")
    return Step(
        str(one.address), f"is allocated to {owner} on {who.get('node', '?')}, and nobody uses it", "release it", act
    )


def handle_steps(allocator: Allocator, findings: Findings) -> Iterator[Step]:
    for stored in findings.idle_handles:
        name = stored.key.name
        yield Step(f"handle {name}", "has no addresses", "remove it", partial(recount_handle, allocator, name))
    for name, differing in findings.miscounted.items():
        text = ", ".join(f"{said} instead of {held} in {cidr}" for cidr, (said, held) in differing.items())
        yield Step(f"handle {name}", f"counts {text}", "count anew", partial(recount_handle, allocator, name))
    for name, addresses in findings.missing_handles.items():
        why = f"is missing, and holds {len(addresses)} addresses"
        yield Step(f"handle {name}", why, "make it", partial(recount_handle, allocator, name))


def affinity_steps(allocator: Allocator, findings: Findings, evidence: Evidence) -> Iterator[Step]:
    for stored in findings.void_affinities:
        name = f"affinity of {stored.key.namespace} for {cidr_of(stored.key)}"
        why = "there is no such block, or it is another's"
        yield Step(name, why, "remove it", partial(remove_affinity, allocator, stored))
    for cidr in findings.lost_blocks:
        holder = findings.affinities_of_blocks[cidr] or ""
        host = host_of(holder)
        is_gone = host is not None and evidence.nodes is not None and host not in evidence.nodes
        what = "give it up: there is no such node" if is_gone else "make the affinity"
        act = partial(find_again, allocator, cidr, holder, is_gone=is_gone)
        yield Step(f"block {cidr}", f"is held by {holder}, which has no affinity for it", what, act)
    for cidr, block in findings.blocks.items():
        if block.affinity is None and block.is_empty():
            yield Step(f"block {cidr}", "is nobody's and empty", "remove it", partial(remove_block, allocator, cidr))


async def recount_handle(allocator: Allocator, name: str) -> str:
    """Make the handle say what blocks say. Blocks of which it says too much are written first, as `release_handles` does."""
    tools = await open_tools(allocator.access)

    async def attempt() -> str:
        try:
            stored: Stored | None = await tools.store.get(handle_key(name))
        except Missing:
            stored = None
        said = counts_of(stored.value) if stored else {}
        held = await counts_held(tools, name, said)
        if stored is not None and held == said and said:
            return "is right already"
        value: Value = {**(stored.value if stored else {"deleted": False}), "block": held}
        try:
            if not held:
                if stored is not None:
                    await tools.store.delete(stored.key, stored.revision)
                return "removed"
            if stored is None:
                await tools.store.create(handle_key(name), value)
            else:
                await tools.store.update(stored.key, value, stored.revision)
        except Missing:
            raise Changed from None
        return f"counts {sum(held.values())} addresses"

    return await until_unchallenged(f"handle {name}", attempt)


async def counts_held(tools: Tools, name: str, said: dict[str, int]) -> dict[str, int]:
    """Raises Changed. All blocks are read: the handle may not name the one that has its addresses."""
    blocks, broken = await tools.blocks.all()
    unknown = {error.cidr for error in broken} & said.keys()
    counts = {cidr: said[cidr] for cidr in unknown}
    for held in blocks:
        count = len(held.block.ordinals_of(name))
        if count < said.get(held.cidr, 0):
            await tools.blocks.write(held)
        if count:
            counts[held.cidr] = count
    return counts


async def rewrite(allocator: Allocator, cidr: str) -> str:
    tools = await open_tools(allocator.access)

    async def attempt() -> str:
        held = await tools.blocks.get(cidr)
        held.block.prune()
        await tools.blocks.write(held)
        return "written"

    try:
        return await until_unchallenged(f"block {cidr}", attempt)
    except Missing:
        return "is gone"


async def remove_affinity(allocator: Allocator, stored: Stored) -> str:
    try:
        await allocator.access.store.delete(stored.key, stored.revision)
    except Missing:
        return "is gone"
    except Changed:
        return "kept: it was written meanwhile"
    return "removed"


async def find_again(allocator: Allocator, cidr: str, holder: str, *, is_gone: bool) -> str:
    tools = await open_tools(allocator.access)
    try:
        await claim(tools, holder, cidr)
        if not is_gone:
            return "confirmed"
        await tools.affinities.release(holder, cidr)
    except IpamError as error:
        return f"kept: {error}"
    return "given up"


async def remove_block(allocator: Allocator, cidr: str) -> str:
    tools = await open_tools(allocator.access)
    try:
        held = await tools.blocks.get(cidr)
        if held.block.affinity is not None or not held.block.is_empty():
            return "kept: somebody uses it now"
        await tools.blocks.delete(held)
    except Missing:
        return "is gone"
    except (Changed, BrokenBlock) as error:
        return f"kept: {error or 'it was written meanwhile'}"
    return "removed"
