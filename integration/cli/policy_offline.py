"""Policies explained from the datastore alone: what the Felix of each concerned node would do."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from felix.calc.graph import CalculationGraph
from felix.config import resolve
from felix.explain.flow import ExplainSettings, Surroundings
from felix.explain.questions import HOST, QuestionError, answer
from felix.explain.settings import explain_settings
from felix.explain.state import Address, DesiredState
from integration.cli.outcome import Failed, complain
from integration.cli.stores import with_client
from integration.datastore.client import ResourceClient
from integration.datastore.errors import Unauthorized, Unsupported
from integration.resources.keys import Key
from integration.resources.names import parts_of_endpoint_name

# What decides about packets. Routes and tunnels do not.
KINDS = (
    "FelixConfiguration", "Node", "Tier", "GlobalNetworkPolicy", "NetworkPolicy", "StagedGlobalNetworkPolicy",
    "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy", "Profile", "GlobalNetworkSet", "NetworkSet",
    "WorkloadEndpoint", "HostEndpoint", "Service", "EndpointSlice",
)  # fmt: skip
Resources = Mapping[Key, Mapping[str, Any]]
View = dict[str, Any]


def explain_from_datastore(url: str, config: Path | None, question: Mapping[str, Any], node: str) -> View:
    """`{verdict, nodes: [{node, …explanation}]}`. Whatever cannot be done is told, and is Failed."""
    resources = with_client(url, config, _read)
    try:
        return explain_resources(resources, question, node)
    except QuestionError as error:
        complain(error.text + (f" ({error.hint})" if error.hint else ""))
        raise Failed from None


async def _read(client: ResourceClient) -> dict[Key, Mapping[str, Any]]:
    found: dict[Key, Mapping[str, Any]] = {}
    for kind in KINDS:
        try:
            listing = await client.datastore.list(kind)
        except Unsupported:
            continue
        except Unauthorized as error:
            complain(f"{kind}: {error.reason}; done without")
            continue
        found |= {entry.key: entry.value for entry in listing.entries}
    return found


def explain_resources(resources: Resources, question: Mapping[str, Any], node: str = "") -> View:
    """The same of resources at hand. A packet goes through if every node on its way lets it. Raises QuestionError."""
    pods = list(_pods(resources))
    nodes = [node] if node else list(dict.fromkeys(_nodes_of(pods, question)))
    if not nodes:
        raise QuestionError("neither side is a workload that the datastore knows", "say which node with --node NAME")
    if node and Key("Node", node) not in resources:
        known = sorted(key.name for key in resources if key.kind == "Node")
        raise QuestionError(f"no node is called {node!r}", f"known: {', '.join(known)}")
    views = [{"node": one} | _explain_on(one, resources, _with_addresses(question, pods)) for one in nodes]
    verdict = "allow" if all(view["verdict"] == "allow" for view in views) else "deny"
    return {"verdict": verdict, "nodes": views}


@dataclass(frozen=True, slots=True)
class _Pod:
    name: str  # NAMESPACE/POD
    node: str
    addresses: tuple[Address, ...]


def _pods(resources: Resources) -> Iterator[_Pod]:
    """Endpoints that are ill-formed are nobody: the calculation does not know them either."""
    for key, value in resources.items():
        if key.kind == "WorkloadEndpoint":
            try:
                parts = parts_of_endpoint_name(key.name)
                nets = value["spec"].get("ipNetworks", ())
                addresses = tuple(ipaddress.ip_interface(net).ip for net in nets)
                third = parts.pod or parts.container_id or parts.workload
                yield _Pod(f"{key.namespace}/{third}", value["spec"]["node"], addresses)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue


def _nodes_of(pods: list[_Pod], question: Mapping[str, Any]) -> Iterator[str]:
    for side in ("from", "to"):
        for pod in pods:
            if question[side] == pod.name or question[side] in map(str, pod.addresses):
                yield pod.node
                break


def _with_addresses(question: Mapping[str, Any], pods: list[_Pod]) -> dict[str, Any]:
    """Names become addresses, for they are of other nodes too. Raises QuestionError if one is not known."""
    found = dict(question)
    candidates: dict[str, list[Address]] = {}
    for side in ("from", "to"):
        text = str(question[side])
        if "/" in text:
            named = [pod for pod in pods if pod.name == text]
            if not named:
                raise QuestionError(f"no workload {text} in the datastore")
            candidates[side] = list(named[0].addresses)
        elif text != HOST:
            try:
                candidates[side] = [ipaddress.ip_address(text)]
            except ValueError:
                raise QuestionError(f"{text!r} is neither an address nor NAMESPACE/POD nor host") from None
    versions = set.intersection(*({one.version for one in its} for its in candidates.values())) if candidates else set()
    version = question.get("ipVersion") or min(versions, default=4)
    for side, its in candidates.items():
        if "/" in str(question[side]):
            chosen = [one for one in its if one.version == version]
            if not chosen:
                raise QuestionError(f"{question[side]} has no IPv{version} address")
            found[side] = str(chosen[0])
    return found


def _explain_on(node: str, resources: Resources, question: Mapping[str, Any]) -> View:
    graph = CalculationGraph(node)
    for key, value in resources.items():
        graph.update(key, value)
    graph.in_sync()
    state = DesiredState()
    state.fold_all(graph.flush())
    view = answer(state, _settings(state, node), _surroundings(state, resources.get(Key("Node", node), {})), question)
    view["notes"] += [f"{key} counts as absent: {reason}" for key, reason in sorted(graph.problems.items())]
    return view


def _settings(state: DesiredState, node: str) -> ExplainSettings:
    layers = state.config
    config, _ = resolve({}, {}, layers.for_node, layers.by_selector, layers.everywhere, hostname=node)
    return explain_settings(config)


def _surroundings(state: DesiredState, node: Mapping[str, Any]) -> Surroundings:
    """The datastore does not say which interface has the node's address: the first that a host endpoint names."""
    bgp = (node.get("spec") or {}).get("bgp") or {}
    texts = [bgp[name] for name in ("ipv4Address", "ipv6Address") if bgp.get(name)]
    addresses = {text.partition("/")[0] for text in texts}
    interfaces: dict[str, set[str]] = {}
    for endpoint in state.host_endpoints.values():
        if endpoint.interface != "*":
            interfaces.setdefault(endpoint.interface or "by-address", set()).update(endpoint.expected_ips)
    main = next((name for name, its in interfaces.items() if its & addresses), "") or min(interfaces, default="uplink")
    interfaces.setdefault(main, set()).update(addresses)
    return Surroundings({name: frozenset(its) for name, its in interfaces.items()}, lambda _address: main)
