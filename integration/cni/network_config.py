"""The network configuration, with Calico's keys. Pure.

Source: cni-plugin/pkg/types of Calico. Keys that nobody here knows are ignored, as Calico ignores them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from integration.cni.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CNIError

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
DEFAULT_NODENAME_FILE = "/var/lib/calico/nodename"
DEFAULT_STATUS_FOLDER = "/var/run/calico/endpoint-status"
DEFAULT_IPAM_LOCK = "/var/run/calico/ipam.lock"
CALICO_IPAM = ("calico-ipam", "catbird-ipam")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What the runtime's configuration says. `raw` is all of it, for plugins that are delegated to."""

    version: str
    name: str
    raw: Mapping[str, Any]
    type: str = "calico"
    ipam_type: str = ""
    assigns_ipv4: bool = True
    assigns_ipv6: bool = False
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()
    ipam_lock_file: str = DEFAULT_IPAM_LOCK
    mtu: int = 0  # 0: the file that Felix writes says
    requires_mtu_file: bool = False
    queues: int = 1
    node: str = ""
    node_file: str = DEFAULT_NODENAME_FILE
    node_file_is_optional: bool = False
    is_kubernetes_policy: bool = False
    allows_ip_forwarding: bool = False
    includes_default_routes: bool = False
    allows_addresses_without_ipam: bool = False
    allows_floating_ips: bool = False
    readiness_gates: tuple[str, ...] = ()
    policy_setup_timeout_s: float = 0.0
    status_folder: str = DEFAULT_STATUS_FOLDER
    log_level: str = "info"
    labels: Mapping[str, str] = field(default_factory=dict)  # Mesos
    previous: Mapping[str, Any] | None = None
    valid_attachments: tuple[tuple[str, str], ...] | None = None  # of GC: (container id, interface); None: not said

    @property
    def uses_calico_ipam(self) -> bool:
        return self.ipam_type in CALICO_IPAM

    @property
    def delegates_ipam(self) -> bool:
        return bool(self.ipam_type) and not self.uses_calico_ipam


def read_network_config(value: Mapping[str, Any], version: str) -> NetworkConfig:
    """Raises CNIError 7 (2 for what we know and cannot do), naming the field."""
    read = Reader(value)
    ipam, policy, features = read.object("ipam"), read.object("policy"), read.object("feature_control")
    _refuse_unsupported(read)
    return NetworkConfig(
        version=version,
        name=_name(read.text("name")),
        raw=value,
        type=read.text("type", "calico"),
        ipam_type=ipam.text("type"),
        assigns_ipv4=_is_true(ipam, "assign_ipv4", default=True),
        assigns_ipv6=_is_true(ipam, "assign_ipv6", default=False),
        ipv4_pools=ipam.texts("ipv4_pools"),
        ipv6_pools=ipam.texts("ipv6_pools"),
        ipam_lock_file=read.text("ipam_lock_file", "") or ipam.text("ipam_lock_file", DEFAULT_IPAM_LOCK),
        mtu=read.number("mtu", 0, 0, 65535),
        requires_mtu_file=read.truth("require_mtu_file"),
        queues=read.number("num_queues", 1, 1, 4096),
        node=read.text("nodename") or read.object("kubernetes").text("node_name") or read.text("hostname"),
        node_file=read.text("nodename_file", DEFAULT_NODENAME_FILE),
        node_file_is_optional=read.truth("nodename_file_optional"),
        is_kubernetes_policy=policy.text("type") == "k8s",
        allows_ip_forwarding=read.object("container_settings").truth("allow_ip_forwarding"),
        includes_default_routes=read.truth("include_default_routes"),
        allows_addresses_without_ipam=features.truth("ip_addrs_no_ipam"),
        allows_floating_ips=features.truth("floating_ips"),
        readiness_gates=read.texts("readiness_gates"),
        policy_setup_timeout_s=read.seconds("policy_setup_timeout_seconds"),
        status_folder=read.text("endpoint_status_dir", DEFAULT_STATUS_FOLDER),
        log_level=read.text("log_level", "info").lower(),
        labels=_mesos_labels(read),
        previous=_object_or_none(value, "prevResult"),
        valid_attachments=_attachments(value),
    )


class Reader:
    """Values by key with a word of what is wrong; `null` is absence."""

    def __init__(self, value: Mapping[str, Any], path: str = "") -> None:
        self._value = value
        self._path = path

    def refuse(self, key: str, why: str) -> CNIError:
        return CNIError(INVALID_CONFIG, f"{self._path}{key} {why}, but it is {self._value[key]!r}")

    def object(self, key: str) -> Reader:
        found = self._value.get(key) or {}
        if not isinstance(found, Mapping):
            raise self.refuse(key, "must be an object")
        return Reader(found, f"{self._path}{key}.")

    def text(self, key: str, default: str = "") -> str:
        found = self._value.get(key)
        if found is None:
            return default
        if not isinstance(found, str):
            raise self.refuse(key, "must be a text")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        found = self._value.get(key) or []
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self.refuse(key, "must be a list of texts")
        return tuple(found)

    def truth(self, key: str) -> bool:
        found = self._value.get(key)
        if found is not None and not isinstance(found, bool):
            raise self.refuse(key, "must be true or false")
        return bool(found)

    def number(self, key: str, default: int, least: int, most: int) -> int:
        found = self._value.get(key)
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise self.refuse(key, f"must be a whole number from {least} to {most}")
        return found

    def seconds(self, key: str) -> float:
        found = self._value.get(key)
        if found is None:
            return 0.0
        if isinstance(found, bool) or not isinstance(found, (int, float)) or found < 0:
            raise self.refuse(key, "must be a number of seconds, not negative")
        return float(found)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise CNIError(
            INVALID_CONFIG, f"name {text!r} is no network's name" if text else "name is missing",
            "letters, digits, '_', '.' and '-', beginning with a letter or a digit",
        )  # fmt: skip
    return text


def _is_true(ipam: Reader, key: str, *, default: bool) -> bool:
    """Calico's texts "true" and "false"; JSON's truth values are taken too."""
    found = ipam._value.get(key)
    if isinstance(found, bool):
        return found
    text = ipam.text(key, "true" if default else "false").lower()
    if text not in ("true", "false", ""):
        raise ipam.refuse(key, 'must be "true" or "false"')
    return default if text == "" else text == "true"


def _refuse_unsupported(read: Reader) -> None:
    if read.text("mode") not in ("", "none"):
        raise CNIError(UNSUPPORTED_FIELD, "mode: only for Windows nodes", "leave it out")
    if read.object("dataplane_options").text("type") not in ("", "linux"):
        raise CNIError(UNSUPPORTED_FIELD, "dataplane_options.type: only linux is supported", "leave it out")
    device = cast("Literal['', 'veth']", read.text("device_type"))
    if device not in ("", "veth", "netkit"):
        raise CNIError(INVALID_CONFIG, f"device_type {device!r} is not known", "veth")


def _mesos_labels(read: Reader) -> dict[str, str]:
    labels = read.object("args").object("org.apache.mesos").object("network_info").object("labels")._value.get("labels")
    if not isinstance(labels, list):
        return {}
    return {str(one.get("key")): str(one.get("value")) for one in labels if isinstance(one, Mapping)}


def _object_or_none(value: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    found = value.get(key)
    if found is not None and not isinstance(found, Mapping):
        raise CNIError(INVALID_CONFIG, f"{key} must be an object, but it is {found!r}")
    return found


def _attachments(value: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """An empty list may come as null."""
    names = [name for name in ("cni.dev/valid-attachments", "cni.dev/attachments") if name in value]
    if not names:
        return None
    found = value[names[0]] or []
    try:
        return tuple((str(one["containerID"]), str(one["ifname"])) for one in found)
    except (KeyError, TypeError):
        raise CNIError(
            INVALID_CONFIG, "cni.dev/valid-attachments must be a list of objects with containerID and ifname"
        ) from None
