"""What the commands of `catbird ipam` do. Views come as lines for people and as one value for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from integration.cli.columns import visible
from integration.cli.ipam_text import (
    address_lines,
    borrowed_lines,
    borrowed_rows,
    check_lines,
    plan_lines,
    settings_json,
    settings_lines,
    usage_json,
    usage_lines,
)
from integration.cli.outcome import Failed, complain
from integration.datastore.api import Datastore
from integration.ipam.report import (
    ReportError,
    agreed_leaks,
    load_reports,
    refuse_reports,
    remove_handle,
    report_of,
)
from integration.ipam.splitting import SplitError, split
from integration.ipam.store import open_allocator
from integration.ipam.survey import cluster_facts, survey
from integration.resources.fields import Address, parse_address
from ipam.block import handle_of
from ipam.checking import find
from ipam.errors import NotAssigned
from ipam.releasing import Release
from ipam.repairing import plan
from ipam.scene import open_tools
from ipam.usage import usage

View = tuple[Iterable[str], Any]


def refuse(text: str) -> Failed:
    complain(text)
    return Failed()


def address_of(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise refuse(f"{text!r} {error}") from None


async def show_usage(datastore: Datastore, *, with_blocks: bool) -> View:
    found = await usage(open_allocator(datastore).access)
    for error in found.broken:
        complain(str(error))
    return usage_lines(found, with_blocks=with_blocks), usage_json(found, with_blocks=with_blocks)


async def show_address(datastore: Datastore, text: str) -> View:
    address = address_of(text)
    try:
        attribute = await open_allocator(datastore).attribute(address)
    except NotAssigned:
        return address_lines(address, None), {"ip": str(address), "assigned": False}
    view = {
        "ip": str(address),
        "assigned": True,
        "handle": handle_of(attribute),
        "attributes": attribute.get("secondary") or {},
    }
    return address_lines(address, attribute), view


async def show_borrowed_addresses(datastore: Datastore) -> View:
    blocks, broken = await (await open_tools(open_allocator(datastore).access)).blocks.all()
    for error in broken:
        complain(str(error))
    rows, unclassified = borrowed_rows([held.block for held in blocks])
    return borrowed_lines(rows, unclassified), {"borrowed": rows, "unclassified": unclassified}


async def show_settings(datastore: Datastore) -> View:
    settings = await open_allocator(datastore).settings()
    return settings_lines(settings), settings_json(settings)


async def check_cluster(
    datastore: Datastore, report: Path | None, *, all_ips: bool, problem_ips: bool, repair: bool, act: bool
) -> None:
    found = await survey(datastore)
    findings = find(found.evidence)
    is_printed = report is not None and str(report) == "-"
    if not is_printed:
        for line in check_lines(found, findings, all_ips=all_ips, problem_ips=problem_ips):
            print(visible(line))
    if report is not None:
        text = json.dumps(report_of(findings, found.cluster), indent=2) + "\n"
        if is_printed:
            print(text, end="")
        else:
            write(report, text)
    if not repair:
        return
    allocator = open_allocator(datastore)
    made = plan(allocator, findings, found.evidence, is_locked=found.cluster.is_locked, knows_users=not found.unread)
    for line in plan_lines(made, is_acting=act):
        print(visible(line))
    if act:
        for step in made.steps:
            print(visible(f"  {step.subject}: {await step.act()} ({step.why})"), flush=True)


def write(report: Path, text: str) -> None:
    try:
        report.write_text(text)
    except OSError as error:
        raise refuse(f"{report}: {error.strerror}") from None


async def release_address(datastore: Datastore, text: str) -> str:
    address = address_of(text)
    outcome = await open_allocator(datastore).release([Release(address)])
    if outcome.whole():
        raise refuse(f"IP address {address} is not assigned")
    return f"Successfully released IP address {address}"


async def release_reported(datastore: Datastore, paths: Sequence[Path], *, force: bool) -> list[str]:
    cluster = await cluster_facts(datastore)
    try:
        reports = load_reports(paths)
        refuse_reports(reports, cluster, force=force)
        leaks = agreed_leaks(reports)
    except ReportError as error:
        raise refuse(str(error)) from None
    outcome = await open_allocator(datastore).release(leaks.releases)
    results = [await remove_handle(datastore, name, revision) for name, revision in leaks.handles]
    for address, why in outcome.failed.items():
        complain(f"{address} is kept: {why}")
    said = [
        f"Released {len(outcome.released)} IPs successfully",
        f"{len(outcome.unallocated)} IPs were released already",
        f"Released {sum(results)} handles successfully; {len(results) - sum(results)} skipped",
    ]
    if outcome.failed:
        for line in said:
            print(line)
        raise Failed
    return said


NAMES = {
    "strict_affinity": "StrictAffinity",
    "max_blocks_per_host": "MaxBlocksPerHost",
    "vm_address_persistence": "KubeVirtVMAddressPersistence",
    "cooldown_s": "IPCooldownSeconds",
}


async def configure_cluster(datastore: Datastore, changes: Mapping[str, Any]) -> list[str]:
    allocator = open_allocator(datastore)
    await allocator.configure(replace(await allocator.settings(), **changes))
    return [
        f"Successfully set {NAMES[name]} to: {str(value).lower() if isinstance(value, bool) else value}"
        for name, value in changes.items()
    ]


async def split_pool(datastore: Datastore, parts: int, name: str, cidr: str) -> str:
    if not (await cluster_facts(datastore)).is_locked:
        raise refuse(
            "the datastore is not locked: nodes would assign addresses while the pool is split; "
            "set datastoreReady: false in ClusterInformation first, and true afterwards"
        )
    try:
        names = await split(datastore, parts, name=name, cidr=cidr)
    except (SplitError, ValueError) as error:
        raise refuse(str(error)) from None
    return f"Successfully split pool into {len(names)}: {', '.join(names)}"
