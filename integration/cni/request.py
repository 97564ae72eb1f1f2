"""One call of a plugin: CNI's environment variables and the configuration on standard input. Pure.

Source: the CNI specification 1.1.0, sections 2 and 3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.cni.errors import INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, UNDECODABLE, CNIError
from integration.cni.network_config import CALICO_IPAM, NetworkConfig, read_network_config
from integration.cni.results import DEFAULT, SINCE, order, supported

COMMANDS = ("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION")
# What each command cannot do without.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}
CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
MAX_INTERFACE_NAME = 15


@dataclass(frozen=True, slots=True)
class Request:
    """What the runtime asks. `netns` is a path, empty if there is none (any more); `plugin` is what was executed."""

    command: str
    config: NetworkConfig
    container_id: str = ""
    netns: str = ""
    interface: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)  # of CNI_ARGS
    path: tuple[str, ...] = ()  # where plugins lie, to delegate to
    plugin: str = "calico"

    @property
    def version(self) -> str:
        return self.config.version

    @property
    def is_for_ipam(self) -> bool:
        """Executed by another plugin, whose configuration, and so whose `type`, this is (section 4)."""
        return self.plugin in CALICO_IPAM or self.config.type in CALICO_IPAM


def read_request(environment: Mapping[str, str], text: str, plugin: str = "calico") -> Request:
    """Raises CNIError: 4 environment, 6 no JSON, 1 version, 7 configuration."""
    command = environment.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise CNIError(
            INVALID_ENVIRONMENT,
            f"CNI_COMMAND is {command!r}" if command else "CNI_COMMAND is not set",
            f"one of {', '.join(COMMANDS)}",
        )
    if missing := [name for name in NEEDED.get(command, ()) if not environment.get(name)]:
        raise CNIError(INVALID_ENVIRONMENT, f"{', '.join(missing)} must be set for {command}")
    value = read_json(text)
    version = version_of(value)
    if order(version) < order(SINCE.get(command, DEFAULT)):
        raise CNIError(
            INCOMPATIBLE_VERSION,
            f"{command} is not in CNI {version}",
            f"cniVersion must be {SINCE[command]} or later",
        )
    return Request(
        command,
        read_network_config(value, version),
        _container_id(environment.get("CNI_CONTAINERID", "")),
        environment.get("CNI_NETNS", ""),
        _interface(environment.get("CNI_IFNAME", "")),
        _arguments(environment.get("CNI_ARGS", "")),
        tuple(filter(None, environment.get("CNI_PATH", "").split(":"))),
        plugin,
    )


def read_json(text: str) -> dict[str, Any]:
    """The configuration as it came. Raises CNIError 6."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CNIError(UNDECODABLE, f"the network configuration is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CNIError(UNDECODABLE, "the network configuration is not a JSON object")
    return value


def version_of(value: Mapping[str, Any]) -> str:
    """Raises CNIError 1."""
    version = value.get("cniVersion") or DEFAULT
    return supported(version if isinstance(version, str) else repr(version))


def _container_id(text: str) -> str:
    if text and not CONTAINER_ID.fullmatch(text):
        raise CNIError(
            INVALID_ENVIRONMENT, f"CNI_CONTAINERID {text!r} is no container ID", "letters, digits, '_', '.' and '-'"
        )
    return text


def _interface(text: str) -> str:
    bad = len(text) > MAX_INTERFACE_NAME or text in (".", "..") or any(c in "/:" or c.isspace() for c in text)
    if text and bad:
        raise CNIError(INVALID_ENVIRONMENT, f"CNI_IFNAME {text!r} cannot be an interface's name", "at most 15 octets")
    return text


def _arguments(text: str) -> dict[str, str]:
    """`K8S_POD_NAME=a;K8S_POD_NAMESPACE=b`. What nobody knows is not our business (IgnoreUnknown)."""
    pairs: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CNIError(INVALID_ENVIRONMENT, f"CNI_ARGS: {pair!r} is not NAME=VALUE")
        pairs[name] = value
    return pairs
