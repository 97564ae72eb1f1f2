"""Short words for resources in YAML, and for what comes out."""

from __future__ import annotations

from typing import Any

import yaml

from bgp.config import PeerConfig, RouteSetting
from bgp.families import parse_prefix
from bgp.policy import compile_policy
from integration.bgpconfig import Environment, NodeConfig, PeerReport, Snapshot, build
from integration.resources.keys import Key
from integration.resources.kinds import KINDS
from tests.bgp.policy.routes import Route

MAX = 2**31 - 1


def objects(text: str) -> list[tuple[Key, dict[str, Any]]]:
    """Documents `KIND [NAMESPACE/]NAME: {fields}`; fields but metadata, status and those of EndpointSlices are the spec."""
    found: list[tuple[Key, dict[str, Any]]] = []
    for title, given in (yaml.safe_load(text) or {}).items():
        kind, name = title.split()
        namespace, _, name = name.rpartition("/")
        namespace = namespace or ("default" if KINDS[kind].namespaced else "")
        fields = dict(given or {})
        labels = fields.pop("labels", {})
        value: dict[str, Any] = {"kind": KINDS[kind].json_kind, "apiVersion": KINDS[kind].api_version}
        value["metadata"] = {"name": name, "labels": labels} | ({"namespace": namespace} if namespace else {})
        if kind in ("EndpointSlice", "Secret", "BlockAffinity"):
            value |= fields
        else:
            value["status"] = fields.pop("status", {})
            value["spec"] = fields
        if kind == "BlockAffinity":
            value = fields
        found.append((Key(kind, name, namespace), value))
    return found


def snapshot_of(text: str) -> Snapshot:
    snapshot = Snapshot()
    for key, value in objects(text):
        snapshot.apply_json(key, value)
    return snapshot


def config_of(text: str, node: str = "a", **environment: Any) -> NodeConfig:
    return build(snapshot_of(text), node, Environment(**environment))


def peers_of(text: str, node: str = "a", **environment: Any) -> dict[str, PeerReport]:
    """By name."""
    return {report.config.name: report for report in config_of(text, node, **environment).peers}


def peer_of(text: str, node: str = "a", **environment: Any) -> PeerConfig:
    """The only one."""
    (report,) = config_of(text, node, **environment).peers
    return report.config


def verdict(config: NodeConfig, peer: str, prefix: str, direction: Any = "export", **route: Any) -> RouteSetting | None:
    """What a peer's policy says of a route; None: rejected. A route of the kernel with normal priority unless said otherwise."""
    found = next(report.config for report in config.peers if report.config.name == peer)
    policy = found.export_policy if direction == "export" else found.import_policy
    is_ebgp = found.asn != (found.local_asn or config.speaker.asn)
    compiled = compile_policy(policy, direction=direction, is_ebgp=is_ebgp)
    family, nlri = parse_prefix(prefix)
    fields = {"source": "kernel", "local_pref": MAX - 1024} if direction == "export" else {"source": "ibgp"}
    return compiled.judge(Route(**(fields | route)), nlri, family)


def is_written(config: NodeConfig, prefix: str, **route: Any) -> bool:
    assert config.speaker.kernel is not None
    compiled = compile_policy(config.speaker.kernel.policy, direction="export", is_ebgp=False)
    family, nlri = parse_prefix(prefix)
    return compiled.judge(Route(**({"source": "ibgp"} | route)), nlri, family) is not None


def problems_of(config: NodeConfig) -> list[str]:
    return [str(problem) for problem in config.problems]


TWO = """
Node a: {bgp: {ipv4Address: 10.0.0.1/24}}
Node b: {bgp: {ipv4Address: 10.0.0.2/24}}
"""
NO_MESH = "BGPConfiguration default: {nodeToNodeMeshEnabled: false}\n"
