"""What a stored object is called, and where Calico keeps it in etcd, byte for byte."""

from __future__ import annotations

import re
from dataclasses import dataclass

from integration.resources.kinds import ALL, KINDS

RESOURCES = "/calico/resources/v3/projectcalico.org/"
# Calico keeps Kubernetes' own kinds nowhere but in Kubernetes. Clusters without it may keep them here.
OTHER_RESOURCES = "/catbird/resources/v3/"
IPAM = "/calico/ipam/v2/"

BLOCK_PATH = re.compile(IPAM + r"assignment/ipv([46])/block/([^/]+)")
AFFINITY_PATH = re.compile(IPAM + r"(host|virtual)/([^/]+)/ipv([46])/block/([^/]+)")
HANDLE_PATH = re.compile(IPAM + r"handle/([^/]+)")
HOST_PATH = re.compile(IPAM + r"host/([^/]+)")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The name of a stored object.

    A resource has its own name and namespace. Of IPAM's kinds, an IPAMBlock is named by its CIDR with `-` for `/`
    (`10.0.0.0-26`), a BlockAffinity likewise, with the holder as namespace, written as in blocks (`host:node1`,
    `virtual:load-balancer`); an IPAMHandle by its id, an IPAMHost by its node, IPAMConfig is called `default`.
    """

    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def block_key(cidr: str) -> Key:
    return Key("IPAMBlock", cidr.replace("/", "-"))


def affinity_key(holder: str, cidr: str) -> Key:
    """`holder` as in a block's `affinity`: `host:node1`."""
    return Key("BlockAffinity", cidr.replace("/", "-"), holder)


def cidr_of(key: Key) -> str:
    """The CIDR of an IPAMBlock or BlockAffinity."""
    return "/".join(key.name.rsplit("-", 1))


def etcd_path(key: Key) -> str:
    """Where the object lies. Raises ValueError if the kind is unknown or key parts cannot be told apart in a path."""
    kind = KINDS.get(key.kind)
    if kind is None:
        raise ValueError(f"{key}: the kind is not known")
    if not key.name or "/" in key.name or "/" in key.namespace:
        raise ValueError(f"{key}: a name may neither be empty nor contain '/'")
    if bool(key.namespace) != kind.namespaced:
        raise ValueError(f"{key}: {'needs a' if kind.namespaced else 'has no'} namespace")
    match key.kind:
        case "IPAMBlock":
            return f"{IPAM}assignment/{family_of(key.name)}/block/{key.name}"
        case "BlockAffinity":
            return f"{etcd_prefix(key.kind, key.namespace)}{family_of(key.name)}/block/{key.name}"
        case "IPAMHandle":
            return f"{IPAM}handle/{key.name}"
        case "IPAMHost":
            return f"{IPAM}host/{key.name}"
        case "IPAMConfig" if key.name != "default":
            raise ValueError(f"{key}: the only IPAMConfig is called default")
        case "IPAMConfig":
            return f"{IPAM}config"
    return f"{etcd_prefix(key.kind, key.namespace)}{key.name}"


def family_of(name: str) -> str:
    return "ipv6" if ":" in name else "ipv4"


def etcd_prefix(kind: str, namespace: str = "") -> str:
    """What the paths of all objects of the kind (in the namespace) begin with.

    Others may begin so too: whoever lists asks `key_of_etcd_path` for the kind of each. For BlockAffinity without a
    holder that is all of IPAM; `etcd_prefixes` is narrower.
    """
    prefixes = etcd_prefixes(kind, namespace)
    return prefixes[0] if len(prefixes) == 1 else IPAM


def etcd_prefixes(kind: str, namespace: str = "") -> tuple[str, ...]:
    """The narrowest prefixes under which all objects of the kind (in the namespace) lie. Raises ValueError."""
    match kind:
        case "IPAMBlock":
            return (f"{IPAM}assignment/",)
        case "BlockAffinity" if namespace:
            holder, colon, name = namespace.partition(":")
            if holder not in ("host", "virtual") or not colon or not name:
                raise ValueError(f"{namespace!r} holds no block: it should be host:NODE or virtual:NAME")
            return (f"{IPAM}{holder}/{name}/",)
        case "BlockAffinity":
            return (f"{IPAM}host/", f"{IPAM}virtual/")
        case "IPAMHandle":
            return (f"{IPAM}handle/",)
        case "IPAMHost":
            return (f"{IPAM}host/",)
        case "IPAMConfig":
            return (f"{IPAM}config",)
    if kind not in KINDS:
        raise ValueError(f"the kind {kind!r} is not known")
    known = KINDS[kind]
    root = RESOURCES if known.group == "calico" else OTHER_RESOURCES
    return (f"{root}{known.plural}/" + (f"{namespace}/" if namespace else ""),)


BY_FOLDER = {
    (RESOURCES if kind.group == "calico" else OTHER_RESOURCES, kind.plural): kind
    for kind in ALL
    if kind.group != "ipam"
}


def key_of_etcd_path(path: str) -> Key | None:
    """The key of what lies at `path`; None if nothing that we know lies there."""
    if path.startswith(IPAM):
        return ipam_key(path)
    root = next((root for root in (RESOURCES, OTHER_RESOURCES) if path.startswith(root)), None)
    if root is None:
        return None
    plural, *rest = path.removeprefix(root).split("/")
    kind = BY_FOLDER.get((root, plural))
    if kind is None or len(rest) != 1 + kind.namespaced or not all(rest):
        return None
    return Key(kind.name, rest[-1], rest[0] if kind.namespaced else "")


def ipam_key(path: str) -> Key | None:
    if path == f"{IPAM}config":
        return Key("IPAMConfig", "default")
    if found := BLOCK_PATH.fullmatch(path):
        return Key("IPAMBlock", found[2]) if family_of(found[2])[-1] == found[1] else None
    if found := AFFINITY_PATH.fullmatch(path):
        key = Key("BlockAffinity", found[4], f"{found[1]}:{found[2]}")
        return key if family_of(found[4])[-1] == found[3] else None
    if found := HANDLE_PATH.fullmatch(path):
        return Key("IPAMHandle", found[1])
    if found := HOST_PATH.fullmatch(path):
        return Key("IPAMHost", found[1])
    return None
