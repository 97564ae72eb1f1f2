"""The CRD manifests: what the models make, what an API server takes, and what it lets through."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.resources import documents
from integration.resources.base import Resource
from integration.resources.crds import MANIFESTS, definitions, manifests
from integration.resources.keys import Key
from integration.resources.kinds import ALL, KINDS
from integration.resources.models.ipam_crds import to_crd
from integration.resources.validate import defaulted, validate
from integration.resources.yaml_text import load_all
from tests.integration.resources.openapi import refusals, unstructural

PROJECT = Path(__file__).resolve().parents[3]
SHIPPED: list[Any] = [document.value for document in load_all(MANIFESTS.read_text())]
every_definition = pytest.mark.parametrize("crd", SHIPPED, ids=lambda crd: crd["spec"]["names"]["plural"])
# Where Calico has namespaced kinds among its CRDs.
NAMESPACED = {"networkpolicies", "networksets", "stagednetworkpolicies", "stagedkubernetesnetworkpolicies"}


def schema_of(plural: str) -> dict[str, Any]:
    [crd] = [crd for crd in SHIPPED if crd["spec"]["names"]["plural"] == plural]
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def test_the_shipped_manifests_are_those_of_the_models() -> None:
    assert MANIFESTS.read_text() == manifests(), "python -m integration.resources.crds > …/crds/manifests.yaml"
    assert definitions() == SHIPPED


def test_the_generator_prints_the_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "integration.resources.crds"], cwd=PROJECT, capture_output=True, timeout=60, check=True
    )
    assert done.stdout == MANIFESTS.read_bytes()


def test_there_is_a_definition_for_every_crd_kind_and_no_other() -> None:
    assert {crd["spec"]["names"]["plural"] for crd in SHIPPED} == {kind.crd for kind in ALL if kind.crd}
    assert [crd["metadata"]["name"] for crd in SHIPPED] == sorted(crd["metadata"]["name"] for crd in SHIPPED)
    assert {"bgppeers", "bgpfilters", "ippools", "ipamblocks", "blockaffinities", "ipamhandles", "ipamconfigs"} <= {
        crd["spec"]["names"]["plural"] for crd in SHIPPED
    }


@every_definition
def test_names_scope_and_versions(crd: dict[str, Any]) -> None:
    spec, names = crd["spec"], crd["spec"]["names"]
    assert (crd["apiVersion"], crd["kind"]) == ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    assert spec["group"] == "crd.projectcalico.org"
    assert crd["metadata"] == {"name": f"{names['plural']}.crd.projectcalico.org"}
    assert names["plural"] == names["plural"].lower()
    assert names["singular"] == names["kind"].lower()
    assert names["listKind"] == f"{names['kind']}List"
    assert spec["scope"] == ("Namespaced" if names["plural"] in NAMESPACED else "Cluster")
    assert [(each["name"], each["served"], each["storage"]) for each in spec["versions"]] == [("v1", True, True)]


@every_definition
def test_the_schema_is_structural(crd: dict[str, Any]) -> None:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert list(unstructural(schema)) == []
    assert schema["properties"]["metadata"] == {"type": "object"}
    assert {"apiVersion", "kind", "metadata", "spec"} <= schema["properties"].keys()


@every_definition
def test_unknown_fields_are_kept_at_every_level(crd: dict[str, Any]) -> None:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert [path for path, each in objects_in(schema, "") if not each.get("x-kubernetes-preserve-unknown-fields")] == []


def objects_in(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if schema.get("type") == "object" and "additionalProperties" not in schema and path != ".metadata":
        yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects_in(inner, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from objects_in(schema[word], f"{path}[]")


FULL = documents.read(Path(__file__).with_name("full.yaml").read_text(), "full.yaml")
IN_CRDS = [document.resource for document in FULL if document.kind.crd and document.kind.name != "IPAMConfiguration"]


@pytest.mark.parametrize("resource", IN_CRDS, ids=lambda resource: resource.kind)
def test_what_validation_accepts_the_schema_accepts(resource: Resource) -> None:
    crd = KINDS[resource.kind].crd
    assert crd
    for each in (resource, defaulted(resource)):
        assert list(refusals(each.to_json(), schema_of(crd))) == []


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("BGPPeer", {"nextHopMode": "self"}),
        ("BGPPeer", {"node": "N"}),
        ("BGPPeer", {"ttlSecurity": 256}),
        ("BGPPeer", {"password": {"secretKeyRef": {"name": "s"}}}),
        ("BGPFilter", {"exportV4": [{}]}),
        ("BGPFilter", {"exportV4": [{"action": "Accept", "communities": {"values": ["1:2", "3:4"]}}]}),
        ("IPPool", {"cidr": "10.0.0.0/8", "ipipMode": "always"}),
        ("FelixConfiguration", {"failsafeInboundHostPorts": [{"protocol": "icmp", "port": 1}]}),
        ("NetworkPolicy", {"ingress": [{"action": "Permit"}]}),
        ("HostEndpoint", {"interfaceName": "*"}),
    ],
)
def test_rules_of_single_fields_are_in_the_schema(kind: str, spec: dict[str, Any]) -> None:
    crd, model = KINDS[kind].crd, KINDS[kind].model
    wrong = {"metadata": {"name": "x"}, "spec": spec}
    resource = model.from_json(wrong)
    assert crd
    assert isinstance(resource, Resource)
    assert validate(resource)
    assert list(refusals(wrong, schema_of(crd)))


def test_an_empty_field_is_as_good_as_none() -> None:
    spec = {"node": "", "peerIP": "", "nextHopMode": "", "maxRestartTime": "", "reversePeering": ""}
    peer = KINDS["BGPPeer"].model.from_json({"metadata": {"name": "x"}, "spec": spec})
    assert isinstance(peer, Resource)
    assert validate(peer) == []
    assert list(refusals(peer.to_json(), schema_of("bgppeers"))) == []


def test_defaults_are_calicos() -> None:
    pool = schema_of("ippools")["properties"]["spec"]["properties"]
    assert pool["assignmentMode"]["default"] == "Automatic"
    configuration = schema_of("bgpconfigurations")["properties"]["spec"]["properties"]
    assert configuration["serviceLoadBalancerAggregation"]["default"] == "Enabled"
    assert "default" not in configuration["programClusterRoutes"]  # absent is a value of its own to Felix


STORED = [
    (
        Key("IPAMBlock", "10.0.0.0-30"),
        {"cidr": "10.0.0.0/30", "affinity": None, "allocations": [None, 0, None, None], "unallocated": [0, 2, 3],
         "attributes": [{"handle_id": "h"}], "deleted": False, "sequenceNumber": 2**60},
    ),
    (Key("BlockAffinity", "10.0.0.0-26", "host:n1"), {"state": "confirmed", "deleted": False}),
    (Key("IPAMHandle", "h"), {"block": {"10.0.0.0/26": 1}, "deleted": False}),
    (Key("IPAMConfig", "default"), {"strict_affinity": True, "auto_allocate_blocks": True, "maxBlocksPerHost": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), STORED, ids=lambda each: each.kind if isinstance(each, Key) else "")
def test_ipams_objects_fit_their_schemas(key: Key, value: dict[str, Any]) -> None:
    crd = KINDS[key.kind].crd
    assert crd
    assert list(refusals(to_crd(key, value), schema_of(crd))) == []
