"""Workload endpoints, host endpoints and network sets: what is kept of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from sys import intern
from typing import Any, NamedTuple

from felix.calc.addresses import read_address, read_net
from felix.calc.reading import Invalid, Json, entries, labels, names, part, parts, required, text, texts, whole
from felix.calc.rules import WITH_PORTS, read_protocol
from felix.calc.selectors import NAMESPACE, OF_NAMESPACE, OF_SERVICE_ACCOUNT, SERVICE_ACCOUNT
from felix.desired import QoS, WorkloadId
from integration.resources.fields import DSCP_NAMES
from integration.resources.keys import Key
from integration.resources.names import parts_of_endpoint_name

MAX_SERVICE_ACCOUNT_LABEL = 63
INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
Labels = Mapping[str, str]


def checked(given: str, pattern: re.Pattern[str], field: str, reason: str) -> str:
    """The empty text passes."""
    if given and not pattern.fullmatch(given):
        raise Invalid(field, given, reason)
    return given


class Port(NamedTuple):
    """A port by the name that policies may call it."""

    name: str
    protocol: str  # tcp, udp, sctp
    number: int


class Addressed(NamedTuple):
    """What has labels and addresses, and so may be a member of IP sets."""

    labels: Labels
    profiles: tuple[str, ...]
    nets: tuple[str, ...]  # canonical, with length
    ports: tuple[Port, ...] = ()


class Workload(NamedTuple):
    id: WorkloadId
    node: str
    addressed: Addressed
    details: LocalDetails | None  # None: on another node


class LocalDetails(NamedTuple):
    """What only the endpoint's own node needs to know."""

    interface: str
    mac: str
    nats: tuple[tuple[str, str], ...]
    ipv4_gateway: str
    ipv6_gateway: str
    allowed_source_prefixes: tuple[str, ...]
    qos: QoS | None
    service_account: str


class HostRecord(NamedTuple):
    """A HostEndpoint."""

    name: str
    node: str
    interface: str
    addressed: Addressed


def read_workload(key: Key, value: Json, node: str) -> Workload | None:
    """None: it has no address (any more), and is no endpoint. `node` is ours. Raises Invalid."""
    spec = part(value, "spec", "")
    nets = []
    for at, given in enumerate(entries(spec, "ipNetworks", "spec.")):
        net = read_net(given, f"spec.ipNetworks[{at}]")
        if not net.is_single:
            raise Invalid(f"spec.ipNetworks[{at}]", given, "holds more than one address")
        nets.append(str(net))
    if not nets:
        return None
    try:
        name = parts_of_endpoint_name(key.name)
    except ValueError as error:
        raise Invalid("metadata.name", key.name, str(error)) from None
    middle = name.pod or name.container_id or name.workload
    profiles = tuple(map(intern, names(spec, "profiles", "spec.")))
    account = text(spec, "serviceAccountName", "spec.")
    addressed = Addressed(own_labels(value, key.namespace, account), profiles, tuple(nets), read_ports(spec))
    id = WorkloadId(intern(name.orchestrator), f"{key.namespace}/{middle}", intern(name.endpoint))
    details = read_details(spec, account) if name.node == node else None
    return Workload(id, intern(name.node), addressed, details)


def own_labels(value: Json, namespace: str, account: str) -> Labels:
    """Nobody but the profiles may say what is inherited: such labels of an endpoint itself do not count."""
    found = labels(part(value, "metadata", ""), "labels", "metadata.")
    kept = {label: text for label, text in found.items() if not label.startswith((OF_NAMESPACE, OF_SERVICE_ACCOUNT))}
    if namespace:
        kept[NAMESPACE] = intern(namespace)
    if account and len(account) < MAX_SERVICE_ACCOUNT_LABEL:
        kept[SERVICE_ACCOUNT] = intern(account)
    return kept


def read_ports(spec: Json) -> tuple[Port, ...]:
    """Those with a name."""
    found = []
    for port, path in parts(spec, "ports", "spec."):
        name = text(port, "name", path)
        number = whole(port, "port", path, 0, 65535)
        protocol = read_protocol(port, "protocol", path)
        if protocol not in WITH_PORTS:
            raise Invalid(f"{path}protocol", port.get("protocol"), "has no ports", "TCP, UDP, SCTP")
        if name and number:
            found.append(Port(intern(name), WITH_PORTS[protocol], number))
    return tuple(found)


def read_details(spec: Json, account: str) -> LocalDetails:
    nats = []
    for nat, path in parts(spec, "ipNATs", "spec."):
        inner = read_address(required(nat, "internalIP", path), f"{path}internalIP")
        outer = read_address(required(nat, "externalIP", path), f"{path}externalIP")
        if (":" in inner) != (":" in outer):
            raise Invalid(f"{path}externalIP", outer, "is not of internalIP's family")
        nats.append((inner, outer))
    field = "allowSpoofedSourcePrefixes"
    return LocalDetails(
        checked(
            required(spec, "interfaceName", "spec."), INTERFACE, "spec.interfaceName", "is not an interface's name"
        ),
        checked(text(spec, "mac", "spec."), MAC, "spec.mac", "is not a MAC address"),
        tuple(nats),
        read_address(text(spec, "ipv4Gateway", "spec."), "spec.ipv4Gateway", 4),
        read_address(text(spec, "ipv6Gateway", "spec."), "spec.ipv6Gateway", 6),
        tuple(str(read_net(each, f"spec.{field}[{at}]")) for at, each in enumerate(entries(spec, field, "spec."))),
        read_qos(spec),
        account,
    )


QOS_FIELDS = [
    direction + name
    for direction in ("ingress", "egress")
    for name in ("Bandwidth", "Burst", "Peakrate", "Minburst", "PacketRate", "PacketBurst", "MaxConnections")
]
QOS_ATTRIBUTES = {
    field: "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in field) for field in QOS_FIELDS
}


def read_qos(spec: Json) -> QoS | None:
    controls = part(spec, "qosControls", "spec.")
    if not controls:
        return None
    found: dict[str, Any] = {
        attribute: whole(controls, field, "spec.qosControls.", 0, 2**63 - 1) or 0
        for field, attribute in QOS_ATTRIBUTES.items()
    }
    dscp = controls.get("dscp")
    if dscp is not None and dscp != "":
        number = DSCP_NAMES.get(dscp) if isinstance(dscp, str) else dscp
        if isinstance(dscp, str) and number is None and dscp.isascii() and dscp.isdigit() and len(dscp) < 3:
            number = int(dscp)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 63:
            raise Invalid("spec.qosControls.dscp", dscp, "is not a DSCP value", "0 to 63, or a name such as AF11")
        found["dscp"] = number
    return QoS(**found)


def read_host_endpoint(key: Key, value: Json) -> HostRecord:
    spec = part(value, "spec", "")
    interface = text(spec, "interfaceName", "spec.")
    if interface != "*":
        checked(interface, INTERFACE, "spec.interfaceName", "is neither an interface's name nor *")
    addresses = [
        read_net(read_address(each, f"spec.expectedIPs[{at}]"), f"spec.expectedIPs[{at}]")
        for at, each in enumerate(texts(spec, "expectedIPs", "spec."))
    ]
    if not interface and not addresses:
        raise Invalid("spec.interfaceName", None, "is required where expectedIPs is empty", "an interface's name or *")
    return HostRecord(
        key.name,
        required(spec, "node", "spec."),
        interface,
        Addressed(
            labels(part(value, "metadata", ""), "labels", "metadata."),
            tuple(map(intern, names(spec, "profiles", "spec."))),
            tuple(dict.fromkeys(map(str, addresses))),
            read_ports(spec),
        ),
    )


def read_network_set(key: Key, value: Json) -> Addressed:
    """One bad network makes the whole set invalid, as in Calico: half a set would be a guess."""
    spec = part(value, "spec", "")
    nets = [str(read_net(each, f"spec.nets[{at}]")) for at, each in enumerate(entries(spec, "nets", "spec."))]
    own = labels(part(value, "metadata", ""), "labels", "metadata.")
    if not key.namespace:
        return Addressed(own, (), tuple(dict.fromkeys(nets)))
    return Addressed({**own, NAMESPACE: key.namespace}, (f"kns.{key.namespace}",), tuple(dict.fromkeys(nets)))
