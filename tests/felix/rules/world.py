"""A node with everything: each kind of endpoint and policy, each setting that makes rules of its own."""

from __future__ import annotations

from collections.abc import Iterable

from felix.desired import (
    VTEP,
    Entity,
    Host,
    HostEndpoint,
    HostEndpointUpdate,
    HostUpdate,
    IPSetUpdate,
    Message,
    Policy,
    PolicyId,
    PolicyRule,
    PolicyUpdate,
    Pool,
    PoolUpdate,
    PortRange,
    Profile,
    ProfileUpdate,
    QoS,
    ServiceCIDRsUpdate,
    TierPolicies,
    VTEPUpdate,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadUpdate,
)  # fmt: skip
from felix.ports import PacketFilter
from felix.rules.ruleset import RuleProgrammer
from felix.rules.settings import Failsafe, RuleSettings

TCP, UDP = 6, 17
HOST = {"lo": ("127.0.0.1", "::1"), "eth0": ("192.0.2.1", "2001:db8::1"), "eth1": ("198.51.100.1", "2001:db8:1::1")}
FAILSAFES_IN = (
    Failsafe(TCP, 22),
    Failsafe(UDP, 68),
    Failsafe(TCP, 179, "192.0.2.0/24"),
    Failsafe(TCP, 2379, "fd00::/8"),
)
FAILSAFES_OUT = (Failsafe(UDP, 53), Failsafe(TCP, 179, "192.0.2.0/24"))
PLAIN = RuleSettings(failsafe_in=FAILSAFES_IN, failsafe_out=FAILSAFES_OUT)
EVERYTHING = RuleSettings(
    interface_prefixes=("cali", "tap"),
    filter_allow="RETURN",
    mangle_allow="RETURN",
    deny="REJECT",
    endpoint_to_host="REJECT",
    log_prefix="calico %t %k %n",
    log_rate="5/minute",
    denied_group=2,
    failsafe_in=FAILSAFES_IN,
    failsafe_out=FAILSAFES_OUT,
    has_vxlan=True,
    has_vxlan_v6=True,
    has_ipip=True,
    wireguard_port=51820,
    wireguard_port_v6=51821,
    wireguard_encrypts_host=True,
    service_loop="Reject",
    nat_ports=PortRange(32768, 65535),
    nat_excludes_hosts=True,
    nat_interface="eth+",
    has_floating_ips=True,
    is_openstack=True,
    metadata_address="127.0.0.1",
    allows_spoofing=True,
    external_nodes=("203.0.113.0/24", "2001:db8:ffff::/48"),
)


def global_id(name: str) -> PolicyId:
    kind = "StagedGlobalNetworkPolicy" if name.startswith("staged") else "GlobalNetworkPolicy"
    return PolicyId(kind, "", name)


def workload_id(name: str) -> WorkloadId:
    return WorkloadId("k8s", f"default/{name}", "eth0")


def workload(name: str, *tiers: TierPolicies, **more: object) -> WorkloadEndpoint:
    return WorkloadEndpoint(workload_id(name), f"cali{name}", tiers=tiers, **more)  # type: ignore[arg-type]


def tier(*names: str, name: str = "default", default: str = "Deny") -> TierPolicies:
    ids = tuple(map(global_id, names))
    return TierPolicies(name, default, ids, ids)  # type: ignore[arg-type]


MANY_PORTS = tuple(PortRange(port, port + 1) for port in range(1000, 1040, 4))
RULES = (
    PolicyRule("allow", protocol=TCP, source=Entity(nets=("10.0.0.0/8", "192.0.2.0/24", "fd00::/8", "2001:db8::/32"))),
    PolicyRule("deny", protocol=UDP, source=Entity(ip_sets=("s:a",), not_nets=("10.1.0.0/16", "10.2.0.0/16"))),
    PolicyRule("allow", protocol=TCP, destination=Entity(ports=MANY_PORTS, not_ports=(PortRange(1005, 1005),))),
    PolicyRule("allow", protocol=TCP, destination=Entity(ports=(PortRange(80, 80),), named_ports=("n:web",))),
    PolicyRule("allow", destination=Entity(services=("svc:default/web",))),
    PolicyRule("allow", source=Entity(not_ip_sets=("s:a",), not_named_ports=("n:web",))),
    PolicyRule("allow", ip_version=4, protocol=1, icmp=(8, None)),
    PolicyRule("allow", ip_version=6, protocol=58, not_icmp=(128, 0)),
    PolicyRule("log", not_protocol=TCP),
    PolicyRule("pass", annotations=(("reason", 'he said "so"'),)),
)
POLICIES = [
    Policy(global_id("web"), "default", RULES, RULES, "all()"),
    Policy(global_id("dns"), "default", RULES, RULES, "all()"),
    Policy(global_id("other"), "default", RULES, (), "has(x)"),
    Policy(global_id("staged"), "default", RULES, RULES, "has(x)"),
    Policy(global_id("empty"), "security", (), (), ""),
    Policy(global_id("untracked"), "default", RULES, RULES, is_untracked=True),
    Policy(global_id("pre-dnat"), "default", RULES, (), is_pre_dnat=True),
    Policy(PolicyId("NetworkPolicy", "default", "a-policy-whose-name-is-long"), "default", RULES),
]
SETS = [
    IPSetUpdate("s:a", "net", frozenset({"10.3.0.0/16", "10.3.1.1/32", "fd00:3::/64"})),
    IPSetUpdate("n:web", "ip,port", frozenset({"10.0.0.1,tcp:80", "fd00::1,tcp:80"})),
    IPSetUpdate("svc:default/web", "ip,port", frozenset({"10.0.0.1,udp:53", "fd00::1,sctp:80"})),
]
NAMED = TierPolicies("default", "Deny", (PolicyId("NetworkPolicy", "default", "a-policy-whose-name-is-long"),))
LIMITED = QoS(ingress_packet_rate=1000, egress_packet_rate=2000, egress_packet_burst=10, ingress_max_connections=5,
              egress_max_connections=6, dscp=46)  # fmt: skip
WORKLOADS = [
    workload("a", tier("empty", name="security"), tier("web", "dns", "staged", "other"), profiles=("kns.default",),
             ipv4_nets=("10.0.0.1/32",), ipv6_nets=("fd00::1/128",)),
    workload("ab", NAMED, qos=LIMITED, ipv4_nets=("10.0.0.2/32",), ipv6_nets=("fd00::2/128",),
             nats=(("10.0.0.2", "192.0.2.200"), ("10.0.0.2", "192.0.2.100"), ("fd00::2", "2001:db8::200")),
             allowed_source_prefixes=("10.9.0.0/16", "fd09::/64")),
    workload("down", is_up=False),
]  # fmt: skip
HOST_ENDPOINTS = [
    HostEndpoint("eth0", "eth0", profiles=("kns.default",), tiers=(tier("web", "dns", "other"),),
                 untracked_tiers=(tier("untracked"),), pre_dnat_tiers=(tier("pre-dnat"),), forward_tiers=(tier("web"),),
                 expected_ips=("192.0.2.1", "2001:db8::1"), qos=QoS(dscp=10)),
    HostEndpoint("all", "*", tiers=(tier("other"),), pre_dnat_tiers=(tier("pre-dnat"),)),
]  # fmt: skip


def messages() -> list[Message]:
    return [
        *SETS,
        *map(PolicyUpdate, POLICIES),
        ProfileUpdate(Profile("kns.default", (PolicyRule("allow"),), (PolicyRule("pass"), PolicyRule("deny")))),
        *map(WorkloadUpdate, WORKLOADS),
        *map(HostEndpointUpdate, HOST_ENDPOINTS),
        HostUpdate(Host("node2", "192.0.2.2", "2001:db8::2")),
        VTEPUpdate(VTEP("node2", "10.0.1.0", parent_ipv4="192.0.2.2", ipv6="fd00:1::", parent_ipv6="2001:db8::2")),
        PoolUpdate(Pool("10.0.0.0/16", masquerade=True)),
        PoolUpdate(Pool("fd00::/48", masquerade=True)),
        PoolUpdate(Pool("10.255.0.0/24", is_load_balancer_only=True)),
        ServiceCIDRsUpdate(("10.96.0.0/12", "fd00:96::/108"), ("203.0.113.7/32",), ("10.255.0.0/24",)),
    ]


def told(packet_filter: PacketFilter, settings: RuleSettings, these: Iterable[Message]) -> RuleProgrammer:
    """A programmer that has been told, and has handed over."""
    programmer = RuleProgrammer(packet_filter, settings)
    for number, (name, addresses) in enumerate(HOST.items(), 1):
        programmer.interface_changed(name, "up", frozenset(addresses), number)
    for message in these:
        programmer.on_message(message)
    programmer.complete()
    return programmer
