"""Reports of `catbird ipam check -o FILE`, and what may be released by them. The form is calicoctl's.

An address is released only if every report calls it leaked, under the same handle and sequence number: what was assigned
anew between two reports is in use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.datastore.api import Datastore
from integration.datastore.errors import DoesNotExist, UpdateConflict
from integration.ipam.survey import ClusterFacts
from integration.resources.fields import Address, parse_address
from integration.resources.keys import Key
from integration.version import VERSION
from ipam.checking import Allocation, Findings
from ipam.releasing import Release


class ReportError(Exception):
    """A report that cannot be used; the text says which and why."""


def report_of(findings: Findings, cluster: ClusterFacts) -> dict[str, Any]:
    return {
        "version": f"v{VERSION}",
        "clusterGUID": cluster.guid,
        "datastoreLocked": cluster.is_locked,
        "clusterInformationRevision": cluster.revision,
        "clusterType": cluster.type,
        "allocations": {
            str(address): [entry_of(one) for one in each] for address, each in findings.allocations.items()
        },
        "leakedHandles": [{"ID": one.key.name, "UID": None, "Revision": one.revision} for one in findings.idle_handles],
    }


def entry_of(one: Allocation) -> dict[str, Any]:
    attributes = one.attributes
    return {
        "ip": str(one.address),
        "handle": one.handle or "",
        "sequenceNumber": one.sequence_number,
        "pod": attributes.get("pod", ""),
        "namespace": attributes.get("namespace", ""),
        "node": attributes.get("node", ""),
        "type": attributes.get("type", ""),
        "creationTimestamp": attributes.get("timestamp", ""),
        "inUse": one.is_in_use,
        "borrowed": one.is_borrowed,
        "coolingDown": one.is_cooling,
        "owners": list(one.owners),
    }


@dataclass(frozen=True, slots=True)
class Leaks:
    """What all reports agree on. `handles`: (id, revision)."""

    releases: list[Release]
    handles: list[tuple[str, str]]


def load_reports(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Raises ReportError."""
    found = []
    for path in paths:
        try:
            report = json.loads(path.read_text())
        except OSError as error:
            raise ReportError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise ReportError(f"{path}: no JSON: {error}") from None
        if not isinstance(report, dict) or not isinstance(report.get("allocations"), dict):
            raise ReportError(f"{path}: no report of `catbird ipam check -o` or `calicoctl ipam check -o`")
        found.append(report)
    return found


def refuse_reports(reports: Sequence[Mapping[str, Any]], cluster: ClusterFacts, *, force: bool) -> None:
    """Raises ReportError. Reports of another cluster are never used."""
    if any(report.get("clusterGUID") != cluster.guid for report in reports):
        raise ReportError("a report is of another cluster (clusterGUID)")
    if not any(report.get("clusterInformationRevision") == cluster.revision for report in reports):
        raise ReportError("no report is of the cluster's present ClusterInformation: check once more")
    if force:
        return
    if any(report.get("version") != f"v{VERSION}" for report in reports):
        raise ReportError(f"a report was made by another version than v{VERSION}; --force uses it all the same")
    if not cluster.is_locked or not all(report.get("datastoreLocked") for report in reports):
        raise ReportError(
            "the datastore is not locked, or was not when a report was made; lock it (datastoreReady: false in "
            "ClusterInformation) and check again, or use --force"
        )


def agreed_leaks(reports: Sequence[Mapping[str, Any]]) -> Leaks:
    """Raises ReportError if a report is not of its form."""
    try:
        sets = [set(leaked_in(report)) for report in reports]
        handles = [
            {(str(one["ID"]), str(one["Revision"])) for one in report.get("leakedHandles") or []} for report in reports
        ]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ReportError(f"a report is not of its form: {error!r}") from None
    agreed = sorted(set.intersection(*sets), key=lambda one: (one[0].version, one[0]))
    return Leaks(
        [Release(address, handle, number) for address, handle, number in agreed], sorted(set.intersection(*handles))
    )


def leaked_in(report: Mapping[str, Any]) -> Iterable[tuple[Address, str | None, int]]:
    for text, entries in report["allocations"].items():
        # An address that is in two blocks is nobody's to release.
        if len(entries) == 1 and not entries[0].get("inUse") and not entries[0].get("coolingDown"):
            number = entries[0]["sequenceNumber"]
            if type(number) is not int:
                raise ValueError(f"{text}: sequence number {number!r}")
            yield parse_address(text), entries[0].get("handle") or None, number


async def remove_handle(datastore: Datastore, name: str, revision: str) -> bool:
    """If it is still the one that was seen."""
    try:
        await datastore.delete(Key("IPAMHandle", name), revision=revision)
    except (DoesNotExist, UpdateConflict):
        return False
    return True
