"""What a successful ADD answers, in the form of each version of CNI's specification, and reading it back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.cni.errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, CNIError

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = VERSIONS[-1]
DEFAULT = "0.1.0"  # of a configuration that says none (section "Version considerations")
SINCE: Mapping[str, str] = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}


def order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def supported(version: str) -> str:
    """The version itself. Raises CNIError 1."""
    if version not in VERSIONS:
        raise CNIError(
            INCOMPATIBLE_VERSION, f"cniVersion {version!r} is not supported", f"supported: {', '.join(VERSIONS)}"
        )
    return version


@dataclass(frozen=True, slots=True)
class Interface:
    """`sandbox` is the path of the network namespace, empty on the host's side. `mtu` is told since 1.1.0."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """`cidr` is the address with its length; `interface` counts from 0 in the result's interfaces."""

    cidr: str
    interface: int | None = None
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    destination: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    addresses: tuple[Address, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, version: str) -> dict[str, Any]:
        if order(version) < (0, 3, 0):
            return self._first_form(version)
        value: dict[str, Any] = {"cniVersion": version}
        if self.interfaces:
            value["interfaces"] = [_interface(one, version) for one in self.interfaces]
        if self.addresses:
            value["ips"] = [_address(one, version) for one in self.addresses]
        if self.routes:
            value["routes"] = [_route(one) for one in self.routes]
        value["dns"] = dict(self.dns)
        return value

    def _first_form(self, version: str) -> dict[str, Any]:
        """0.1.0 and 0.2.0 have one address of each version, and no interfaces."""
        value: dict[str, Any] = {"cniVersion": version}
        for address in self.addresses:
            is_ipv6 = ":" in address.cidr
            name = "ip6" if is_ipv6 else "ip4"
            if name in value:
                continue
            value[name] = {"ip": address.cidr}
            if address.gateway:
                value[name]["gateway"] = address.gateway
            if routes := [_route(one) for one in self.routes if (":" in one.destination) == is_ipv6]:
                value[name]["routes"] = routes
        value["dns"] = dict(self.dns)
        return value


def _interface(one: Interface, version: str) -> dict[str, Any]:
    value: dict[str, Any] = {"name": one.name}
    if one.mac:
        value["mac"] = one.mac
    if one.mtu and order(version) >= (1, 1, 0):
        value["mtu"] = one.mtu
    if one.sandbox:
        value["sandbox"] = one.sandbox
    return value


def _address(one: Address, version: str) -> dict[str, Any]:
    value: dict[str, Any] = {"address": one.cidr}
    if order(version) < (1, 0, 0):
        value["version"] = "6" if ":" in one.cidr else "4"
    if one.gateway:
        value["gateway"] = one.gateway
    if one.interface is not None:
        value["interface"] = one.interface
    return value


def _route(one: Route) -> dict[str, Any]:
    return {"dst": one.destination, **({"gw": one.gateway} if one.gateway else {})}


def read_result(value: object, what: str = "prevResult") -> Result:
    """A result of any version. Raises CNIError 7 that names the field."""
    try:
        if not isinstance(value, Mapping):
            raise TypeError("is not an object")
        if "ip4" in value or "ip6" in value:
            return _read_first_form(value)
        return Result(
            tuple(
                Address(_text(one, "address"), one.get("interface"), _text(one, "gateway", ""))
                for one in _objects(value, "ips")
            ),
            tuple(
                Interface(
                    _text(one, "name"), _text(one, "mac", ""), _text(one, "sandbox", ""), int(one.get("mtu") or 0)
                )
                for one in _objects(value, "interfaces")
            ),
            tuple(Route(_text(one, "dst"), _text(one, "gw", "")) for one in _objects(value, "routes")),
            value.get("dns") or {},
        )
    except (TypeError, ValueError) as error:
        raise CNIError(INVALID_CONFIG, f"{what}: {error}") from None


def _read_first_form(value: Mapping[str, Any]) -> Result:
    parts = [value[name] for name in ("ip4", "ip6") if value.get(name)]
    return Result(
        tuple(Address(_text(one, "ip"), None, _text(one, "gateway", "")) for one in parts),
        (),
        tuple(Route(_text(route, "dst"), _text(route, "gw", "")) for one in parts for route in _objects(one, "routes")),
        value.get("dns") or {},
    )


def _objects(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = value.get(name) or []
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise TypeError(f"{name} is not a list of objects")
    return found


def _text(value: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = value.get(name, default)
    if not isinstance(found, str):
        raise TypeError(f"{name} {'is missing' if found is None else 'is not a text'}")
    return found
