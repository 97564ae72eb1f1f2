"""Where things lie in etcd: Calico's layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.resources.keys import (
    Key,
    affinity_key,
    block_key,
    cidr_of,
    etcd_path,
    etcd_prefix,
    etcd_prefixes,
    key_of_etcd_path,
)
from integration.resources.kinds import ALL, KINDS

V3 = "/calico/resources/v3/projectcalico.org/"
PATHS = [
    (Key("BGPPeer", "rack1"), V3 + "bgppeers/rack1"),
    (Key("BGPConfiguration", "node.n1"), V3 + "bgpconfigurations/node.n1"),
    (Key("Node", "n1"), V3 + "nodes/n1"),
    (Key("IPPool", "default-ipv4-ippool"), V3 + "ippools/default-ipv4-ippool"),
    (Key("CalicoNodeStatus", "s"), V3 + "caliconodestatuses/s"),
    (Key("NetworkPolicy", "knp.default.a", "ns"), V3 + "networkpolicies/ns/knp.default.a"),
    (Key("WorkloadEndpoint", "n-k8s-p-eth0", "ns"), V3 + "workloadendpoints/ns/n-k8s-p-eth0"),
    (Key("IPAMConfiguration", "default"), V3 + "ipamconfigurations/default"),
    (block_key("10.65.79.0/26"), "/calico/ipam/v2/assignment/ipv4/block/10.65.79.0-26"),
    (block_key("fd00:10::/122"), "/calico/ipam/v2/assignment/ipv6/block/fd00:10::-122"),
    (affinity_key("host:n-1", "10.65.79.0/26"), "/calico/ipam/v2/host/n-1/ipv4/block/10.65.79.0-26"),
    (
        affinity_key("virtual:load-balancer", "fd00::/122"),
        "/calico/ipam/v2/virtual/load-balancer/ipv6/block/fd00::-122",
    ),
    (Key("IPAMHandle", "k8s-pod-network.0a1b"), "/calico/ipam/v2/handle/k8s-pod-network.0a1b"),
    (Key("IPAMHost", "n1"), "/calico/ipam/v2/host/n1"),
    (Key("IPAMConfig", "default"), "/calico/ipam/v2/config"),
    (Key("Service", "s", "ns"), "/catbird/resources/v3/services/ns/s"),
    (Key("Namespace", "ns"), "/catbird/resources/v3/namespaces/ns"),
]


@pytest.mark.parametrize(("key", "path"), PATHS, ids=str)
def test_paths(key: Key, path: str) -> None:
    assert etcd_path(key) == path
    assert key_of_etcd_path(path) == key
    assert path.startswith(etcd_prefix(key.kind))
    assert path.startswith(etcd_prefix(key.kind, key.namespace))
    assert path.startswith(etcd_prefixes(key.kind))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/calico/v1/Ready",
        "/calico/resources/v3/projectcalico.org/",
        V3 + "bgppeers",
        V3 + "bgppeers/",
        V3 + "bgppeers/a/b",
        V3 + "networkpolicies/a",
        V3 + "services/ns/a",
        V3 + "unicorns/a",
        "/calico/ipam/v2/",
        "/calico/ipam/v2/config/x",
        "/calico/ipam/v2/assignment/ipv4/block/fd00::-122",
        "/calico/ipam/v2/host/n/ipv6/block/10.0.0.0-26",
        "/calico/ipam/v2/host/n/ipv4/block/",
        "/catbird/resources/v3/bgppeers/a",
    ],
)
def test_other_paths_are_not_ours(path: str) -> None:
    assert key_of_etcd_path(path) is None


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (Key("Unicorn", "a"), "kind is not known"),
        (Key("BGPPeer", ""), "neither be empty"),
        (Key("BGPPeer", "a/b"), "contain '/'"),
        (Key("BGPPeer", "a", "ns"), "has no namespace"),
        (Key("NetworkPolicy", "a"), "needs a namespace"),
        (Key("IPAMConfig", "other"), "the only IPAMConfig is called default"),
        (Key("BlockAffinity", "10.0.0.0-26", "n1"), "host:NODE or virtual:NAME"),
    ],
)
def test_keys_without_a_path(key: Key, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        etcd_path(key)


def test_a_host_affinity_prefix_holds_that_hosts_only() -> None:
    assert etcd_prefix("BlockAffinity", "host:n1") == "/calico/ipam/v2/host/n1/"
    assert etcd_prefixes("BlockAffinity") == ("/calico/ipam/v2/host/", "/calico/ipam/v2/virtual/")


names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True)


@given(st.sampled_from([kind for kind in ALL if kind.group != "ipam"]), names, names)
def test_every_kind_survives_a_round_trip(kind: object, name: str, namespace: str) -> None:
    assert kind in ALL
    known = next(each for each in ALL if each == kind)
    key = Key(known.name, name, namespace if known.namespaced else "")
    assert key_of_etcd_path(etcd_path(key)) == key


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(20, 32), names)
def test_blocks_and_affinities_survive_a_round_trip(address: object, length: int, host: str) -> None:
    cidr = f"{address}/{length}"
    for key in (block_key(cidr), affinity_key(f"host:{host}", cidr)):
        assert key_of_etcd_path(etcd_path(key)) == key
        assert cidr_of(key) == cidr


def test_no_two_kinds_share_a_place() -> None:
    prefixes = [etcd_prefix(kind.name) for kind in ALL if kind.group != "ipam"]
    assert len(set(prefixes)) == len(prefixes)
    assert set(KINDS) == {kind.name for kind in ALL}
