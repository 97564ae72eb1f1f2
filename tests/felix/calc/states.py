"""Random states of a small cluster in which everything collides with everything, invalid resources among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from integration.resources.keys import Key, block_key

State = Mapping[Key, dict[str, Any]]
Json = dict[str, Any]
KEY = "QmFzZTY0IG9mIHRoaXJ0eS10d28gb2N0ZXRzLi4uISE="
NODES, NAMESPACES = ("n1", "n2", "n3"), ("a", "b")
SELECTORS = (
    "", "all()", "app == 'x'", "app == 'y'", "app in {'x', 'y'}", "has(tier)", "!has(tier)", "app != 'x'",
    "tier starts with 't'", "app == 'x' || tier == 't1'", "!(app == 'y') && has(app)", "app == 'x' && tier == 't2'",
    "pcns.team == 'red'", "app not in {'x'}", "app in {}",
)  # fmt: skip
TEAMS = ("", "", "team == 'red'", "all()", "team != 'red'")


def labels(draw: Random) -> dict[str, str]:
    found = {"app": draw.choice("xyz"), "tier": draw.choice(("t1", "t2")), "pcns.team": "forged"}
    return {name: value for name, value in found.items() if draw.random() < 0.7}


def some(draw: Random, values: tuple[str, ...], most: int = 2) -> list[str]:
    return draw.sample(values, draw.randint(0, min(most, len(values))))


def entity(draw: Random, side: str, is_global: bool) -> Json:
    found: Json = {}
    if draw.random() < 0.6:
        found["selector"] = draw.choice(SELECTORS)
    if draw.random() < 0.2:
        found["notSelector"] = draw.choice(SELECTORS)
    if draw.random() < 0.3:
        found["namespaceSelector"] = draw.choice((*TEAMS, "global()"))
    if draw.random() < 0.2:
        found["serviceAccounts"] = draw.choice(({"names": ["s1"]}, {"selector": "role == 'r'"}, {}))
    if draw.random() < 0.2:
        found["nets"] = some(draw, ("10.0.0.0/8", "fd00::/64", "10.0.0.1/32"))
    if draw.random() < 0.2 and side == "destination":
        found["ports"] = draw.choice(([80], ["http"], ["http", "81:90"], ["dns"]))
    if draw.random() < 0.1:
        found["notPorts"] = ["dns"]
    if draw.random() < 0.15 and not found:
        found["services"] = {"name": draw.choice(("s1", "s2")), "namespace": draw.choice(NAMESPACES)}
        if not is_global and draw.random() < 0.3:
            del found["services"]["namespace"]
    return found


def rules(draw: Random, is_global: bool) -> list[Json]:
    found = []
    for _ in range(draw.randint(0, 3)):
        rule: Json = {
            "action": draw.choice(("Allow", "Deny", "Pass", "Log")),
            "protocol": draw.choice(("TCP", "UDP", 6)),
        }
        rule["source"], rule["destination"] = (entity(draw, side, is_global) for side in ("source", "destination"))
        if draw.random() < 0.02:
            rule["action"] = draw.choice(("Sing", "", 7, None))
        found.append(rule)
    return found


def policy(draw: Random, *, is_global: bool = False, is_staged: bool = False) -> Json:
    spec: Json = {
        "selector": draw.choice(SELECTORS),
        "order": draw.choice((None, 1, 1, 2.5, 100)),
        "tier": draw.choice(("", "default", "t1", "t2")),
        "types": draw.choice(([], ["Ingress"], ["Egress"], ["Ingress", "Egress"])),
        "ingress": rules(draw, is_global),
        "egress": rules(draw, is_global),
        "serviceAccountSelector": draw.choice(("", "", "", "role == 'r'")),
    }
    if draw.random() < 0.05:
        spec["performanceHints"] = ["AssumeNeededOnEveryNode"]
    if is_global:
        spec["namespaceSelector"] = draw.choice(TEAMS)
        spec |= draw.choice(({}, {}, {"applyOnForward": True}, {"doNotTrack": True}, {"preDNAT": True}))
    if is_staged:
        spec["stagedAction"] = draw.choice(("Set", "Set", "", "Delete", "Ignore"))
    if draw.random() < 0.05:
        spec["selector"] = "app =="
    return {"spec": {name: value for name, value in spec.items() if value is not None}}


def kubernetes_policy(draw: Random) -> Json:
    pods = {"matchLabels": {"app": draw.choice("xy")}}
    ingress = [{"from": [{"podSelector": pods}], "ports": [{"port": draw.choice((80, "http"))}]}]
    return {
        "spec": {"podSelector": draw.choice((pods, {})), "ingress": draw.choice(([], ingress)), "stagedAction": "Set"}
    }


def profile(draw: Random) -> Json:
    team, role = draw.choice(("red", "blue")), draw.choice(("r", "q"))
    spec = {"labelsToApply": draw.choice(({}, {"pcns.team": team}, {"pcns.team": team, "pcsa.role": role, "app": "x"}))}
    return {"spec": spec | draw.choice(({}, {"ingress": [{"action": "Allow"}]}, {"egress": rules(draw, True)}))}


def workload(draw: Random) -> Json:
    addresses = (*(f"10.0.0.{at}/32" for at in range(6)), "fd00::1/128", "fd00::2")
    spec: Json = {
        "ipNetworks": some(draw, addresses),
        "interfaceName": f"cali{draw.randint(1, 3)}",
        "profiles": some(draw, ("kns.a", "kns.b", "ksa.a.s1", "missing", "projectcalico-default-allow")),
        "ports": draw.choice(
            (
                [],
                [{"name": "http", "protocol": "TCP", "port": 8080}],
                [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "http", "protocol": "UDP", "port": 80}],
            )
        ),
        "serviceAccountName": draw.choice(("", "s1")),
        "ipNATs": [{"internalIP": "10.0.0.1", "externalIP": "1.2.3.4"}],
    }
    if draw.random() < 0.05:
        spec["interfaceName"] = draw.choice(("", 5))
    return {"metadata": {"labels": labels(draw)}, "spec": spec}


def host_endpoint(draw: Random) -> Json:
    spec = {
        "node": draw.choice(NODES[:2]),
        "interfaceName": draw.choice(("eth0", "*", "")),
        "expectedIPs": some(draw, ("192.168.0.1", "10.0.0.1", "fd00::9")),
        "profiles": some(draw, ("kns.a", "missing")),
        "ports": [{"name": "http", "protocol": "TCP", "port": 99}],
    }
    return {"metadata": {"labels": labels(draw)}, "spec": spec}


def network_set(draw: Random) -> Json:
    nets = some(draw, ("10.0.0.1", "10.0.0.0/8", "fd00::/64", "10.0.0.1/32", "192.168.0.1/24"), 3)
    if draw.random() < 0.1:
        nets.append("10.0.0.256")
    return {"metadata": {"labels": labels(draw)}, "spec": {"nets": nets}}


def endpoint_slice(draw: Random) -> Json:
    endpoints = [{"addresses": some(draw, ("10.0.0.1", "10.0.0.2", "fd00::1"))} for _ in range(2)]
    ports = [{"port": draw.choice((80, 81)), "protocol": draw.choice(("TCP", "UDP"))}, {"name": "any"}]
    service = {"kubernetes.io/service-name": draw.choice(("s1", "s2"))}
    return {"metadata": {"labels": service}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}


def node(draw: Random) -> Json:
    at = draw.randint(1, 3)
    bgp = {"ipv4Address": f"192.168.{draw.choice((0, 1))}.{at}/24", "ipv4IPIPTunnelAddr": draw.choice(("", "10.0.0.3"))}
    bgp |= draw.choice(({}, {"ipv6Address": f"fd01::{at}/64"}))
    spec: Json = {
        "bgp": draw.choice((bgp, bgp, None)),
        "ipv4VXLANTunnelAddr": draw.choice(("", f"10.0.0.{at}", "10.1.0.0")),
        "vxlanTunnelMACAddr": draw.choice(("", "66:00:00:00:00:01")),
        "ipv6VXLANTunnelAddr": draw.choice(("", "fd00::7")),
        "addresses": [{"address": f"172.16.0.{at}", "type": draw.choice(("InternalIP", "ExternalIP"))}],
    }
    status = {"wireguardPublicKey": draw.choice(("", "no key", KEY))}
    spec["wireguard"] = draw.choice((None, {"interfaceIPv4Address": "10.0.0.3"}))
    if draw.random() < 0.05:
        spec["bgp"] = {"ipv4Address": "somewhere"}
    return {"metadata": {"labels": {"rack": draw.choice("12")}}, "spec": spec, "status": status}


def pool(draw: Random) -> Json:
    spec: Json = {"cidr": draw.choice(("10.0.0.0/16", "10.0.0.0/24", "10.1.0.0/16", "fd00::/48"))}
    mode = draw.choice(("Always", "CrossSubnet", "Never"))
    spec |= draw.choice(({}, {"vxlanMode": mode}, {"ipipMode": mode}, {"allowedUses": ["LoadBalancer"]}))
    return {"spec": spec | draw.choice(({}, {"natOutgoing": True}))}


def block(draw: Random, cidr: str) -> Json:
    attributes = [{"secondary": {"node": draw.choice(NODES)}}, {"secondary": {}}, {"handle_id": "h"}]
    allocations = [draw.choice((None, 0, 1, 2)) for _ in range(4)]
    affinity = draw.choice((None, "virtual:load-balancer", *(f"host:{name}" for name in NODES)))
    return {"cidr": cidr, "affinity": affinity, "allocations": allocations, "attributes": attributes}


def felix_configuration(draw: Random) -> Json:
    spec = {
        "logSeverityScreen": draw.choice(("Info", "Debug")),
        "nodeSelector": draw.choice(("", "rack == '1'", "all()")),
    }
    return {"spec": spec}


def peer(draw: Random) -> Json:
    spec = {"localWorkloadSelector": draw.choice(SELECTORS), "node": draw.choice(("", "n1", "n2"))}
    return {"spec": spec | draw.choice(({}, {"nodeSelector": "rack == '1'"}))}


def migration(draw: Random) -> Json:
    one = {"orchestratorID": "k8s", "workloadID": "a/p1"}
    target = draw.choice(({"selector": draw.choice(SELECTORS)}, {"workloadEndpoint": {**one, "endpointID": "eth0"}}))
    return {"spec": {"source": {"workload": {**one, "workloadID": "b/p1"}}, "target": target}}


def bgp_configuration(draw: Random) -> Json:
    return {"spec": {"serviceClusterIPs": [{"cidr": draw.choice(("10.96.0.0/12", "10.97.0.0/16", "bad"))}]}}


def universe() -> dict[Key, Callable[[Random], Json]]:
    """Every key that may exist, with what makes its value."""
    found: dict[Key, Callable[[Random], Json]] = {}
    for name in ("default", "n1"):
        found[Key("FelixConfiguration", name if name == "default" else "node.n1")] = felix_configuration
        found[Key("FelixConfiguration", f"some-{name}")] = felix_configuration
        found[Key("BGPPeer", name)] = peer
        found[Key("LiveMigration", name, "a")] = migration
    found[Key("BGPConfiguration", "default")] = bgp_configuration
    for name in ("kns.a", "kns.b", "ksa.a.s1", "projectcalico-default-allow"):
        found[Key("Profile", name)] = profile
    for name in ("default", "t1", "t2"):
        found[Key("Tier", name)] = lambda draw: {
            "spec": {"order": draw.choice((None, 1, 2)), "defaultAction": draw.choice(("Pass", "Deny"))}
        }
    for name in NODES:
        found[Key("Node", name)] = node
    for at in range(4):
        found[Key("IPPool", f"pool{at}")] = pool
        found[Key("HostEndpoint", f"h{at}")] = host_endpoint
        found[Key("GlobalNetworkSet", f"s{at}")] = network_set
        found[Key("NetworkSet", f"s{at}", NAMESPACES[at % 2])] = network_set
        found[Key("EndpointSlice", f"e{at}", NAMESPACES[at % 2])] = endpoint_slice
        cidr = ("10.0.0.0/30", "10.0.0.4/30", "10.0.0.3/32", "fd00::/126")[at]
        found[block_key(cidr)] = lambda draw, cidr=cidr: block(draw, cidr)  # type: ignore[misc]
        for namespace in NAMESPACES:
            for name in NODES[:2]:
                found[Key("WorkloadEndpoint", f"{name}-k8s-p{at}-eth0", namespace)] = workload
    for at in range(8):
        found[Key("GlobalNetworkPolicy", f"g{at}")] = lambda draw: policy(draw, is_global=True)
        found.update((Key("NetworkPolicy", f"p{at}", namespace), policy) for namespace in NAMESPACES)
    found[Key("StagedGlobalNetworkPolicy", "g1")] = lambda draw: policy(draw, is_global=True, is_staged=True)
    found[Key("StagedNetworkPolicy", "p1", "a")] = lambda draw: policy(draw, is_staged=True)
    found[Key("StagedKubernetesNetworkPolicy", "k1", "a")] = kubernetes_policy
    return found


UNIVERSE = universe()


def random_state(draw: Random, density: float = 0.6) -> dict[Key, Json]:
    return {key: make(draw) for key, make in UNIVERSE.items() if draw.random() < density}


def steps(draw: Random, before: State, after: State) -> list[tuple[Key, Json | None]]:
    """Updates that lead from one to the other: in any order, with repeats, detours and deletions of what is not there."""
    found: list[tuple[Key, Json | None]] = [
        (key, after.get(key)) for key in UNIVERSE if before.get(key) != after.get(key)
    ]
    found += [(key, after.get(key)) for key in draw.sample(list(UNIVERSE), 10)]
    draw.shuffle(found)
    detours = [key for key in draw.sample(list(UNIVERSE), 10) if key in {key for key, _ in found}]
    return [(key, draw.choice((None, UNIVERSE[key](draw)))) for key in detours] + found
