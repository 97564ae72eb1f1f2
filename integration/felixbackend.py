"""The messages of Calico's policy sync protocol (felixbackend.proto), as far as Dikastes is sent or sends them.

Numbers and types are Calico's of 2026: policies are named by kind, namespace and name. A client of before that, which
names them by text, would not understand the tiers of an endpoint; Felix and Dikastes are of one version in Calico, too.
"""

from __future__ import annotations

from integration.protobuf import describe

SERVICE = "felix.PolicySync"  # Sync(SyncRequest) → stream of ToDataplane; Report(DataplaneStats) → ReportResult

IP, IP_AND_PORT, NET = 0, 1, 2  # IPSetUpdate.type
MAX_MEMBERS = 82_200  # in one message: gRPC's clients take 4 MiB, and a member is at most 51 octets

_RULE = (
    "action 1 string, ip_version 2 int32, protocol 3 Protocol, src_net 4 *string, src_ports 5 *PortRange, "
    "dst_net 6 *string, dst_ports 7 *PortRange, icmp_type 8 int32@icmp, icmp_type_code 9 IcmpTypeAndCode@icmp, "
    "src_ip_set_ids 10 *string, dst_ip_set_ids 11 *string, src_named_port_ip_set_ids 12 *string, "
    "dst_named_port_ip_set_ids 13 *string, dst_ip_port_set_ids 15 *string, not_protocol 102 Protocol, "
    "not_src_net 103 *string, not_src_ports 104 *PortRange, not_dst_net 105 *string, not_dst_ports 106 *PortRange, "
    "not_icmp_type 107 int32@not_icmp, not_icmp_type_code 108 IcmpTypeAndCode@not_icmp, "
    "not_src_ip_set_ids 109 *string, not_dst_ip_set_ids 110 *string, not_src_named_port_ip_set_ids 112 *string, "
    "not_dst_named_port_ip_set_ids 113 *string, original_src_selector 114 string, original_dst_selector 115 string, "
    "original_src_namespace_selector 116 string, original_dst_namespace_selector 117 string, "
    "original_not_src_selector 118 string, original_not_dst_selector 119 string, "
    "src_service_account_match 120 ServiceAccountMatch, dst_service_account_match 121 ServiceAccountMatch, "
    "http_match 122 HTTPMatch, metadata 123 RuleMetadata, original_dst_service 130 string, "
    "original_dst_service_namespace 131 string, original_src_service 132 string, "
    "original_src_service_namespace 133 string, rule_id 201 string"
)

MESSAGES = describe(
    {
        "SyncRequest": "",
        "ToDataplane": "in_sync 1 InSync@payload, ipset_update 2 IPSetUpdate@payload, "
        "ipset_delta_update 3 IPSetDeltaUpdate@payload, ipset_remove 4 IPSetRemove@payload, "
        "active_profile_update 5 ActiveProfileUpdate@payload, active_profile_remove 6 ActiveProfileRemove@payload, "
        "active_policy_update 7 ActivePolicyUpdate@payload, active_policy_remove 8 ActivePolicyRemove@payload, "
        "workload_endpoint_update 11 WorkloadEndpointUpdate@payload, "
        "workload_endpoint_remove 12 WorkloadEndpointRemove@payload, sequence_number 15 uint64, "
        "service_account_update 19 ServiceAccountUpdate@payload, "
        "service_account_remove 20 ServiceAccountRemove@payload, namespace_update 21 NamespaceUpdate@payload, "
        "namespace_remove 22 NamespaceRemove@payload",
        "InSync": "",
        "IPSetUpdate": "id 1 string, members 2 *string, type 3 int32",
        "IPSetDeltaUpdate": "id 1 string, added_members 2 *string, removed_members 3 *string",
        "IPSetRemove": "id 1 string",
        "ActiveProfileUpdate": "id 1 ProfileID, profile 2 Profile",
        "ActiveProfileRemove": "id 1 ProfileID",
        "ProfileID": "name 1 string",
        "Profile": "inbound_rules 1 *Rule, outbound_rules 2 *Rule",
        "ActivePolicyUpdate": "id 1 PolicyID, policy 2 Policy",
        "ActivePolicyRemove": "id 1 PolicyID",
        "PolicyID": "name 2 string, namespace 3 string, kind 4 string",
        "Policy": "inbound_rules 1 *Rule, outbound_rules 2 *Rule, untracked 3 bool, pre_dnat 4 bool, namespace 5 string, "
        "original_selector 6 string, perf_hints 7 *string, tier 8 string",
        "Rule": _RULE,
        "ServiceAccountMatch": "selector 1 string, names 2 *string",
        "HTTPMatch": "methods 1 *string, paths 2 *PathMatch",
        "PathMatch": "exact 1 string@path_match, prefix 2 string@path_match",
        "RuleMetadata": "annotations 1 map",
        "IcmpTypeAndCode": "type 1 int32, code 2 int32",
        "Protocol": "number 1 int32@number_or_name, name 2 string@number_or_name",
        "PortRange": "first 1 int32, last 2 int32",
        "WorkloadEndpointID": "orchestrator_id 2 string, workload_id 3 string, endpoint_id 4 string",
        "WorkloadEndpointUpdate": "id 1 WorkloadEndpointID, endpoint 5 WorkloadEndpoint",
        "WorkloadEndpoint": "state 1 string, name 2 string, mac 3 string, profile_ids 4 *string, ipv4_nets 5 *string, "
        "ipv6_nets 6 *string, tiers 7 *TierInfo, ipv4_nat 8 *NatInfo, ipv6_nat 9 *NatInfo, "
        "allow_spoofed_source_prefixes 10 *string, annotations 11 map, local_bgp_peer 13 LocalBGPPeer",
        "LocalBGPPeer": "bgp_peer_name 1 string",
        "WorkloadEndpointRemove": "id 1 WorkloadEndpointID",
        "TierInfo": "name 1 string, ingress_policies 2 *PolicyID, egress_policies 3 *PolicyID, default_action 4 string",
        "NatInfo": "ext_ip 1 string, int_ip 2 string",
        "ServiceAccountUpdate": "id 1 ServiceAccountID, labels 2 map",
        "ServiceAccountRemove": "id 1 ServiceAccountID",
        "ServiceAccountID": "namespace 1 string, name 2 string",
        "NamespaceUpdate": "id 1 NamespaceID, labels 2 map",
        "NamespaceRemove": "id 1 NamespaceID",
        "NamespaceID": "name 1 string",
        "ReportResult": "successful 1 bool",
        "DataplaneStats": "src_ip 1 string, dst_ip 2 string, src_port 3 int32, dst_port 4 int32, protocol 5 Protocol, "
        "stats 6 *Statistic, rules 7 *RuleTrace, action 8 int32",
        "Statistic": "direction 1 int32, relativity 2 int32, kind 3 int32, action 4 int32, value 5 int64",
        "RuleTrace": "policy 1 PolicyID@id, profile 2 ProfileID@id, none 3 bool@id, direction 4 int32, rule_num 5 int32",
    },
    "catbird.felix",
)
