"""What chains are called: Calico's names, byte for byte, so that either finds and replaces the other's. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from felix.desired import PolicyId
from integration.resources.names import base64url, length_limited_id

MAX_CHAIN = 28  # iptables
Direction = Literal["inbound", "outbound"]

KIND_SHORT = {
    "NetworkPolicy": "np",
    "GlobalNetworkPolicy": "gnp",
    "StagedNetworkPolicy": "snp",
    "StagedGlobalNetworkPolicy": "sgnp",
    "StagedKubernetesNetworkPolicy": "sknp",
    "KubernetesNetworkPolicy": "knp",
    "KubernetesClusterNetworkPolicy": "kcnp",
}

FROM_WORKLOAD_DISPATCH, TO_WORKLOAD_DISPATCH = "cali-from-wl-dispatch", "cali-to-wl-dispatch"
FROM_HOST, TO_HOST = "cali-from-host-endpoint", "cali-to-host-endpoint"
FROM_HOST_FORWARD, TO_HOST_FORWARD = "cali-from-hep-forward", "cali-to-hep-forward"
WORKLOAD_TO_HOST, CIDR_BLOCK = "cali-wl-to-host", "cali-cidr-block"
FAILSAFE_IN, FAILSAFE_OUT = "cali-failsafe-in", "cali-failsafe-out"
NAT_OUTGOING, FLOATING_DNAT, FLOATING_SNAT = "cali-nat-outgoing", "cali-fip-dnat", "cali-fip-snat"
RPF_SKIP, WIREGUARD_MARK, EGRESS_DSCP = "cali-rpf-skip", "cali-wireguard-incoming-mark", "cali-egress-dscp"
SET_ENDPOINT_MARK, FROM_ENDPOINT_MARK = "cali-set-endpoint-mark", "cali-from-endpoint-mark"
FORWARD_CHECK, FORWARD_ENDPOINT_MARK = "cali-forward-check", "cali-forward-endpoint-mark"
ANY_INTERFACE = "any-interface-at-all"
# Not Calico's:
FROM_WORKLOAD, POLICY_ACCEPTED, POLICY_PASSED = "cali-from-wl", "cali-policy-accepted", "cali-policy-passed"


def limited(prefix: str, name: str) -> str:
    return length_limited_id(prefix, name, MAX_CHAIN)


def policy_name(policy: PolicyId) -> str:
    parts = [KIND_SHORT.get(policy.kind, policy.kind.lower()), policy.namespace, policy.name]
    return "/".join(filter(None, parts))


def policy_chain(policy: PolicyId, direction: Direction) -> str:
    return limited("cali-pi-" if direction == "inbound" else "cali-po-", policy_name(policy))


def profile_chain(profile: str, direction: Direction) -> str:
    return limited("cali-pri-" if direction == "inbound" else "cali-pro-", profile)


def group_chain(selector: str, direction: Direction, policies: Sequence[PolicyId]) -> str:
    prefix = "cali-gi-" if direction == "inbound" else "cali-go-"
    said = [selector, direction, str(len(policies))]
    said += [f"{{Name: {one.name}, Namespace: {one.namespace}, Kind: {one.kind}}}" for one in policies]
    digest = hashlib.sha3_224("".join(f"{line}\n" for line in said).encode()).digest()
    return prefix + base64url(digest)[: MAX_CHAIN - len(prefix)]


def endpoint_chain(prefix: str, interface: str) -> str:
    """`prefix` is one of cali-tw- cali-fw- cali-th- cali-fh- cali-thfw- cali-fhfw-."""
    return limited(prefix, interface)
