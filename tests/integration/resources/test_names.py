"""Names that other programs of a Calico cluster must compute alike."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.resources import names
from integration.resources.names import WorkloadEndpointName


@pytest.mark.parametrize(
    ("prefix", "suffix", "limit", "expected"),
    [
        ("felix", "1234", 10, "felix1234"),
        ("felix", "123456", 11, "felix123456"),
        ("felix", "_2345", 10, "felix_kMQI"),  # fills the length and looks like a hash
        ("felix", "_234", 10, "felix_234"),
        ("felix", "12345678910", 13, "felix_Y2QCZIS"),
        ("felix", "", 10, "felix_"),
    ],
)
def test_length_limited_ids(prefix: str, suffix: str, limit: int, expected: str) -> None:
    assert names.length_limited_id(prefix, suffix, limit) == expected


def test_unique_id_is_a_prefix_and_38_characters() -> None:
    assert names.unique_id("s", "all()") == "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (WorkloadEndpointName("node1", "k8s", pod="pod-a", endpoint="eth0"), "node1-k8s-pod--a-eth0"),
        (WorkloadEndpointName("node-1", "k8s", pod="a-b-c", endpoint="eth0"), "node--1-k8s-a--b--c-eth0"),
        (WorkloadEndpointName("n", "k8s", pod="a--b", endpoint="eth0"), "n-k8s-a----b-eth0"),
        (WorkloadEndpointName("n", "cni", container_id="c1", endpoint="eth0"), "n-cni-c1-eth0"),
        (WorkloadEndpointName("n", "openstack", workload="vm", endpoint="tap1"), "n-openstack-vm-tap1"),
    ],
)
def test_workload_endpoint_names(parts: WorkloadEndpointName, name: str) -> None:
    assert parts.name == name
    assert names.parts_of_endpoint_name(name) == parts


def test_libnetwork_endpoints_share_one_workload() -> None:
    assert WorkloadEndpointName("n", "libnetwork", endpoint="e").name == "n-libnetwork-libnetwork-e"


def test_a_prefix_lists_what_agrees_in_the_leading_parts() -> None:
    assert WorkloadEndpointName("node-1", "k8s", pod="p").prefix == "node--1-k8s-p-"
    assert WorkloadEndpointName("node-1").prefix == "node--1-"
    assert WorkloadEndpointName().prefix == ""
    whole = WorkloadEndpointName("n", "k8s", pod="p", endpoint="eth0")
    assert whole.prefix == whole.name


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (WorkloadEndpointName("n", "k8s", endpoint="eth0"), "pod is missing"),
        (WorkloadEndpointName("n", "cni", endpoint="eth0"), "containerID is missing"),
        (WorkloadEndpointName("n-", "k8s", pod="p", endpoint="eth0"), "starts or ends with '-'"),
    ],
)
def test_an_impossible_endpoint_name_says_which_part(parts: WorkloadEndpointName, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        _ = parts.name


part = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@given(part, part, part)
def test_endpoint_names_survive_a_round_trip(node: str, pod: str, endpoint: str) -> None:
    parts = WorkloadEndpointName(node, "k8s", pod=pod, endpoint=endpoint)
    assert names.parts_of_endpoint_name(parts.name) == parts


def test_interface_of_a_pod_fits_linux() -> None:
    # printf default.nginx | sha1sum
    assert names.workload_interface("default", "nginx") == "calic440f455693"
    assert names.workload_interface("default", "nginx", "tap") == "tapc440f455693"
    assert len(names.workload_interface("ns", "p" * 200)) == 15


def test_crd_object_names() -> None:
    assert names.crd_name_of_cidr("10.65.79.0/26") == "10-65-79-0-26"
    assert names.crd_name_of_cidr("fd00:10:65::/122") == "fd00-10-65---122"
    assert names.crd_name_of_affinity("node-1", "10.65.79.0/26") == "node-1-10-65-79-0-26"
    assert names.crd_name_of_handle("k8s-pod-network.ABC") == "k8s-pod-network.abc"


def test_affinities_of_long_hosts_have_different_names_that_fit() -> None:
    hosts = ["n" * 250 + end for end in "ab"]
    made = {names.crd_name_of_affinity(host, "10.65.79.0/26") for host in hosts}
    assert len(made) == 2
    assert all(len(name) <= 253 and name.startswith("n" * 200) and "-10-65-79-0-26-" in name for name in made)


def test_hostname_hash_fits_a_label() -> None:
    assert len(names.hostname_hash("node-1")) == 52
    assert names.hostname_hash("node-1") != names.hostname_hash("node-2")


@given(st.text(alphabet="ab%/2f5", max_size=20))
def test_escaped_components_survive_a_round_trip(text: str) -> None:
    assert "/" not in names.escape(text)
    assert names.unescape(names.escape(text)) == text


@given(st.uuids())
def test_uid_of_a_crd_turns_round_and_back(value: uuid.UUID) -> None:
    turned = names.v3_uid(str(value))
    assert names.v3_uid(turned) == str(value)
    assert uuid.UUID(turned).bytes[6] == value.bytes[6]
    assert uuid.UUID(turned).bytes[8] == value.bytes[8]


def test_uid_bits_are_reversed_octet_by_octet() -> None:
    assert names.v3_uid("01020304-0506-4708-890a-0b0c0d0e0f10") == "8040c020-a060-4710-8950-d030b070f008"
    assert names.v3_uid("not a uuid") == "not a uuid"
