"""`catbird cni install`: the plugins and the network configuration to where the container runtime looks for them.

Calico's install container's variables are understood (CNI_NETWORK_CONFIG, CNI_CONF_NAME, CNI_MTU, …). Every file appears
whole or not at all, the configuration last: a runtime that finds it may begin at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.cni import plugin
from integration.datastore.settings import Settings

PLUGINS = ("calico", "calico-ipam", "catbird-cni", "catbird-ipam")
DEFAULT_NAME = "10-calico.conflist"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class InstallError(Exception):
    """str() says which file or setting, and why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Folders as they are here, which in a container are not what the host calls them (`host_conf`)."""

    binaries: Path
    configuration: Path
    name: str = DEFAULT_NAME
    host_configuration: Path = Path("/etc/cni/net.d")
    agent: str = plugin.AGENT
    python: str = sys.executable


def install(target: Target, settings: Settings, environment: Mapping[str, str]) -> list[Path]:
    """What was written, in order. Raises InstallError."""
    written = []
    if environment.get("SKIP_CNI_BINARIES", "").lower() != "true":
        text = program_text(target.python, target.agent)
        written += [_write(target.binaries / name, text, 0o755) for name in PLUGINS]
    kubeconfig = target.host_configuration / "calico-kubeconfig"
    if (SERVICE_ACCOUNT / "token").exists():
        written.append(_write(target.configuration / "calico-kubeconfig", _kubeconfig(environment), 0o600))
    config = network_config(settings, environment, str(kubeconfig))
    written.append(_write(target.configuration / target.name, config, 0o644))
    return written


def program_text(python: str, agent: str) -> str:
    """plugin.py with this installation's paths. Raises InstallError."""
    text = Path(plugin.__file__).read_text()
    first, _, rest = text.partition("\n")
    if len(python) > 120 or any(c.isspace() for c in python):
        raise InstallError(f"{python}: a path that long, or with blanks, cannot stand in a program's first line")
    for constant, value, default in (("PYTHON", python, plugin.PYTHON), ("AGENT", agent, plugin.AGENT)):
        line = f'{constant} = "{default}"\n'
        if line not in rest:
            raise InstallError(f"plugin.py has no line {line!r}: the installation is damaged")
        rest = rest.replace(line, f"{constant} = {value!r}\n")
    return f"{first.replace('/usr/bin/python3', python)}\n{rest}"


def network_config(settings: Settings, environment: Mapping[str, str], kubeconfig: str) -> str:
    """CNI_NETWORK_CONFIG (or the file of CNI_NETWORK_CONFIG_FILE) with Calico's placeholders filled in, or our own."""
    template = environment.get("CNI_NETWORK_CONFIG", "")
    if path := environment.get("CNI_NETWORK_CONFIG_FILE", ""):
        try:
            template = Path(path).read_text()
        except OSError as error:
            raise InstallError(f"CNI_NETWORK_CONFIG_FILE: {path}: {error.strerror or error}") from None
    if not template:
        return json.dumps(_own_config(settings, environment, kubeconfig), indent=2) + "\n"
    for name, value in _placeholders(settings, environment, kubeconfig).items():
        template = template.replace(f"__{name}__", value)
    try:
        json.loads(template)
    except ValueError as error:
        raise InstallError(f"CNI_NETWORK_CONFIG is not JSON once its placeholders are filled in: {error}") from None
    return template


def _placeholders(settings: Settings, environment: Mapping[str, str], kubeconfig: str) -> dict[str, str]:
    said = environment.get
    return {
        "LOG_LEVEL": said("LOG_LEVEL", "info"),
        "LOG_FILE_PATH": said("LOG_FILE_PATH", "/var/log/calico/cni/cni.log"),
        "DATASTORE_TYPE": settings.datastore_type,
        "KUBERNETES_NODE_NAME": said("KUBERNETES_NODE_NAME", said("NODENAME", "")),
        "KUBECONFIG_FILEPATH": kubeconfig,
        "CNI_MTU": said("CNI_MTU", "0"),
        "KUBERNETES_SERVICE_HOST": said("KUBERNETES_SERVICE_HOST", ""),
        "KUBERNETES_SERVICE_PORT": said("KUBERNETES_SERVICE_PORT", ""),
        "SERVICEACCOUNT_TOKEN": "",
        "CALICO_API_GROUP": settings.calico_api_group,
        "ETCD_ENDPOINTS": ",".join(settings.etcd_endpoints),
        "ETCD_DISCOVERY_SRV": settings.etcd_discovery_srv,
        "ETCD_KEY_FILE": settings.etcd_key_file,
        "ETCD_CERT_FILE": settings.etcd_cert_file,
        "ETCD_CA_CERT_FILE": settings.etcd_ca_cert_file,
        "REQUIRE_MTU_FILE": said("REQUIRE_MTU_FILE", "false"),
    }


def _own_config(settings: Settings, environment: Mapping[str, str], kubeconfig: str) -> dict[str, Any]:
    calico: dict[str, Any] = {
        "type": "calico",
        "datastore_type": settings.datastore_type,
        "mtu": int(environment.get("CNI_MTU") or 0),
        "nodename_file_optional": True,
        "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false"},
    }
    if settings.datastore_type == "local":
        calico["local_path"] = str(settings.local_path)
    elif settings.datastore_type == "kubernetes":
        calico |= {"policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": settings.kubeconfig or kubeconfig}}
    for name in ("etcd_discovery_srv", "etcd_key_file", "etcd_cert_file", "etcd_ca_cert_file"):
        if value := getattr(settings, name):
            calico[name] = value
    if settings.etcd_endpoints:
        calico["etcd_endpoints"] = ",".join(settings.etcd_endpoints)
    plugins = [calico, {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}]
    return {"name": "k8s-pod-network", "cniVersion": "1.0.0", "plugins": plugins}


def _kubeconfig(environment: Mapping[str, str]) -> str:
    """From the pod's service account; the token is copied, so run the installation again before it ends."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise InstallError("KUBERNETES_SERVICE_HOST is not set, though there is a service account's token")
    try:
        token, authority = (SERVICE_ACCOUNT / "token").read_text(), (SERVICE_ACCOUNT / "ca.crt").read_bytes()
    except OSError as error:
        raise InstallError(f"{error.filename}: {error.strerror}") from None
    import base64

    data = base64.b64encode(authority).decode()
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": server, "certificate-authority-data": data}}],
        "users": [{"name": "calico", "user": {"token": token.strip()}}],
        "contexts": [{"name": "calico", "context": {"cluster": "local", "user": "calico"}}],
        "current-context": "calico",
    }
    return json.dumps(value, indent=2) + "\n"


def _write(path: Path, text: str, mode: int) -> Path:
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InstallError(f"{path}: {error.strerror or error}") from None
    return path
