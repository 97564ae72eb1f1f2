"""EndpointSlices: where the endpoints of a service are."""

from __future__ import annotations

from typing import NamedTuple

from felix.calc.addresses import read_net
from felix.calc.reading import Json, parts, text, texts, whole
from felix.calc.reading import labels as read_labels
from felix.calc.reading import part as read_part
from integration.resources.keys import Key

SERVICE_LABEL = "kubernetes.io/service-name"
PROTOCOLS = {"UDP": "udp", "SCTP": "sctp"}


class Slice(NamedTuple):
    service: str  # NAMESPACE/NAME
    nets: tuple[str, ...]
    ports: tuple[str, ...]  # `tcp:80`

    def members(self, *, with_ports: bool) -> list[str]:
        if not with_ports:
            return list(self.nets)
        return [f"{net.partition('/')[0]},{port}" for net in self.nets for port in self.ports]


def read_slice(key: Key, value: Json) -> Slice | None:
    """None: it belongs to no service, or has no addresses (names, as FQDN). Endpoints count whether ready or not."""
    service = read_labels(read_part(value, "metadata", ""), "labels", "metadata.").get(SERVICE_LABEL)
    if not service or text(value, "addressType", "") == "FQDN":
        return None
    nets: dict[str, None] = {}
    for endpoint, path in parts(value, "endpoints", ""):
        for at, address in enumerate(texts(endpoint, "addresses", path)):
            nets[str(read_net(address, f"{path}addresses[{at}]"))] = None
    ports: dict[str, None] = {}
    for port, path in parts(value, "ports", ""):
        number = whole(port, "port", path, 0, 65535)
        if number is not None:  # absent: all of them, which no set can say
            ports[f"{PROTOCOLS.get(text(port, 'protocol', path), 'tcp')}:{number}"] = None
    return Slice(f"{key.namespace}/{service}", tuple(nets), tuple(ports))
