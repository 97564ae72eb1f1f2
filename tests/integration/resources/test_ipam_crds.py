"""IPAM's stored forms as CRD objects, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.resources.keys import Key, affinity_key, block_key
from integration.resources.models.ipam_crds import crd_object_name, from_crd, to_crd
from integration.resources.names import hostname_hash

BLOCK: dict[str, Any] = {
    "cidr": "10.65.79.0/30",
    "affinity": "host:n1",
    "affinity_claim_time": "2026-01-01T00:00:00Z",
    "allocations": [None, 0, None, 1],
    "unallocated": [0, 2],
    "attributes": [{"handle_id": "h", "secondary": {"pod": "p"}}, {"releasedAt": "2026-01-01T00:00:00Z"}],
    "sequenceNumber": 1_767_225_600_000_000_000,
    "sequenceNumberForAllocation": {"1": 5},
    "deleted": False,
}
CASES: list[tuple[Key, dict[str, Any], dict[str, Any]]] = [
    (
        block_key("10.65.79.0/30"),
        BLOCK,
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPAMBlock",
            "metadata": {"name": "10-65-79-0-30"},
            "spec": {name: value for name, value in BLOCK.items() if name != "affinity_claim_time"}
            | {"affinityClaimTime": "2026-01-01T00:00:00Z", "strictAffinity": False},
        },
    ),
    (
        affinity_key("virtual:load-balancer", "fd00::/122"),
        {"state": "pending", "deleted": True},
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "BlockAffinity",
            "metadata": {
                "name": "load-balancer-fd00---122",
                "labels": {
                    "projectcalico.org/hostname-hash": hostname_hash("load-balancer"),
                    "projectcalico.org/affinity-type": "virtual",
                    "projectcalico.org/ip-version": "6",
                },
            },
            "spec": {
                "state": "pending",
                "node": "load-balancer",
                "type": "virtual",
                "cidr": "fd00::/122",
                "deleted": "true",
            },
        },
    ),
    (
        Key("IPAMHandle", "k8s-pod-network.ABC"),
        {"block": {"10.65.79.0/26": 2}, "deleted": False},
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPAMHandle",
            "metadata": {"name": "k8s-pod-network.abc"},
            "spec": {"handleID": "k8s-pod-network.ABC", "block": {"10.65.79.0/26": 2}, "deleted": False},
        },
    ),
    (
        Key("IPAMConfig", "default"),
        {"strict_affinity": True, "auto_allocate_blocks": True, "maxBlocksPerHost": 3},
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPAMConfig",
            "metadata": {"name": "default"},
            "spec": {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 3},
        },
    ),
]


@pytest.mark.parametrize(("key", "stored", "crd"), CASES, ids=lambda each: each.kind if isinstance(each, Key) else "")
def test_stored_form_and_crd_say_the_same(key: Key, stored: dict[str, Any], crd: dict[str, Any]) -> None:
    assert to_crd(key, stored) == crd
    assert from_crd(crd) == (key, stored)


def test_a_block_of_nobody_has_no_affinity_in_the_crd_and_null_in_etcd() -> None:
    key, free = block_key("10.65.79.0/30"), BLOCK | {"affinity": None}
    assert "affinity" not in to_crd(key, free)["spec"]
    assert from_crd(to_crd(key, free)) == (key, free)


def test_affinities_of_old_versions_are_a_hosts() -> None:
    spec = {"state": "confirmed", "node": "n1", "cidr": "10.0.0.0/26", "deleted": "false"}
    assert from_crd({"kind": "BlockAffinity", "spec": spec}) == (
        affinity_key("host:n1", "10.0.0.0/26"),
        {"state": "confirmed", "deleted": False},
    )


def test_the_configuration_of_the_v3_api_is_the_allocators() -> None:
    spec = {"strictAffinity": True, "autoAllocateBlocks": False}
    assert from_crd({"kind": "IPAMConfiguration", "metadata": {"name": "default"}, "spec": spec}) == (
        Key("IPAMConfig", "default"),
        {"strict_affinity": True, "auto_allocate_blocks": False},
    )


@given(st.dictionaries(st.from_regex(r"x[A-Z][a-z]{1,4}", fullmatch=True), st.integers(), max_size=2))
def test_unknown_fields_survive_both_ways(unknown: dict[str, int]) -> None:
    for key, stored, _ in CASES:
        assert from_crd(to_crd(key, stored | unknown)) == (key, stored | unknown)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"kind": "IPAMBlock", "spec": {}}, "without cidr"),
        ({"kind": "BlockAffinity", "spec": {"cidr": "10.0.0.0/26"}}, "without node"),
        ({"kind": "IPAMHandle"}, "without name"),
        ({}, "without kind"),
        ({"kind": "BGPPeer"}, "BGPPeer is no CRD of IPAM's"),
    ],
)
def test_what_is_no_object_of_ipams_is_refused(found: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_crd(found)


def test_only_ipams_keys_have_such_names() -> None:
    with pytest.raises(ValueError, match="is no CRD of IPAM's"):
        crd_object_name(Key("BGPPeer", "x"))
