"""What Calico's resources look like in Kubernetes' objects, from the one side and from the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from integration.datastore.kubernetes import calico_form, network_policies, nodes, pods, profiles
from integration.datastore.kubernetes.connection import KubernetesSettings
from integration.datastore.kubernetes.places import places_of
from integration.datastore.kubernetes.qos import quantity
from integration.resources.keys import Key
from integration.resources.models.ipam_crds import CRD_VERSION
from integration.resources.names import v3_uid
from integration.resources.selector import parse

UID = "0f2a4c68-1234-4abc-8def-0123456789ab"


def pod(**others: Any) -> dict[str, Any]:
    metadata = {"name": "web-0", "namespace": "shop", "uid": UID, "resourceVersion": "7", "labels": {"app": "web"}}
    spec = {"nodeName": "node-1", "serviceAccountName": "clerk"}
    found: dict[str, Any] = {"metadata": metadata, "spec": spec, "status": {}}
    for part, fields in others.items():
        found[part] = {**found[part], **fields}
    return found


def test_a_resources_metadata_lie_in_an_annotation_as_calico_writes_them() -> None:
    metadata = {
        "name": "tor",
        "uid": UID,
        "resourceVersion": "5",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"rack": "a", "projectcalico.org/tier": "t"},
        "annotations": {"note": "x"},
    }
    value = {
        "kind": "BGPPeer",
        "apiVersion": "projectcalico.org/v3",
        "metadata": metadata,
        "spec": {"peerIP": "10.0.0.1"},
    }
    stored = calico_form.to_v1("BGPPeer", value, "BGPPeer")
    assert stored["apiVersion"] == "crd.projectcalico.org/v1"
    assert stored["metadata"] == {
        "name": "tor",
        "resourceVersion": "5",
        "uid": v3_uid(UID),
        "labels": {"projectcalico.org/tier": "t"},
        "annotations": {
            "projectcalico.org/metadata": '{"creationTimestamp":"2026-01-02T03:04:05Z",'
            '"labels":{"projectcalico.org/tier":"t","rack":"a"},"annotations":{"note":"x"}}'
        },
    }
    assert calico_form.from_v1("BGPPeer", stored) == value


def test_an_object_that_somebody_wrote_by_hand_shows_its_own_metadata() -> None:
    metadata = {"name": "p", "uid": UID, "labels": {"a": "b"}, "annotations": {"n": "m"}, "managedFields": [{}]}
    found = calico_form.from_v1("IPPool", {"metadata": metadata, "spec": {"cidr": "10.0.0.0/16"}})
    expected = {"name": "p", "uid": v3_uid(UID), "labels": {"a": "b"}, "annotations": {"n": "m"}}
    assert found["metadata"] == expected


def test_labels_of_former_versions_survive_beside_those_in_the_annotation() -> None:
    text = '{"creationTimestamp":null,"labels":{"new":"1","both":"inner"}}'
    metadata = {
        "name": "p",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"old": "1", "both": "outer"},
        "annotations": {"projectcalico.org/metadata": text},
    }
    found = calico_form.from_v1("BGPPeer", {"metadata": metadata, "spec": {}})["metadata"]
    assert found["labels"] == {"old": "1", "new": "1", "both": "inner"}
    assert found["creationTimestamp"] == "2026-01-02T03:04:05Z"


def test_owners_are_named_in_the_group_that_shows_them() -> None:
    owner = {"apiVersion": "projectcalico.org/v3", "kind": "Tier", "name": "t", "uid": UID}
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": UID}
    value = {"metadata": {"name": "n", "ownerReferences": [owner, other]}, "spec": {}}
    stored = calico_form.to_v1("BGPPeer", value, "BGPPeer")
    inner = json.loads(stored["metadata"]["annotations"]["projectcalico.org/metadata"])["ownerReferences"]
    assert inner == [{**owner, "apiVersion": CRD_VERSION, "uid": v3_uid(UID)}, other]
    assert calico_form.from_v1("BGPPeer", stored)["metadata"]["ownerReferences"] == [owner, other]


def test_a_nodes_annotations_make_the_resource_and_the_resource_makes_them_again() -> None:
    annotations = {
        "projectcalico.org/IPv4Address": "10.1.2.3/24",
        "projectcalico.org/ASNumber": "1.10",
        "projectcalico.org/RouteReflectorClusterID": "244.0.0.1",
        "projectcalico.org/IPv4VXLANTunnelAddr": "192.168.0.1",
        "projectcalico.org/VXLANTunnelMACAddr": "no mac",
        "projectcalico.org/Interfaces": '[{"addresses":["10.1.2.3"],"name":"eth0"}]',
        "projectcalico.org/WireguardPublicKey": "key",
        "projectcalico.org/labels": '{"mine":"1","zone":"shadowed"}',
        "projectcalico.org/annotations": '{"note":"x"}',
        "somebody/else": "y",
    }
    node = {
        "metadata": {"name": "n1", "resourceVersion": "4", "labels": {"zone": "b"}, "annotations": annotations},
        "spec": {"podCIDRs": ["10.9.0.0/24"], "podCIDR": "10.9.0.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.1.2.3"}, {"type": "Hostname", "address": "n1"}]},
    }
    value = nodes.from_node(node)
    assert value["metadata"]["labels"] == {"mine": "1", "zone": "b"}
    assert value["spec"] == {
        "bgp": {"ipv4Address": "10.1.2.3/24", "asNumber": 65546, "routeReflectorClusterID": "244.0.0.1"},
        "ipv4VXLANTunnelAddr": "192.168.0.1",
        "interfaces": [{"name": "eth0", "addresses": ["10.1.2.3"]}],
        "orchRefs": [{"nodeName": "n1", "orchestrator": "k8s"}],
        "addresses": [
            {"address": "10.1.2.3/24", "type": "CalicoNodeIP"},
            {"address": "10.1.2.3", "type": "InternalIP"},
        ],
    }
    assert value["status"] == {"wireguardPublicKey": "key", "podCIDRs": ["10.9.0.0/24"]}
    written = nodes.annotations_of(value)
    kept = {name: text for name, text in written.items() if text is not None}
    # Kubernetes' label is not made Calico's; what made no sense goes; what is not Calico's is not spoken of.
    expected = annotations | {"projectcalico.org/labels": '{"mine":"1"}', "projectcalico.org/ASNumber": "65546"}
    assert kept == {
        n: t for n, t in expected.items() if n not in ("somebody/else", "projectcalico.org/VXLANTunnelMACAddr")
    }
    assert written["projectcalico.org/VXLANTunnelMACAddr"] is None
    tunnel = nodes.from_node(node, use_pod_cidr=True)["spec"]
    assert tunnel["bgp"]["ipv4IPIPTunnelAddr"] == tunnel["wireguard"]["interfaceIPv4Address"] == "10.9.0.1"


def test_a_pod_is_an_endpoint() -> None:
    container = {
        "ports": [
            {"name": "http", "containerPort": 80},
            {"containerPort": 81},
            {"containerPort": 53, "hostPort": 5353, "protocol": "UDP"},
        ]
    }
    annotations = {
        "cni.projectcalico.org/containerID": "abc",
        "cni.projectcalico.org/floatingIPs": '["192.0.2.7", "2001:db8::7"]',
        "qos.projectcalico.org/ingressBandwidth": "10M",
        "qos.projectcalico.org/egressBurst": "10M",
        "qos.projectcalico.org/ingressPacketRate": "20k",
    }
    found = pods.from_pod(
        pod(spec={"containers": [container]}, status={"podIPs": [{"ip": "10.0.0.9"}]})
        | {"metadata": pod()["metadata"] | {"annotations": annotations}}
    )
    assert found["metadata"]["name"] == "node--1-k8s-web--0-eth0"
    assert found["metadata"]["labels"] == {
        "app": "web",
        "projectcalico.org/namespace": "shop",
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": "clerk",
    }
    assert found["spec"] == {
        "orchestrator": "k8s",
        "node": "node-1",
        "containerID": "abc",
        "pod": "web-0",
        "endpoint": "eth0",
        "serviceAccountName": "clerk",
        "ipNetworks": ["10.0.0.9/32"],
        "ipNATs": [{"internalIP": "10.0.0.9", "externalIP": "192.0.2.7"}],
        "profiles": ["kns.shop", "ksa.shop.clerk"],
        "interfaceName": found["spec"]["interfaceName"],
        "ports": [
            {"name": "http", "protocol": "TCP", "port": 80},
            {"protocol": "UDP", "port": 53, "hostPort": 5353},
        ],
        "qosControls": {
            "ingressBandwidth": 10_000_000,
            "ingressBurst": 2**32,
            "ingressPacketRate": 10_000,
            "ingressPacketBurst": 5,
        },
    }
    assert len(found["spec"]["interfaceName"]) == 15


@pytest.mark.parametrize(
    ("status", "annotations", "addresses"),
    [
        ({"podIP": "10.0.0.1"}, {"cni.projectcalico.org/podIPs": "10.0.0.2/32"}, ["10.0.0.1/32"]),
        ({}, {"cni.projectcalico.org/podIPs": "10.0.0.2/32,fd00::2/128"}, ["10.0.0.2/32", "fd00::2/128"]),
        ({}, {"cni.projectcalico.org/podIP": "10.0.0.3/32"}, ["10.0.0.3/32"]),
        ({}, {"vpc.amazonaws.com/pod-ips": "10.0.0.4"}, ["10.0.0.4/32"]),
        ({"podIP": "10.0.0.1", "phase": "Succeeded"}, {}, []),
        ({}, {}, []),
    ],
)
def test_where_a_pods_addresses_come_from(
    status: dict[str, Any], annotations: dict[str, str], addresses: list[str]
) -> None:
    found = pods.from_pod(pod(status=status, metadata={"annotations": annotations}))
    assert found["spec"].get("ipNetworks", []) == addresses


def test_a_pod_that_is_being_deleted_keeps_its_address_until_the_network_is_taken_down() -> None:
    ending = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    status = {"podIP": "10.0.0.1"}
    assert pods.from_pod(pod(status=status, metadata=ending))["spec"]["ipNetworks"] == ["10.0.0.1/32"]
    released = ending | {"annotations": dict(pods.RELEASED)}
    assert "ipNetworks" not in pods.from_pod(pod(status=status, metadata=released))["spec"]


@pytest.mark.parametrize(
    ("text", "value"), [("1k", 1000), ("1.5Gi", 1610612736), ("100m", 1), ("2e3", 2000), ("7", 7), ("1E", 10**18)]
)
def test_quantities(text: str, value: int) -> None:
    assert quantity(text) == value


def test_namespaces_and_accounts_are_profiles() -> None:
    metadata = {"name": "shop", "uid": UID, "resourceVersion": "3", "labels": {"team": "a"}}
    found = profiles.from_namespace({"metadata": metadata})
    assert found["metadata"]["name"] == "kns.shop"
    assert found["spec"]["ingress"] == [{"action": "Allow"}]
    assert found["spec"]["labelsToApply"] == {"pcns.team": "a", "pcns.projectcalico.org/name": "shop"}
    account = profiles.from_service_account({"metadata": metadata | {"name": "a.b", "namespace": "shop"}})
    assert account["metadata"]["name"] == "ksa.shop.a.b"
    assert account["spec"] == {"labelsToApply": {"pcsa.team": "a", "pcsa.projectcalico.org/name": "a.b"}}
    assert profiles.service_account_of("ksa.shop.a.b") == ("shop", "a.b")


POLICY = """
podSelector: {matchLabels: {b: "2", a: "1"}, matchExpressions: [{key: k, operator: NotIn, values: [x, y]}]}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - namespaceSelector: {}
  - podSelector: {matchExpressions: [{key: k, operator: DoesNotExist}]}
    namespaceSelector: {matchLabels: {team: a}}
  - ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}
  ports: [{port: 81}, {port: http}, {port: 80, protocol: TCP}, {port: 90, endPort: 99}, {port: 53, protocol: UDP}]
- from: [{ipBlock: {cidr: nonsense}}]
egress:
- ports: [{protocol: UDP}, {port: 53, protocol: UDP}]
- to: [{podSelector: {}}]
"""


def test_a_network_policy_is_converted() -> None:
    metadata = {"name": "p", "namespace": "shop", "uid": UID, "resourceVersion": "3"}
    found = network_policies.from_network_policy({"metadata": metadata, "spec": yaml.safe_load(POLICY)})
    orchestrator = "projectcalico.org/orchestrator == 'k8s'"
    spec = found["spec"]
    assert found["metadata"]["name"] == "knp.default.p"
    assert (spec["order"], spec["tier"], spec["types"]) == (1000, "default", ["Ingress", "Egress"])
    assert spec["selector"] == f"{orchestrator} && a == '1' && b == '2' && k not in {{ 'x', 'y' }}"
    tcp = ["http", "80:81", "90:99"]
    peers: list[dict[str, Any]] = [
        {"selector": orchestrator, "namespaceSelector": "all()"},
        {"selector": f"{orchestrator} && ! has(k)", "namespaceSelector": "team == 'a'"},
        {"nets": ["10.0.0.0/8"], "notNets": ["10.1.0.0/16"]},
    ]
    # A rule whose block is no CIDR is left out: it must not come to allow everybody.
    assert spec["ingress"] == [
        {"action": "Allow", "protocol": protocol, "source": peer, "destination": {"ports": ports}}
        for protocol, ports in (("TCP", tcp), ("UDP", [53]))
        for peer in peers
    ]
    assert spec["egress"] == [
        {"action": "Allow", "protocol": "UDP"},
        {"action": "Allow", "destination": {"selector": orchestrator}},
    ]
    for selector in (spec["selector"], *(peer["selector"] for peer in peers if "selector" in peer)):
        parse(selector)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        (Key("IPAMBlock", "10.0.0.0-26"), "/apis/crd.projectcalico.org/v1/ipamblocks/10-0-0-0-26"),
        (
            Key("BlockAffinity", "10.0.0.0-26", "host:n1"),
            "/apis/crd.projectcalico.org/v1/blockaffinities/n1-10-0-0-0-26",
        ),
        (Key("IPAMConfig", "default"), "/apis/crd.projectcalico.org/v1/ipamconfigs/default"),
        (Key("NetworkSet", "a", "ns"), "/apis/crd.projectcalico.org/v1/namespaces/ns/networksets/a"),
        (Key("WorkloadEndpoint", "n-k8s-p--1-eth0", "ns"), "/api/v1/namespaces/ns/pods/p-1"),
        (Key("Profile", "kns.ns"), "/api/v1/namespaces/ns"),
        (Key("EndpointSlice", "s", "ns"), "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices/s"),
    ],
)
def test_where_things_are(key: Key, path: str) -> None:
    place = places_of(key.kind, CRD_VERSION, KubernetesSettings())[0]
    assert place.collection.path(*place.addresses(key)[0]) == path
