"""The models: Calico's JSON names, what survives a round trip, and errors that name the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.resources import documents
from integration.resources.base import Resource, ResourceError
from integration.resources.kinds import ALL, KINDS, Kind, kind_of, kind_of_object
from integration.resources.models.bgp import BGPPeer, BGPPeerSpec
from integration.resources.models.ipam import AllocationAttribute, BlockAffinity, IPAMBlock
from integration.resources.models.nodes import Node
from integration.resources.shapes import Shape, fields_of
from tests.integration.resources.samples import objects

FULL = Path(__file__).with_name("full.yaml")
RESOURCES = [kind for kind in ALL if kind.is_resource]
every_kind = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)


def sample(kind: Kind, data: st.DataObject) -> dict[str, Any]:
    made: dict[str, Any] = data.draw(objects(kind.model))
    return {"kind": kind.json_kind, "apiVersion": kind.api_version, **made} if kind.is_resource else made


@every_kind
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_a_round_trip_changes_nothing(kind: Kind, data: st.DataObject) -> None:
    made = sample(kind, data)
    assert json.loads(json.dumps(kind.model.from_json(made).to_json())) == made


@pytest.mark.parametrize("kind", RESOURCES, ids=lambda kind: kind.name)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_yaml_and_json_say_the_same(kind: Kind, data: st.DataObject) -> None:
    made = sample(kind, data)
    resource = kind.model.from_json(made)
    assert isinstance(resource, Resource)
    for text in (documents.to_yaml([resource, resource]), "\n---\n".join([documents.to_json_text([resource])] * 2)):
        read = documents.read(text, keep_unknown=True)
        assert [document.resource.to_json() for document in read] == [made, made]
        assert {document.kind for document in read} == {kind}


def test_every_field_is_spelt_as_calico_spells_it() -> None:
    """full.yaml sets every field there is: none may end as an unknown one, and none of the model may be missing."""
    read = documents.read(FULL.read_text(), "full.yaml")  # refuses what it does not know
    assert {document.kind.name for document in read} == {kind.name for kind in ALL if kind.group == "calico"}
    for document in read:
        written = document.resource.to_json()
        for each in fields_of(document.kind.model):
            if each.name in ("spec", "status"):
                assert missing(each.shape, written.get(each.name, {}), f"{document.kind.name}.{each.name}") == []


def missing(shape: Shape, value: Any, path: str) -> list[str]:
    if shape.items and isinstance(value, list):
        return missing(shape.items, value[0], path) if shape.items.model else []
    if not shape.model:
        return []
    found = [f"{path}.{each.name}" for each in fields_of(shape.model) if each.name not in value]
    for each in fields_of(shape.model):
        if each.name in value:
            found += missing(each.shape, value[each.name], f"{path}.{each.name}")
    return found


def test_unset_fields_and_nulls_are_not_written() -> None:
    peer = BGPPeer.from_json(
        {"metadata": {"name": "p", "creationTimestamp": None}, "spec": {"peerIP": "10.0.0.1", "filters": None}}
    )
    assert peer.spec.filters == []
    assert peer.to_json() == {"metadata": {"name": "p"}, "spec": {"peerIP": "10.0.0.1"}}
    peer.spec.as_number = 64512
    peer.spec.node = ""
    assert peer.to_json()["spec"] == {"node": "", "peerIP": "10.0.0.1", "asNumber": 64512}


def test_python_names_make_a_resource_and_are_unknown_fields_in_json() -> None:
    assert BGPPeerSpec(peer_ip="10.0.0.1").to_json() == {"peerIP": "10.0.0.1"}
    read = BGPPeerSpec.from_json({"peer_ip": "10.0.0.1"})
    assert read.peer_ip == ""
    assert read.to_json()["peer_ip"] == "10.0.0.1"
    assert not read.to_json().get("peerIP")


@pytest.mark.parametrize(
    ("given_as", "number"), [(64512, 64512), ("64512", 64512), ("1.10", 65546), ("65535.65535", 2**32 - 1), (0, 0)]
)
def test_as_numbers_are_read_in_all_forms_and_written_plain(given_as: Any, number: int) -> None:
    spec = BGPPeerSpec.from_json({"asNumber": given_as})
    assert spec.as_number == number
    assert spec.to_json() == {"asNumber": number}


@pytest.mark.parametrize("wrong", [-1, 2**32, "1.65536", "1.2.3", "AS1", "", True, 1.5, [1]])
def test_what_is_no_as_number_is_refused(wrong: Any) -> None:
    with pytest.raises(ResourceError) as caught:
        BGPPeerSpec.from_json({"asNumber": wrong})
    [problem] = caught.value.problems
    assert problem.field == "asNumber"
    assert problem.value == wrong


def test_wrong_types_are_named_with_their_place() -> None:
    with pytest.raises(ResourceError) as caught:
        Node.from_json(
            {"spec": {"bgp": {"ipv4Address": 7}, "interfaces": [{}, {"addresses": "eth0"}], "wireguard": []}}
        )
    assert {problem.field: problem.reason for problem in caught.value.problems} == {
        "spec.bgp.ipv4Address": "is not a text",
        "spec.interfaces[1].addresses": "is not a list",
        "spec.wireguard": "is not an object",
    }


def test_a_union_of_types_makes_one_problem() -> None:
    with pytest.raises(ResourceError) as caught:
        KINDS["Tier"].model.from_json({"spec": {"order": "first"}})
    assert [problem.field for problem in caught.value.problems] == ["spec.order"]


def test_ipams_forms_are_those_that_calico_stores() -> None:
    block = {
        "cidr": "10.0.0.0/30",
        "affinity": None,
        "affinity_claim_time": "2026-01-01T00:00:00Z",
        "allocations": [None, 0, None, 1],
        "unallocated": [0, 2],
        "attributes": [
            {"handle_id": "h", "secondary": {"pod": "p"}, "alternateOwnerAttrs": {"pod": "q"}},
            {"releasedAt": "2026-01-01T00:00:00Z"},
        ],
        "sequenceNumber": 1_767_225_600_000_000_000,
        "sequenceNumberForAllocation": {"1": 5},
        "deleted": False,
        "hostAffinity": "n",
    }
    assert IPAMBlock.from_json(block).to_json() == block
    assert IPAMBlock.from_json(block).attributes[0] == AllocationAttribute(
        handle_id="h", secondary={"pod": "p"}, alternate_owner_attrs={"pod": "q"}
    )
    assert BlockAffinity.from_json({}).state == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("BGPPeer", "BGPPeer"),
        ("bgppeers", "BGPPeer"),
        ("BP", "BGPPeer"),
        ("pool", "IPPool"),
        ("np", "NetworkPolicy"),
        ("policies", "NetworkPolicy"),
        ("gnp", "GlobalNetworkPolicy"),
        ("no", "Node"),
        ("ipamconfig", "IPAMConfiguration"),
        ("ipamconfigs", "IPAMConfiguration"),
        ("IPAMConfig", "IPAMConfig"),
        ("nodestatuses", "CalicoNodeStatus"),
        ("svc", "Service"),
        ("WorkloadEndpoints", "WorkloadEndpoint"),
    ],
)
def test_kinds_go_by_calicoctls_names(text: str, name: str) -> None:
    assert kind_of(text).name == name


def test_unknown_kinds_are_said_so() -> None:
    with pytest.raises(ValueError, match="'bgpper' is not known"):
        kind_of("bgpper")
    with pytest.raises(ValueError, match=r"unknown resource type \(BGPPeer\) and/or version \(v1\)"):
        kind_of_object("v1", "BGPPeer")
    assert kind_of_object("networking.k8s.io/v1", "NetworkPolicy").name == "KubernetesNetworkPolicy"
    assert kind_of_object("projectcalico.org/v3", "NetworkPolicy").name == "NetworkPolicy"


def test_aliases_name_one_kind_each() -> None:
    names = [alias for kind in ALL for alias in (*kind.aliases, kind.name.lower())]
    twice = {name for name in names if names.count(name) > 1}
    assert twice == {"ipamconfig"}  # IPAMConfiguration's, unless spelt as the kind
