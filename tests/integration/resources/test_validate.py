"""Calico's rules: what is refused, where, and what would be right; and what is allowed although it looks odd."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.resources.base import Problem, Resource
from integration.resources.kinds import ALL, KINDS, Kind
from integration.resources.validate import defaulted, validate
from tests.integration.resources.samples import objects

NAMES = {"ClusterInformation": "default", "KubeControllersConfiguration": "default", "IPAMConfiguration": "default"}
ALLOW: dict[str, Any] = {"action": "Allow"}
IN: dict[str, Any] = {"cidr": "10.0.0.0/8", "matchOperator": "In", "action": "Accept"}


def resource(kind: str, spec: dict[str, Any], **metadata: Any) -> Resource:
    made = KINDS[kind].model.from_json({"metadata": {"name": NAMES.get(kind, "x"), **metadata}, "spec": spec})
    assert isinstance(made, Resource)
    return made


def found(kind: str, spec: dict[str, Any], **metadata: Any) -> list[Problem]:
    return validate(resource(kind, spec, **metadata))


def policy(**rule: Any) -> dict[str, Any]:
    return {"ingress": [ALLOW | rule]}


def global_egress(**rule: Any) -> dict[str, Any]:
    return {"egress": [ALLOW | rule]}


WORKLOAD = {"interfaceName": "cali1"}
SERVICE = {"services": {"name": "s", "namespace": "n"}}

# (kind, spec, the field, words of the reason or of what is allowed)
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("BGPPeer", {"peerIP": "10.0.0.256"}, "spec.peerIP", "is not an IP address"),
    ("BGPPeer", {"peerIP": "10.0.0.1:0"}, "spec.peerIP", "port 0"),
    ("BGPPeer", {"peerIP": "10.0.0.1:65536"}, "spec.peerIP", "port 65536"),
    ("BGPPeer", {"peerIP": "fd00::1:x"}, "spec.peerIP", "is not an IP address"),
    ("BGPPeer", {"peerIP": "fe80::1%eth0"}, "spec.peerIP", "has a zone"),
    ("BGPPeer", {"node": "n", "nodeSelector": "all()"}, "spec.node", "together with nodeSelector"),
    ("BGPPeer", {"peerIP": "10.0.0.1", "peerSelector": "all()"}, "spec.peerIP", "together with peerSelector"),
    ("BGPPeer", {"peerSelector": "all()", "asNumber": 1}, "spec.asNumber", "must be empty when peerSelector"),
    ("BGPPeer", {"localWorkloadSelector": "all()"}, "spec.asNumber", "is required when localWorkloadSelector"),
    ("BGPPeer", {"localWorkloadSelector": "all()", "asNumber": 1, "peerIP": "10.0.0.1"}, "spec.peerIP", "must be empty"),
    ("BGPPeer", {"localWorkloadSelector": "all()", "peerSelector": "all()", "asNumber": 0}, "spec.peerSelector", "empty"),
    ("BGPPeer", {"reachableBy": "10.0.0.2"}, "spec.reachableBy", "must be empty when peerIP is empty"),
    ("BGPPeer", {"peerIP": "[fd00::1]:179", "reachableBy": "10.0.0.2"}, "spec.reachableBy", "an IPv6 address"),
    ("BGPPeer", {"peerIP": "10.0.0.1", "reachableBy": "gw"}, "spec.reachableBy", "is not an IP address"),
    ("BGPPeer", {"keepOriginalNextHop": True, "nextHopMode": "Self"}, "spec.keepOriginalNextHop", "nextHopMode"),
    ("BGPPeer", {"nodeSelector": "rack = 'a'"}, "spec.nodeSelector", "== is meant at character 6"),
    ("BGPPeer", {"nodeSelector": "has(a) || " * 103 + "has(a)"}, "spec.nodeSelector", "at most 1024"),
    ("BGPPeer", {"nextHopMode": "self"}, "spec.nextHopMode", "Auto, Self, Keep"),
    ("BGPPeer", {"sourceAddress": "Any"}, "spec.sourceAddress", "UseNodeIP, None"),
    ("BGPPeer", {"maxRestartTime": "10"}, "spec.maxRestartTime", "such as 90s"),
    ("BGPPeer", {"ttlSecurity": 256}, "spec.ttlSecurity", "0 to 255"),
    ("BGPPeer", {"filters": ["a", ""]}, "spec.filters[1]", "is required"),
    ("BGPPeer", {"node": "N"}, "spec.node", "lower-case"),
    ("NetworkPolicy", policy(source={"nets": [""]}), "spec.ingress[0].source.nets[0]", "has no prefix length"),
    ("NetworkPolicy", policy(protocol="17", icmp={"type": 8}), "spec.ingress[0].icmp", "ICMP or ICMPv6"),
    ("NetworkPolicy", policy(protocol="256"), "spec.ingress[0].protocol", "1 to 255"),
    ("NetworkPolicy", policy(metadata={"annotations": {"a b": "c"}}), "spec.ingress[0].metadata.annotations", "'a b'"),
    ("Profile", {"labelsToApply": {"a": "b c"}}, "spec.labelsToApply", "no label can have"),
    ("HostEndpoint", {"node": "n", "expectedIPs": [""]}, "spec.expectedIPs[0]", "not an IP address"),
    ("WorkloadEndpoint", WORKLOAD | {"ipNetworks": [""]}, "spec.ipNetworks[0]", "not an IP address"),
    ("FelixConfiguration", {"bpfLogFilters": {"a b": "c"}}, "spec.bpfLogFilters", "no interface can have"),
    ("BGPPeer", {"password": {"secretKeyRef": {"name": "s"}}}, "spec.password.secretKeyRef.key", "is required"),
    ("BGPConfiguration", {"asNumber": 1}, "spec.asNumber", "BGPConfiguration named default"),
    ("BGPConfiguration", {"listenPort": 0}, "spec.listenPort", "1 to 65535"),
    ("BGPConfiguration", {"logSeverityScreen": "Loud"}, "spec.logSeverityScreen", "Trace, Debug, Info"),
    ("BGPConfiguration", {"ignoredInterfaces": ["*"]}, "spec.ignoredInterfaces[0]", "every interface"),
    ("BGPConfiguration", {"ignoredInterfaces": ["a", "a"]}, "spec.ignoredInterfaces", "'a' twice"),
    ("BGPConfiguration", {"communities": [{"name": "a", "value": "1:2"}]}, "spec.communities", "nothing uses"),
    (
        "BGPConfiguration",
        {"prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["1:2", "a"]}]},
        "spec.prefixAdvertisements[0].communities[1]",
        "a name in spec.communities",
    ),
    (
        "BGPConfiguration",
        {"communities": [{"name": "a", "value": "65536:1"}], "prefixAdvertisements": [{"cidr": "::/0"}]},
        "spec.communities[0].value",
        "above 65535",
    ),
    ("BGPConfiguration", {"localWorkloadPeeringIPV4": "fd00::1"}, "spec.localWorkloadPeeringIPV4", "not an IPv4"),
    ("BGPConfiguration", {"ipv4NormalRoutePriority": 2**31 - 1}, "spec.ipv4NormalRoutePriority", "1 to 2147483646"),
    ("BGPConfiguration", {"programClusterRoutes": "Yes"}, "spec.programClusterRoutes", "EnabledNoEncapOnly"),
    ("BGPFilter", {"exportV4": [{}]}, "spec.exportV4[0].action", "is required"),
    ("BGPFilter", {"exportV4": [IN | {"cidr": "fd00::/8"}]}, "spec.exportV4[0].cidr", "not an IPv4 address"),
    ("BGPFilter", {"importV6": [IN]}, "spec.importV6[0].cidr", "not an IPv6 address"),
    ("BGPFilter", {"exportV4": [IN | {"cidr": "10.0.0.1/8"}]}, "spec.exportV4[0].cidr", "10.0.0.0/8 is meant"),
    ("BGPFilter", {"exportV4": [{"cidr": "10.0.0.0/8", "action": "Accept"}]}, "spec.exportV4[0].matchOperator", "required"),
    ("BGPFilter", {"exportV4": [{"matchOperator": "In", "action": "Accept"}]}, "spec.exportV4[0].cidr", "required"),
    ("BGPFilter", {"exportV4": [{"prefixLength": {"min": 1}, "action": "Accept"}]}, "spec.exportV4[0].cidr", "required"),
    ("BGPFilter", {"exportV4": [IN | {"prefixLength": {"max": 33}}]}, "spec.exportV4[0].prefixLength.max", "0 to 32"),
    ("BGPFilter", {"exportV4": [IN | {"prefixLength": {"min": 9, "max": 8}}]}, "spec.exportV4[0].prefixLength.min", "max"),
    ("BGPFilter", {"exportV4": [ALLOW | {"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}]},
     "spec.exportV4[0].operations", "with action Accept"),
    ("BGPFilter", {"exportV4": [IN | {"operations": [{}]}]}, "spec.exportV4[0].operations[0]", "exactly one"),
    ("BGPFilter", {"exportV4": [IN | {"operations": [{"setPriority": {"value": 0}}]}]},
     "spec.exportV4[0].operations[0].setPriority.value", "1 to 2147483646"),
    ("BGPFilter", {"exportV4": [IN | {"communities": {"values": ["1:2", "3:4"]}}]},
     "spec.exportV4[0].communities.values", "at most 1"),
    ("BGPFilter", {"exportV4": [IN | {"interface": "a b"}]}, "spec.exportV4[0].interface", "1 to 15"),
    ("BGPFilter", {"exportV4": [IN | {"source": "Local"}]}, "spec.exportV4[0].source", "RemotePeers"),
    ("Node", {"bgp": {}}, "spec.bgp", "is empty"),
    ("Node", {"bgp": {"ipv4Address": "fd00::1"}}, "spec.bgp.ipv4Address", "not an IPv4"),
    ("Node", {"bgp": {"ipv4Address": "10.0.0.1/33"}}, "spec.bgp.ipv4Address", "prefix length"),
    ("Node", {"bgp": {"routeReflectorClusterID": "1"}}, "spec.bgp.routeReflectorClusterID", "an IPv4 address"),
    ("Node", {"vxlanTunnelMACAddr": "66"}, "spec.vxlanTunnelMACAddr", "a MAC address"),
    ("CalicoNodeStatus", {"node": "n", "classes": ["BGP"]}, "spec.updatePeriodSeconds", "is required"),
    ("CalicoNodeStatus", {"node": "n", "classes": ["BIRD"], "updatePeriodSeconds": 1}, "spec.classes[0]", "Agent, BGP"),
    ("CalicoNodeStatus", {"node": "n", "classes": ["BGP", "BGP"], "updatePeriodSeconds": 1}, "spec.classes", "twice"),
    ("CalicoNodeStatus", {"node": "n", "classes": ["BGP"], "updatePeriodSeconds": 86401}, "spec.updatePeriodSeconds", "86400"),
    ("IPPool", {}, "spec.cidr", "is required"),
    ("IPPool", {"cidr": "10.0.0.1/16"}, "spec.cidr", "10.0.0.0/16 is meant"),
    ("IPPool", {"cidr": "10.0.0.0/27"}, "spec.cidr", "smaller than a block (/26)"),
    ("IPPool", {"cidr": "fd00::/123"}, "spec.cidr", "smaller than a block (/122)"),
    ("IPPool", {"cidr": "10.0.0.0/16", "blockSize": 19}, "spec.blockSize", "20 to 32"),
    ("IPPool", {"cidr": "fd00::/64", "blockSize": 64}, "spec.blockSize", "116 to 128"),
    ("IPPool", {"cidr": "169.254.0.0/17"}, "spec.cidr", "link-local"),
    ("IPPool", {"cidr": "fe80::/64"}, "spec.cidr", "link-local"),
    ("IPPool", {"cidr": "fd00::/64", "ipipMode": "Always"}, "spec.ipipMode", "IPv6 pool"),
    ("IPPool", {"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}, "spec.ipipMode", "vxlanMode"),
    ("IPPool", {"cidr": "10.0.0.0/16", "ipipMode": "always"}, "spec.ipipMode", "Never, Always, CrossSubnet"),
    ("IPPool", {"cidr": "10.0.0.0/16", "ipip": {"enabled": True}}, "spec.ipip", "v1 API"),
    ("IPPool", {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer", "Tunnel"]}, "spec.allowedUses", "alone"),
    ("IPPool", {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "vxlanMode": "Always"}, "spec.vxlanMode", "Never"),
    ("IPPool", {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "disableBGPExport": True},
     "spec.disableBGPExport", "false"),
    ("IPPool", {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "nodeSelector": "has(a)"}, "spec.nodeSelector", "all()"),
    ("IPPool", {"cidr": "10.0.0.0/16", "allowedUses": ["Tunnel"], "namespaceSelector": "has(a)"},
     "spec.namespaceSelector", "tunnels"),
    ("IPReservation", {"reservedCIDRs": ["10.0.0.0/33"]}, "spec.reservedCIDRs[0]", "prefix length"),
    ("NetworkPolicy", policy(action="Permit"), "spec.ingress[0].action", "Allow, Deny, Log, Pass"),
    ("NetworkPolicy", policy(destination={"ports": [80]}), "spec.ingress[0].destination.ports", "TCP, UDP or SCTP"),
    ("NetworkPolicy", policy(protocol="ICMP", destination={"ports": ["web"]}), "spec.ingress[0].destination.ports", "TCP"),
    ("NetworkPolicy", policy(protocol=1, source={"notPorts": [1]}), "spec.ingress[0].source.notPorts", "TCP"),
    ("NetworkPolicy", policy(protocol="TCP", source={"ports": [0]}), "spec.ingress[0].source.ports[0]", "out of range"),
    ("NetworkPolicy", policy(protocol="TCP", source={"ports": ["9:8"]}), "spec.ingress[0].source.ports[0]", "ends before"),
    ("NetworkPolicy", policy(protocol="tcp"), "spec.ingress[0].protocol", "TCP, UDP"),
    ("NetworkPolicy", policy(protocol=0), "spec.ingress[0].protocol", "1 to 255"),
    ("NetworkPolicy", policy(source={"nets": ["10.0.0.1"]}), "spec.ingress[0].source.nets[0]", "has no prefix length"),
    ("NetworkPolicy", policy(source={"nets": ["10.0.0.0/8"]}, destination={"notNets": ["fd00::/8"]}),
     "spec.ingress[0].destination.notNets[0]", "IPv4"),
    ("NetworkPolicy", policy(ipVersion=6, source={"nets": ["10.0.0.0/8"]}), "spec.ingress[0].source.nets[0]", "IPv6"),
    ("NetworkPolicy", policy(ipVersion=5), "spec.ingress[0].ipVersion", "4, 6"),
    ("NetworkPolicy", policy(source={"notNets": ["0.0.0.0/0"]}), "spec.ingress[0].source.notNets[0]", "every address"),
    ("NetworkPolicy", policy(icmp={"type": 8}), "spec.ingress[0].icmp", "ICMP or ICMPv6"),
    ("NetworkPolicy", policy(protocol="ICMP", icmp={"code": 0}), "spec.ingress[0].icmp.type", "when code is set"),
    ("NetworkPolicy", policy(protocol="ICMP", icmp={"type": 255}), "spec.ingress[0].icmp.type", "0 to 254"),
    ("NetworkPolicy", policy(protocol="ICMP", ipVersion=6), "spec.ingress[0].ipVersion", "contradicts protocol ICMP"),
    ("NetworkPolicy", policy(notProtocol="ICMPv6", ipVersion=4), "spec.ingress[0].ipVersion", "notProtocol ICMPv6"),
    ("NetworkPolicy", policy(action="Deny", http={"methods": ["GET"]}), "spec.ingress[0].http", "Allow"),
    ("NetworkPolicy", policy(protocol="UDP", http={}), "spec.ingress[0].protocol", "cannot carry HTTP"),
    ("NetworkPolicy", policy(http={"methods": ["GET", "GET"]}), "spec.ingress[0].http.methods", "twice"),
    ("NetworkPolicy", policy(http={"paths": [{}]}), "spec.ingress[0].http.paths[0]", "exactly one"),
    ("NetworkPolicy", policy(http={"paths": [{"exact": "/a?b"}]}), "spec.ingress[0].http.paths[0].exact", "without ?"),
    ("NetworkPolicy", {"egress": [ALLOW | {"http": {}}]}, "spec.egress[0].http", "egress rule"),
    ("NetworkPolicy", policy(destination=SERVICE), "spec.ingress[0].destination.services", "in the rule's source"),
    ("NetworkPolicy", global_egress(source=SERVICE), "spec.egress[0].source.services", "in the rule's destination"),
    ("NetworkPolicy", global_egress(destination=SERVICE | {"selector": "all()"}), "spec.egress[0].destination.selector", "services"),
    ("NetworkPolicy", global_egress(destination=SERVICE | {"nets": ["10.0.0.0/8"]}), "spec.egress[0].destination.nets", "services"),
    ("NetworkPolicy", global_egress(destination=SERVICE | {"ports": ["http"]}), "spec.egress[0].destination.ports", "services"),
    ("NetworkPolicy", global_egress(destination={"services": {}}), "spec.egress[0].destination.services.name", "required"),
    ("GlobalNetworkPolicy", global_egress(destination={"services": {"name": "s"}}),
     "spec.egress[0].destination.services.namespace", "is required"),
    ("NetworkPolicy", {"selector": "global()"}, "spec.selector", "namespaceSelector of a rule"),
    ("NetworkPolicy", policy(source={"selector": "!global()"}), "spec.ingress[0].source.selector", "namespaceSelector"),
    ("NetworkPolicy", policy(source={"namespaceSelector": "global() || has(a)"}),
     "spec.ingress[0].source.namespaceSelector", "combines"),
    ("NetworkPolicy", {"types": ["Ingress", "Ingress"]}, "spec.types", "twice"),
    ("NetworkPolicy", {"performanceHints": ["Fast"]}, "spec.performanceHints[0]", "AssumeNeededOnEveryNode"),
    ("GlobalNetworkPolicy", {"preDNAT": True, "doNotTrack": True, "applyOnForward": True}, "spec.preDNAT", "doNotTrack"),
    ("GlobalNetworkPolicy", {"preDNAT": True}, "spec.applyOnForward", "true"),
    ("GlobalNetworkPolicy", {"doNotTrack": True}, "spec.applyOnForward", "required with doNotTrack"),
    ("GlobalNetworkPolicy", {"preDNAT": True, "applyOnForward": True, "types": ["Egress"]}, "spec.types", "Ingress"),
    ("GlobalNetworkPolicy", {"preDNAT": True, "applyOnForward": True, "egress": [ALLOW]}, "spec.egress", "no egress"),
    ("StagedNetworkPolicy", {"stagedAction": "Maybe"}, "spec.stagedAction", "Set, Delete, Learn, Ignore"),
    ("StagedGlobalNetworkPolicy", {"preDNAT": True}, "spec.applyOnForward", "true"),
    ("Tier", {"defaultAction": "Allow"}, "spec.defaultAction", "Pass, Deny"),
    ("HostEndpoint", {"interfaceName": "eth0"}, "spec.node", "is required"),
    ("HostEndpoint", {"node": "n"}, "spec.interfaceName", "where expectedIPs is empty"),
    ("HostEndpoint", {"node": "n", "interfaceName": "a" * 16}, "spec.interfaceName", "1 to 15"),
    ("HostEndpoint", {"node": "n", "expectedIPs": ["10.0.0.0/8"]}, "spec.expectedIPs[0]", "not an IP address"),
    ("HostEndpoint", {"node": "n", "interfaceName": "*", "ports": [{"name": "a", "protocol": "ICMP", "port": 1}]},
     "spec.ports[0].protocol", "TCP, UDP, SCTP"),
    ("HostEndpoint", {"node": "n", "interfaceName": "*", "ports": [{"name": "8", "protocol": "TCP", "port": 1}]},
     "spec.ports[0].name", "a letter"),
    ("WorkloadEndpoint", WORKLOAD | {"ipNetworks": ["10.0.0.0/31"]}, "spec.ipNetworks[0]", "more than one address"),
    ("WorkloadEndpoint", WORKLOAD | {"ipNATs": [{"internalIP": "10.0.0.1", "externalIP": "10.0.0.2"}]},
     "spec.ipNATs[0].internalIP", "not in the endpoint's networks"),
    ("WorkloadEndpoint", WORKLOAD | {"ipNATs": [{"internalIP": "10.0.0.1", "externalIP": "fd00::1"}]},
     "spec.ipNATs[0].externalIP", "IPv4"),
    ("WorkloadEndpoint", WORKLOAD | {"ipv6Gateway": "10.0.0.1"}, "spec.ipv6Gateway", "not an IPv6"),
    ("WorkloadEndpoint", {}, "spec.interfaceName", "is required"),
    ("WorkloadEndpoint", WORKLOAD | {"ports": [{"protocol": "TCP", "port": 1}]}, "spec.ports[0].name", "hostPort"),
    ("WorkloadEndpoint", WORKLOAD | {"qosControls": {"egressBurst": 1}}, "spec.qosControls.egressBurst", "1000 to"),
    ("WorkloadEndpoint", WORKLOAD | {"qosControls": {"dscp": 64}}, "spec.qosControls.dscp", "0 to 63"),
    ("LiveMigration", {"source": {}}, "spec.source", "exactly one"),
    ("FelixConfiguration", {"reportingInterval": "30"}, "spec.reportingInterval", "such as 90s"),
    ("FelixConfiguration", {"kubeNodePortRanges": [1] * 8}, "spec.kubeNodePortRanges", "at most 7"),
    ("FelixConfiguration", {"kubeNodePortRanges": ["http"]}, "spec.kubeNodePortRanges[0]", "a port's name"),
    ("FelixConfiguration", {"externalNodesList": ["fd00::/8"]}, "spec.externalNodesList[0]", "not an IPv4"),
    ("FelixConfiguration", {"openstackRegion": "a" * 47}, "spec.openstackRegion", "at most 46"),
    ("FelixConfiguration", {"routeTableRange": {"min": 1, "max": 251}}, "spec.routeTableRange.max", "1 to 250"),
    ("FelixConfiguration", {"routeTableRange": {"min": 2, "max": 1}}, "spec.routeTableRange.min", "above max"),
    ("FelixConfiguration", {"routeTableRanges": [{"min": 250, "max": 260}]}, "spec.routeTableRanges[0]", "253 to 255"),
    ("FelixConfiguration", {"routeTableRanges": [{"min": 256, "max": 70000}]}, "spec.routeTableRanges", "at most 65535"),
    ("FelixConfiguration", {"routeTableRange": {"min": 1, "max": 2}, "routeTableRanges": []}, "spec.routeTableRange", "together"),
    ("FelixConfiguration", {"failsafeInboundHostPorts": [{"protocol": "icmp", "port": 1}]},
     "spec.failsafeInboundHostPorts[0].protocol", "TCP, UDP, SCTP"),
    ("FelixConfiguration", {"iptablesBackend": "ebpf"}, "spec.iptablesBackend", "Auto, Legacy, NFT"),
    ("FelixConfiguration", {"featureDetectOverride": "SNAT"}, "spec.featureDetectOverride", "NAME=VALUE"),
    ("FelixConfiguration", {"bpfDataIfacePattern": "("}, "spec.bpfDataIfacePattern", "not a regular expression"),
    ("KubeControllersConfiguration", {"controllers": {"node": {"hostEndpoint": {"templates": [{"labels": {}}]}}}},
     "spec.controllers.node.hostEndpoint.templates[0]", "interfaceCIDRs or interfacePattern"),
    ("KubeControllersConfiguration", {"prometheusMetricsPort": 65536}, "spec.prometheusMetricsPort", "0 to 65535"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "spec", "place", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_refused(kind: str, spec: dict[str, Any], place: str, words: str) -> None:
    named = {problem.field: str(problem) for problem in found(kind, spec)}
    assert place in named
    assert words in named[place]


ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ("BGPPeer", {}),
    ("BGPPeer", {"peerIP": "10.0.0.1"}),  # without an AS number: what that means is for whoever peers to say
    ("BGPPeer", {"peerIP": "[fd00::1]:1179", "reachableBy": "fd00::2", "asNumber": "1.10"}),
    ("BGPPeer", {"peerSelector": "all()", "asNumber": 0}),
    ("BGPPeer", {"nextHopMode": "", "keepOriginalNextHop": True}),
    ("BGPConfiguration", {"listenPort": 1179, "logSeverityScreen": "DEBUG"}),
    ("BGPConfiguration", {"prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["1:2", "1:2:4294967295"]}]}),
    ("BGPConfiguration", {"maxRestartTime": "unknown fields are nobody's business"}),
    ("BGPFilter", {"exportV4": [{"action": "Reject"}, IN | {"prefixLength": {"min": 8}}]}),
    ("BGPFilter", {"exportV6": [{"action": "Accept", "interface": "*"}]}),
    ("Node", {}),
    ("Node", {"bgp": {"ipv4Address": "10.0.0.1/24", "ipv6Address": "fd00::1"}}),
    ("CalicoNodeStatus", {"node": "n", "classes": ["BGP"], "updatePeriodSeconds": 0}),
    ("IPPool", {"cidr": "10.0.0.0/26"}),
    ("IPPool", {"cidr": "10.0.0.0/30", "disabled": True}),
    ("IPPool", {"cidr": "10.0.0.0/30", "blockSize": 30}),
    ("IPPool", {"cidr": "fd00::/64", "ipipMode": "Never", "vxlanMode": "CrossSubnet"}),
    ("IPPool", {"cidr": "10.0.0.0/24", "allowedUses": ["LoadBalancer"], "nodeSelector": "all()"}),
    ("IPPool", {"cidr": "10.0.0.0/24", "namespaceSelector": "has(a)"}),
    ("NetworkPolicy", policy(destination={"ports": ["http", "web-1"]})),
    ("NetworkPolicy", policy(protocol=132, destination={"ports": [80, "90:99", "8080"]})),
    ("NetworkPolicy", policy(source={"namespaceSelector": " global( )"})),
    ("NetworkPolicy", policy(source=SERVICE, http={"methods": ["GET"], "paths": [{"prefix": "/"}]})),
    ("NetworkPolicy", policy(protocol="ICMPv6", icmp={"type": 0}, ipVersion=6)),
    ("NetworkPolicy", policy(protocol="6", source={"ports": [1]}, http={"methods": ["GET"]})),
    ("NetworkPolicy", policy(protocol="1", icmp={"type": 8})),
    ("NetworkPolicy", policy(metadata={"annotations": {"Example.org/a": "any text"}})),
    ("FelixConfiguration", {"bpfLogFilters": {"weps": "icmp"}}),
    ("NetworkPolicy", policy(protocol=58, icmp={"type": 128, "code": 0})),
    ("GlobalNetworkPolicy", {"preDNAT": True, "applyOnForward": True, "types": ["Ingress"], "order": 0.5}),
    ("Profile", {"ingress": [ALLOW], "labelsToApply": {"a": "b"}}),
    ("HostEndpoint", {"node": "n", "interfaceName": "*"}),
    ("FelixConfiguration", {"failsafeInboundHostPorts": [], "iptablesBackend": "legacy", "logSeveritySys": ""}),
    ("FelixConfiguration", {"routeTableRanges": [{"min": 1, "max": 250}, {"min": 256, "max": 1000}]}),
    ("KubeControllersConfiguration", {"controllers": {"node": {"leakGracePeriod": "0"}}}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spec"), ALLOWED, ids=lambda value: value if isinstance(value, str) else "")
def test_allowed_with_and_without_defaults(kind: str, spec: dict[str, Any]) -> None:
    assert found(kind, spec) == []
    assert validate(defaulted(resource(kind, spec))) == []


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("BGPPeer", "", "is required"),
        ("BGPPeer", "Rack1", "lower-case"),
        ("BGPPeer", "a" * 254, "at most 253"),
        ("BGPPeer", "a..b", "lower-case"),
        ("Tier", "a.b", "at most 63"),
        ("Tier", "a" * 64, "at most 63"),
        ("NetworkPolicy", "a.b.c", "at most one '.'"),
        ("GlobalNetworkPolicy", "knp.default.a", "at most one '.'"),
        ("ClusterInformation", "mine", "default"),
        ("KubeControllersConfiguration", "mine", "default"),
    ],
)
def test_names_refused(kind: str, name: str, words: str) -> None:
    assert words in str(found(kind, {}, name=name)[0])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("BGPPeer", "rack1.example.org"),
        ("NetworkPolicy", "tier.policy"),
        ("NetworkPolicy", "knp.default.a.b.c"),
        ("StagedNetworkPolicy", "ossg.default.a"),
        ("GlobalNetworkPolicy", "tier.policy"),
        ("StagedKubernetesNetworkPolicy", "a.b.c"),
        ("Profile", "ksa.ns.account"),
    ],
)
def test_names_allowed(kind: str, name: str) -> None:
    assert found(kind, {}, name=name) == []


@pytest.mark.parametrize(
    ("metadata", "place"),
    [
        ({"labels": {"a b": "c"}}, "metadata.labels['a b']"),
        ({"labels": {"a": "b c"}}, "metadata.labels['a']"),
        ({"labels": {"Example.org/a": "b"}}, "metadata.labels['Example.org/a']"),
        ({"labels": {"a" * 64: ""}}, f"metadata.labels['{'a' * 64}']"),
        ({"annotations": {"a/b/c": "d"}}, "metadata.annotations['a/b/c']"),
        ({"annotations": {"a": "b" * 262_144}}, "metadata.annotations"),
    ],
)
def test_labels_and_annotations_refused(metadata: dict[str, Any], place: str) -> None:
    assert [problem.field for problem in found("BGPPeer", {}, **metadata)] == [place]


def test_labels_and_annotations_allowed() -> None:
    metadata = {
        "labels": {"example.org/Rack_1": "A.b-c", "empty": ""},
        "annotations": {"Example.org/Free": "any text\n\0"},
    }
    assert found("BGPPeer", {}, **metadata) == []


def test_everything_wrong_with_a_resource_is_said_at_once() -> None:
    wrong = {"peerIP": "x", "nextHopMode": "y", "filters": ["Z"]}
    assert len(found("BGPPeer", wrong, name="Q")) == 4


def test_only_the_default_bgp_configuration_speaks_for_the_cluster() -> None:
    spec = {"nodeToNodeMeshEnabled": False, "serviceClusterIPs": [{"cidr": "10.0.0.0/8"}]}
    assert found("BGPConfiguration", spec, name="default") == []
    assert [problem.field for problem in found("BGPConfiguration", spec, name="node.n1")] == [
        "spec.nodeToNodeMeshEnabled",
        "spec.serviceClusterIPs",
    ]
    with_password = spec | {"nodeMeshPassword": {}, "nodeMeshMaxRestartTime": "1s"}
    assert [problem.field for problem in found("BGPConfiguration", with_password, name="default")] == [
        "spec.nodeMeshPassword",
        "spec.nodeMeshMaxRestartTime",
    ]


def test_felix_selectors_belong_to_configurations_of_their_own() -> None:
    assert found("FelixConfiguration", {"nodeSelector": "all()"}, name="edge") == []
    for name in ("default", "node.n1"):
        assert [each.field for each in found("FelixConfiguration", {"nodeSelector": "all()"}, name=name)] == [
            "spec.nodeSelector"
        ]


@pytest.mark.parametrize(
    ("name", "order", "action"), [("default", 1e6, "Deny"), ("kube-admin", 1e3, "Pass"), ("kube-baseline", 1e7, "Pass")]
)
def test_calicos_own_tiers_are_fixed(name: str, order: float, action: str) -> None:
    assert found("Tier", {"order": order, "defaultAction": action}, name=name) == []
    assert [each.field for each in found("Tier", {"order": 1}, name=name)] == ["spec.order"]
    other = {"Deny": "Pass", "Pass": "Deny"}[action]
    assert [each.field for each in found("Tier", {"defaultAction": other}, name=name)] == ["spec.defaultAction"]
    assert defaulted(resource("Tier", {}, name=name)).to_json()["spec"] == {"order": order, "defaultAction": action}


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("IPPool", {"cidr": "10.0.0.0/16"},
         {"cidr": "10.0.0.0/16", "ipipMode": "Never", "vxlanMode": "Never", "nodeSelector": "all()", "blockSize": 26,
          "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic"}),
        ("IPPool", {"cidr": "FD00:0::/64", "blockSize": 0, "ipipMode": "", "assignmentMode": "Manual"},
         {"cidr": "fd00::/64", "ipipMode": "Never", "vxlanMode": "Never", "nodeSelector": "all()", "blockSize": 122,
          "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Manual"}),
        ("BGPConfiguration", {}, {"logSeverityScreen": "Info", "serviceLoadBalancerAggregation": "Enabled"}),
        ("BGPConfiguration", {"serviceLoadBalancerAggregation": "Disabled"},
         {"logSeverityScreen": "Info", "serviceLoadBalancerAggregation": "Disabled"}),
        ("BGPPeer", {"peerIP": "10.0.0.1"}, {"peerIP": "10.0.0.1"}),
        ("NetworkPolicy", {}, {"tier": "default", "types": ["Ingress"]}),
        ("NetworkPolicy", {"egress": [ALLOW]}, {"tier": "default", "egress": [ALLOW], "types": ["Egress"]}),
        ("StagedGlobalNetworkPolicy", {"ingress": [ALLOW], "egress": [ALLOW], "tier": "t"},
         {"tier": "t", "ingress": [ALLOW], "egress": [ALLOW], "types": ["Ingress", "Egress"], "stagedAction": "Set"}),
        ("StagedKubernetesNetworkPolicy", {"egress": [{}]},
         {"egress": [{}], "policyTypes": ["Ingress", "Egress"], "stagedAction": "Set"}),
        ("Tier", {}, {"defaultAction": "Deny"}),
        ("IPAMConfiguration", {"autoAllocateBlocks": False}, {"autoAllocateBlocks": False}),
        ("FelixConfiguration", {"failsafeInboundHostPorts": []}, {"failsafeInboundHostPorts": [], "nftablesMode": "Auto"}),
    ],
)  # fmt: skip
def test_defaults(kind: str, spec: dict[str, Any], expected: dict[str, Any]) -> None:
    before = resource(kind, spec)
    filled = defaulted(before)
    assert filled.to_json()["spec"] == expected
    assert before.to_json()["spec"] == spec
    assert defaulted(filled).to_json() == filled.to_json()


def test_policies_are_labelled_with_their_tier() -> None:
    filled = defaulted(resource("GlobalNetworkPolicy", {"tier": "security"}, labels={"a": "b"}))
    assert filled.metadata.labels == {"a": "b", "projectcalico.org/tier": "security"}


def test_a_pool_that_cannot_be_read_keeps_its_words() -> None:
    assert defaulted(resource("IPPool", {"cidr": "10.0.0.0/99"})).to_json()["spec"]["cidr"] == "10.0.0.0/99"


RESOURCES = [kind for kind in ALL if kind.is_resource]
sampled = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@pytest.mark.parametrize("kind", RESOURCES, ids=lambda kind: kind.name)
@sampled
@given(data=st.data())
def test_whatever_can_be_read_can_be_validated_and_every_problem_says_what_is_wrong(
    kind: Kind, data: st.DataObject
) -> None:
    read = kind.model.from_json(data.draw(objects(kind.model)))
    assert isinstance(read, Resource)
    for each in (read, defaulted(read)):
        for problem in validate(each):
            assert problem.field
            assert problem.reason


@pytest.mark.parametrize("kind", RESOURCES, ids=lambda kind: kind.name)
@sampled
@given(data=st.data())
def test_defaults_change_nothing_that_is_said(kind: Kind, data: st.DataObject) -> None:
    said = data.draw(objects(kind.model))
    read = kind.model.from_json(said)
    assert isinstance(read, Resource)
    filled = defaulted(read)
    assert changed(said, filled.to_json(), "") == set() or kind.name == "IPPool"
    assert changed(said, filled.to_json(), "") <= {".spec.cidr"}  # written as Calico writes it
    assert read.to_json() == kind.model.from_json(said).to_json()
    assert defaulted(filled).to_json() == filled.to_json()


def changed(before: Any, after: Any, path: str) -> set[str]:
    """Where `after` says something else than `before`, which said something."""
    if before in ("", None, [], {}) or (path == ".spec.blockSize" and before == 0):
        return set()
    if isinstance(before, dict) and isinstance(after, dict):
        return {place for name in before for place in changed(before[name], after.get(name), f"{path}.{name}")}
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return {place for index, item in enumerate(before) for place in changed(item, after[index], f"{path}[{index}]")}
    return set() if before == after else {path}


def test_a_wrong_word_about_calicos_own_tier_is_not_mended_but_refused() -> None:
    filled = defaulted(resource("Tier", {"defaultAction": "Pass"}, name="default"))
    assert [problem.field for problem in validate(filled)] == ["spec.defaultAction"]


def test_a_status_gets_no_defaults() -> None:
    status: dict[str, Any] = {"runningConfig": {"controllers": {"loadBalancer": {}}}}
    read = KINDS["KubeControllersConfiguration"].model.from_json({"metadata": {"name": "default"}, "status": status})
    assert isinstance(read, Resource)
    assert defaulted(read).to_json()["status"] == status
