"""`catbird ipam …` over a local store: what people and scripts read, and what is changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest

from integration.datastore.settings import load_settings, open_datastore
from integration.ipam.store import open_allocator
from integration.resources.keys import Key
from ipam.allocator import Allocator
from ipam.moments import go_text_of
from ipam.tunnels import assign_tunnel_address
from tests.integration.cli.commands import Commands, document

BLOCK = "10.65.0.0/26"


def work(catbird: Commands, what: Callable[[Allocator], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        datastore = open_datastore(load_settings(catbird.store, environment={}))
        try:
            return await what(open_allocator(datastore))
        finally:
            await datastore.close()

    return asyncio.run(run())


def put(catbird: Commands, key: Key, value: dict[str, Any]) -> None:
    async def run() -> None:
        datastore = open_datastore(load_settings(catbird.store, environment={}))
        await datastore.apply(key, value)
        await datastore.close()

    asyncio.run(run())


def pod(name: str, node: str = "a", age_s: int = 1000) -> dict[str, str]:
    return {"node": node, "pod": name, "namespace": "web", "timestamp": go_text_of(time.time_ns() - age_s * 10**9)}


@pytest.fixture
def cluster(catbird: Commands) -> Commands:
    """A pool, a reservation, two nodes, and two pods of which one is there."""
    catbird.applied(
        document("IPPool", "pool", {"cidr": "10.65.0.0/24", "ipipMode": "Always"})
        + document("IPReservation", "r", {"reservedCIDRs": ["10.65.0.60/30"]})
        + document("Node", "a", {"bgp": {"ipv4Address": "192.0.2.1/24"}})
        + document("Node", "b", {})
    )
    work(catbird, lambda made: made.assign_address(ip_address("10.65.0.1"), "a", "net.c1", pod("here")))
    work(catbird, lambda made: made.assign_address(ip_address("10.65.0.2"), "a", "net.c2", pod("gone")))
    endpoint = {
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "a-k8s-here-eth0", "namespace": "web"},
        "spec": {"node": "a", "orchestrator": "k8s", "pod": "here", "endpoint": "eth0", "ipNetworks": ["10.65.0.1/32"]},
    }  # fmt: skip
    put(catbird, Key("WorkloadEndpoint", "a-k8s-here-eth0", "web"), endpoint)
    return catbird


def lock(catbird: Commands, is_ready: bool = False) -> None:
    value = {"kind": "ClusterInformation", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "default"},
             "spec": {"clusterGUID": "g" * 32, "datastoreReady": is_ready, "clusterType": "k8s,bgp"}}  # fmt: skip
    put(catbird, Key("ClusterInformation", "default"), value)


def test_usage_is_drawn_as_calicoctl_draws_it(cluster: Commands) -> None:
    assert (
        cluster("ipam", "show", "--show-blocks").out
        == """\
+----------+--------------+-----------+------------+--------------+-----------+
| GROUPING |     CIDR     | IPS TOTAL | IPS IN USE | IPS RESERVED |  IPS FREE |
+----------+--------------+-----------+------------+--------------+-----------+
| IP Pool  | 10.65.0.0/24 |       256 | 2 (1%)     | 4 (2%)       | 250 (98%) |
| Block    | 10.65.0.0/26 |        64 | 2 (3%)     | 4 (6%)       | 58 (91%)  |
+----------+--------------+-----------+------------+--------------+-----------+
"""
    )
    assert "Block" not in cluster("ipam", "show").out
    [view] = cluster("ipam", "show", "-o", "json").json
    assert view == {"pool": "pool", "cidr": "10.65.0.0/24", "total": 256, "inUse": 2, "reserved": 4, "free": 250}


def test_blocks_without_a_pool_are_shown_below(cluster: Commands) -> None:
    assert cluster("delete", "ippool", "pool").code == 0
    lines = cluster("ipam", "show", "--show-blocks").lines
    assert [line for line in lines if "IP Pool" in line] == []
    assert "| Block    | 10.65.0.0/26 |" in "\n".join(lines)


def test_an_address_says_who_has_it(cluster: Commands) -> None:
    out = cluster("ipam", "show", "--ip", "10.65.0.1").lines
    assert out[:4] == ["IP 10.65.0.1 is in use", "Handle ID: net.c1", "Attributes:", "  namespace: web"]
    assert cluster("ipam", "show", "--ip", "10.65.0.9").out == "10.65.0.9 is not assigned\n"
    assert cluster("ipam", "show", "--ip", "10.65.0.1", "-o", "json").json["attributes"]["pod"] == "here"
    bad = cluster("ipam", "show", "--ip", "10.65.0")
    assert (bad.code, bad.err) == (1, "catbird: '10.65.0' is not an IP address\n")
    assert cluster("ipam", "show", "--ip", "10.65.0.1", "--show-blocks").code == 2


def test_borrowed_addresses_are_listed(cluster: Commands) -> None:
    work(cluster, lambda made: made.assign_address(ip_address("10.65.0.3"), "b", "net.c3", pod("far", "b")))
    work(cluster, lambda made: made.assign_address(ip_address("10.65.0.4"), "b", "x"))
    out = cluster("ipam", "show", "--show-borrowed").lines
    assert [cell.strip() for cell in out[3].split("|")[1:-1]] == ["10.65.0.3", "b", BLOCK, "a", "pod", "web/far"]
    assert out[-1] == "1 addresses do not say which node has them."
    assert cluster("ipam", "show", "--show-borrowed", "-o", "yaml").code == 0


def test_settings_are_shown_and_changed(cluster: Commands) -> None:
    done = cluster(
        "ipam", "configure", "--strictaffinity=true", "--max-blocks-per-host", "7", "--ip-cooldown-seconds=30"
    )
    assert done.lines == [
        "Successfully set StrictAffinity to: true", "Successfully set MaxBlocksPerHost to: 7",
        "Successfully set IPCooldownSeconds to: 30",
    ]  # fmt: skip
    assert cluster("ipam", "show", "--show-configuration", "-o", "json").json == {
        "StrictAffinity": True, "AutoAllocateBlocks": True, "MaxBlocksPerHost": 7,
        "KubeVirtVMAddressPersistence": "Enabled", "IPCooldownSeconds": 30,
    }  # fmt: skip
    refused = cluster("ipam", "configure", "--strictaffinity=false")
    assert (refused.code, "needs strict affinity" in refused.err) == (1, True)
    assert cluster("ipam", "configure").code == 2
    assert cluster("ipam", "configure", "--ip-cooldown-seconds=-1").code == 2


def test_check_finds_what_leaked_in_calicoctls_words(cluster: Commands) -> None:
    done = cluster("ipam", "check", "--show-problem-ips")
    assert done.code == 0
    for line in (
        "Checking IPAM for inconsistencies...", "Found 1 IPAM blocks.", f" IPAM block {BLOCK} affinity=host:a:",
        "IPAM blocks record 2 allocations.", "Found 1 active IP pools.", "Found 1 workload IPs.",
        "Node with most allocations has 2; median is 2",
        "Found 1 IPs that are allocated in IPAM but not actually in use.",
        "Found 0 in-use IPs that are not in active IP pools.",
        "Found 0 handles with no matching IPs (and 2 handles with matches).",
        "Check complete; found 1 problems.",
    ):  # fmt: skip
        assert line in done.lines
    assert any(line.startswith("  10.65.0.2 leaked; attrs handle=net.c2") for line in done.lines)


def test_tunnel_addresses_of_both_families_are_in_use(cluster: Commands) -> None:
    cluster.applied(document("IPPool", "six", {"cidr": "fd00::/64", "vxlanMode": "Always"}))
    six = work(cluster, lambda made: assign_tunnel_address(made, "a", "vxlan-v6"))
    four = work(cluster, lambda made: assign_tunnel_address(made, "a", "ipip"))
    cluster.applied(document("Node", "a", {"ipv6VXLANTunnelAddr": str(six), "bgp": {"ipv4IPIPTunnelAddr": str(four)}}))
    done = cluster("ipam", "check")
    assert "Found 2 node tunnel IPs." in done.lines
    assert "Check complete; found 1 problems." in done.lines


def test_repair_says_what_it_would_do_and_does_it_when_told(cluster: Commands) -> None:
    put(cluster, Key("IPAMHandle", "lost"), {"block": {BLOCK: 2}})
    said = cluster("ipam", "check", "--repair").out
    assert "would release it: 10.65.0.2 is allocated to pod web/gone on a, and nobody uses it" in said
    assert "would remove it: handle lost has no addresses" in said
    assert "2 repairs, 0 left to you. Nothing was changed: --yes repairs." in said
    assert cluster("ipam", "show", "--ip", "10.65.0.2").lines[0] == "IP 10.65.0.2 is in use"
    did = cluster("ipam", "check", "--repair", "--yes").out
    assert "10.65.0.2: released" in did
    assert "handle lost: removed" in did
    after = cluster("ipam", "check", "--repair").lines
    assert after[-2:] == ["Check complete; found 0 problems.", "Nothing to repair."]
    assert cluster("ipam", "show", "--ip", "10.65.0.1").lines[0] == "IP 10.65.0.1 is in use"
    assert cluster("ipam", "check", "--yes").code == 2


def test_repair_releases_nothing_while_a_workload_cannot_be_read(cluster: Commands) -> None:
    broken = {"metadata": {"name": "a-k8s-x-eth0", "namespace": "web"}, "spec": {"ipNetworks": ["nonsense"]}}
    put(cluster, Key("WorkloadEndpoint", "a-k8s-x-eth0", "web"), broken)
    out = cluster("ipam", "check", "--repair", "--yes").out
    assert "10.65.0.2: seems unused, but not all workloads could be read" in out
    assert cluster("ipam", "show", "--ip", "10.65.0.2").lines[0] == "IP 10.65.0.2 is in use"


def test_an_address_is_released_by_hand(cluster: Commands) -> None:
    assert cluster("ipam", "release", "--ip", "10.65.0.2").out == "Successfully released IP address 10.65.0.2\n"
    again = cluster("ipam", "release", "--ip", "10.65.0.2")
    assert (again.code, again.err) == (1, "catbird: IP address 10.65.0.2 is not assigned\n")
    assert cluster("ipam", "release").code == 2


def test_only_what_all_reports_call_leaked_is_released(cluster: Commands) -> None:
    lock(cluster)
    put(cluster, Key("IPAMHandle", "lost"), {"block": {BLOCK: 2}})
    assert cluster("ipam", "check", "-o", "one.json").code == 0
    report = json.loads((cluster.directory / "one.json").read_text())
    assert (report["clusterGUID"], report["datastoreLocked"]) == ("g" * 32, True)
    assert report["allocations"]["10.65.0.1"][0]["inUse"]
    assert not report["allocations"]["10.65.0.2"][0]["inUse"]
    assert [one["ID"] for one in report["leakedHandles"]] == ["lost"]
    other = json.loads(json.dumps(report))
    other["allocations"]["10.65.0.2"][0]["inUse"] = True
    cluster.file("two.json", json.dumps(other))
    both = cluster("ipam", "release", "--from-report", "one.json", "--from-report", "two.json")
    assert both.lines == [
        "Released 0 IPs successfully", "0 IPs were released already", "Released 1 handles successfully; 0 skipped",
    ]  # fmt: skip
    assert cluster("ipam", "release", "--from-report", "one.json").lines[0] == "Released 1 IPs successfully"
    assert cluster("ipam", "show", "--ip", "10.65.0.2").out == "10.65.0.2 is not assigned\n"
    assert cluster("ipam", "show", "--ip", "10.65.0.1").lines[0] == "IP 10.65.0.1 is in use"


def test_an_address_assigned_anew_since_the_report_is_kept(cluster: Commands) -> None:
    lock(cluster)
    cluster("ipam", "check", "-o", "one.json")

    async def again(made: Allocator) -> None:
        await made.release_handle("net.c2")
        await made.assign_address(ip_address("10.65.0.2"), "a", "net.c2", pod("new"))

    work(cluster, again)
    done = cluster("ipam", "release", "--from-report", "one.json")
    assert done.code == 1
    assert "10.65.0.2 is kept: 10.65.0.2 was assigned anew" in done.err
    assert cluster("ipam", "show", "--ip", "10.65.0.2").lines[0] == "IP 10.65.0.2 is in use"


@pytest.mark.parametrize(("change", "options", "why"), [
    ({"clusterGUID": "other"}, ["--force"], "another cluster"),
    ({"clusterInformationRevision": "1"}, ["--force"], "check once more"),
    ({"version": "v9.9.9"}, [], "another version"),
    ({"datastoreLocked": False}, [], "not locked"),
    ({"allocations": []}, [], "no report of"),
    ({"allocations": {"10.65.0.2": [{"ip": "x"}]}}, [], "not of its form"),
    ({"allocations": {"nonsense": [{"sequenceNumber": 1}]}}, [], "not of its form"),
    ({"leakedHandles": [7]}, [], "not of its form"),
])  # fmt: skip
def test_reports_that_do_not_fit_are_refused(
    cluster: Commands, change: dict[str, Any], options: list[str], why: str
) -> None:
    lock(cluster)
    cluster("ipam", "check", "-o", "one.json")
    report = json.loads((cluster.directory / "one.json").read_text())
    cluster.file("bad.json", json.dumps(report | change))
    done = cluster("ipam", "release", "--from-report", "bad.json", *options)
    assert done.code == 1
    assert why in done.err
    assert cluster("ipam", "show", "--ip", "10.65.0.2").lines[0] == "IP 10.65.0.2 is in use"


def test_a_report_goes_to_standard_output_alone(cluster: Commands) -> None:
    assert "10.65.0.1" in cluster("ipam", "check", "-o", "-").json["allocations"]
    assert cluster("ipam", "release", "--from-report", "missing.json").code == 1
    assert cluster("ipam", "check", "-o", "no/such/place.json").code == 1


def test_a_pool_is_split_with_its_blocks(cluster: Commands) -> None:
    refused = cluster("ipam", "split", "2", "--name", "pool")
    assert (refused.code, "not locked" in refused.err) == (1, True)
    lock(cluster)
    for parts, why in (("3", "power of two"), ("1", "power of two"), ("8", "has 4 blocks of /26")):
        done = cluster("ipam", "split", parts, "--cidr", "10.65.0.0/24")
        assert (done.code, why in done.err) == (1, True)
    done = cluster("ipam", "split", "4", "--cidr", "10.65.0.0/24")
    assert done.out.startswith("Successfully split pool into 4: split-pool-0, ")
    pools = cluster("get", "ippools", "-o", "json").json
    items = pools["items"] if isinstance(pools, dict) and "items" in pools else pools
    assert [(one["metadata"]["name"], one["spec"]["cidr"]) for one in items] == [
        (f"split-pool-{number}", f"10.65.0.{number * 64}/26") for number in range(4)
    ]
    assert {one["spec"]["ipipMode"] for one in items} == {"Always"}
    assert len({one["metadata"]["uid"] for one in items}) == 4
    assert cluster("ipam", "show", "--ip", "10.65.0.1").lines[0] == "IP 10.65.0.1 is in use"
    assert cluster("ipam", "split", "2", "--name", "pool").code == 1
    assert cluster("ipam", "split", "2").code == 2


def test_every_command_helps(catbird: Commands) -> None:
    for name in ("show", "check", "release", "configure", "split"):
        done = catbird("ipam", name, "--help")
        assert done.code == 0
        assert "Example: catbird ipam" in done.out
