"""Which datastore, where, and with what credentials: Calico's environment variables, its configuration file, or one URL.

Source: libcalico-go/lib/apiconfig; every variable may also be written with `CALICO_` before it, and then wins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from integration.datastore.api import Datastore
from integration.datastore.errors import DatastoreError

DEFAULT_FILE = Path("/etc/calico/calicoctl.cfg")
DEFAULT_STORE = Path("/var/lib/catbird/store.db")
Type = Literal["local", "etcdv3", "kubernetes"]


class SettingsError(DatastoreError):
    """A setting that cannot be meant; says which one and where it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Fields are named as in CalicoAPIConfig's spec, `NAME` of the environment in snake case. Empty: not given."""

    datastore_type: Type = "local"
    local_path: Path = DEFAULT_STORE
    etcd_endpoints: tuple[str, ...] = ()
    etcd_discovery_srv: str = ""
    etcd_username: str = ""
    etcd_password: str = field(default="", repr=False)
    etcd_key_file: str = ""
    etcd_cert_file: str = ""
    etcd_ca_cert_file: str = ""
    etcd_key: str = field(default="", repr=False)  # PEM, only in a file
    etcd_cert: str = ""
    etcd_ca_cert: str = ""
    kubeconfig: str = ""
    kubeconfig_inline: str = field(default="", repr=False)
    k8s_api_endpoint: str = ""
    k8s_key_file: str = ""
    k8s_cert_file: str = ""
    k8s_ca_file: str = ""
    k8s_api_token: str = field(default="", repr=False)
    k8s_insecure_skip_tls_verify: bool = False
    k8s_current_context: str = ""
    calico_api_group: str = ""
    use_pod_cidr: bool = False

    def __str__(self) -> str:
        """As it may be shown and logged."""
        if self.datastore_type == "local":
            return f"local:{self.local_path}"
        if self.datastore_type == "etcdv3":
            return "etcd:" + ",".join(self.etcd_endpoints or (self.etcd_discovery_srv,))
        return "kubernetes" + (f":{self.kubeconfig}" if self.kubeconfig else "")


# CalicoAPIConfig's spec in JSON → our fields. Those of the environment follow from the fields' names.
FILE_NAMES = {
    "datastoreType": "datastore_type",
    "localPath": "local_path",
    "etcdEndpoints": "etcd_endpoints",
    "etcdDiscoverySrv": "etcd_discovery_srv",
    "etcdUsername": "etcd_username",
    "etcdPassword": "etcd_password",
    "etcdKeyFile": "etcd_key_file",
    "etcdCertFile": "etcd_cert_file",
    "etcdCACertFile": "etcd_ca_cert_file",
    "etcdKey": "etcd_key",
    "etcdCert": "etcd_cert",
    "etcdCACert": "etcd_ca_cert",
    "kubeconfig": "kubeconfig",
    "kubeconfigInline": "kubeconfig_inline",
    "k8sAPIEndpoint": "k8s_api_endpoint",
    "k8sKeyFile": "k8s_key_file",
    "k8sCertFile": "k8s_cert_file",
    "k8sCAFile": "k8s_ca_file",
    "k8sAPIToken": "k8s_api_token",
    "k8sInsecureSkipTLSVerify": "k8s_insecure_skip_tls_verify",
    "k8sCurrentContext": "k8s_current_context",
    "calicoAPIGroup": "calico_api_group",
    "k8sUsePodCIDR": "use_pod_cidr",
}
PASSED_OVER = {"k8sDisableNodePoll", "k8sClientQPS", "k8sClientBurst"}  # means of Calico's client that ours has not
NOT_IN_ENVIRONMENT = {"etcd_key", "etcd_cert", "etcd_ca_cert", "kubeconfig_inline", "k8s_api_token", "local_path"}
TYPES = {"local": "local", "etcd": "etcdv3", "etcdv3": "etcdv3", "kubernetes": "kubernetes", "k8s": "kubernetes"}


def load_settings(
    url: str = "", *, config_file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """`url` (`local:PATH`, `etcd:URL[,URL]`, `kubernetes[:KUBECONFIG]`) wins over file and environment for what it says.

    Without a file that is named, DEFAULT_FILE is read if it is there and the environment says no DATASTORE_TYPE.
    Raises SettingsError.
    """
    environment = os.environ if environment is None else environment
    said = _of_environment(environment)
    if config_file is None and "datastore_type" not in said and not url and DEFAULT_FILE.is_file():
        config_file = DEFAULT_FILE
    if config_file is not None:
        said = _of_file(config_file) | said
    if url:
        said |= _of_url(url)
    if "datastore_type" not in said:
        said["datastore_type"] = _implied_type(said, environment)
    settings = Settings(**said)
    _check(settings)
    return settings


def _of_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for known in fields(Settings):
        if known.name in NOT_IN_ENVIRONMENT:
            continue
        name = known.name.upper()
        names = (name,) if name.startswith("CALICO_") else (f"CALICO_{name}", name)
        found = next((one for one in names if environment.get(one)), None)
        if found is not None:
            said[known.name] = _value(known.name, environment[found], f"{found} in the environment")
    return said


def _of_file(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}", "name another file, or use the environment") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or document.get("kind") != "CalicoAPIConfig":
        raise SettingsError(f"{path}: kind is not CalicoAPIConfig", "it begins with `apiVersion: projectcalico.org/v3`")
    spec = document.get("spec") or {}
    if not isinstance(spec, dict):
        raise SettingsError(f"{path}: spec is not an object")
    unknown = sorted(set(spec) - FILE_NAMES.keys() - PASSED_OVER)
    if unknown:
        raise SettingsError(f"{path}: spec.{unknown[0]} is not known", f"one of {', '.join(FILE_NAMES)}")
    return {
        FILE_NAMES[name]: _value(FILE_NAMES[name], value, f"{path}: spec.{name}")
        for name, value in spec.items()
        if name in FILE_NAMES and value not in (None, "")
    }


def _of_url(url: str) -> dict[str, Any]:
    word, _, rest = url.partition(":")
    kind = TYPES.get(word)
    if kind is None:
        raise SettingsError(f"datastore {url!r} is not known", "local:PATH, etcd:URL[,URL…] or kubernetes[:KUBECONFIG]")
    said: dict[str, Any] = {"datastore_type": kind}
    if rest:
        name = {"local": "local_path", "etcdv3": "etcd_endpoints", "kubernetes": "kubeconfig"}[kind]
        said[name] = _value(name, rest, f"datastore {url!r}")
        if kind == "etcdv3":
            said["etcd_discovery_srv"] = ""
    return said


def _value(name: str, value: object, where: str) -> Any:
    if name == "datastore_type":
        if str(value) not in TYPES:
            raise SettingsError(f"{where} is {value!r}", "local, etcdv3 or kubernetes")
        return TYPES[str(value)]
    if name == "etcd_endpoints":
        endpoints = tuple(part.strip() for part in str(value).split(",") if part.strip())
        for endpoint in endpoints:
            scheme, separator, host = endpoint.partition("://")
            if not separator or scheme not in ("http", "https") or not host:
                raise SettingsError(f"{where}: endpoint {endpoint!r}", "http://HOST:PORT or https://HOST:PORT")
        return endpoints
    if name == "local_path":
        return Path(str(value)).expanduser()
    if name in ("k8s_insecure_skip_tls_verify", "use_pod_cidr"):
        text = str(value).lower()
        if text not in ("true", "false", "1", "0", "t", "f"):
            raise SettingsError(f"{where} is {value!r}", "true or false")
        return text in ("true", "1", "t")
    return str(value)


def _implied_type(said: Mapping[str, Any], environment: Mapping[str, str]) -> Type:
    if said.get("etcd_endpoints") or said.get("etcd_discovery_srv"):
        return "etcdv3"
    if said.get("kubeconfig") or said.get("k8s_api_endpoint") or environment.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    return "local"


def _check(settings: Settings) -> None:
    if settings.datastore_type != "etcdv3":
        return
    if settings.etcd_endpoints and settings.etcd_discovery_srv:
        raise SettingsError("ETCD_ENDPOINTS and ETCD_DISCOVERY_SRV are both given", "give one of them")
    if not settings.etcd_endpoints and not settings.etcd_discovery_srv:
        raise SettingsError(
            "datastore etcdv3 has no endpoint", "set ETCD_ENDPOINTS, or use --datastore etcd:http://HOST:2379"
        )
    inline = [name for name in ("etcd_key", "etcd_cert", "etcd_ca_cert") if getattr(settings, name)]
    files = [name for name in ("etcd_key_file", "etcd_cert_file", "etcd_ca_cert_file") if getattr(settings, name)]
    if inline and files:
        raise SettingsError("certificates are given both as text and as files", "give all of them one way")
    if bool(settings.etcd_cert or settings.etcd_cert_file) != bool(settings.etcd_key or settings.etcd_key_file):
        raise SettingsError("of the client's certificate and key only one is given", "ETCD_CERT_FILE and ETCD_KEY_FILE")


def open_datastore(settings: Settings) -> Datastore:
    """Imports only the driver that is asked for. Nothing is connected yet: `check` does that."""
    if settings.datastore_type == "local":
        from integration.datastore.local.driver import LocalDatastore

        return LocalDatastore(settings.local_path)
    if settings.datastore_type == "etcdv3":
        from integration.datastore.etcd.opening import open_etcd

        return open_etcd(settings)
    from integration.datastore.kubernetes.connection import KubernetesSettings
    from integration.datastore.kubernetes.driver import KubernetesDatastore

    return KubernetesDatastore(
        KubernetesSettings(
            kubeconfig=settings.kubeconfig,
            kubeconfig_inline=settings.kubeconfig_inline,
            context=settings.k8s_current_context,
            api_endpoint=settings.k8s_api_endpoint,
            ca_file=settings.k8s_ca_file,
            cert_file=settings.k8s_cert_file,
            key_file=settings.k8s_key_file,
            token=settings.k8s_api_token,
            insecure_skip_tls_verify=settings.k8s_insecure_skip_tls_verify,
            api_group=settings.calico_api_group,
            use_pod_cidr=settings.use_pod_cidr,
        )
    )
