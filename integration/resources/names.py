"""Names that Calico computes: ids of limited length, workload endpoints, interfaces, CRD objects."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

MAX_OBJECT_NAME = 253


def base64url(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def unique_id(prefix: str, content: str) -> str:
    """`prefix:` and the SHA-224 of `prefix:content` in base64url without padding (38 characters)."""
    return f"{prefix}:{base64url(hashlib.sha224(f'{prefix}:{content}'.encode()).digest())}"


def length_limited_id(prefix: str, suffix: str, max_length: int) -> str:
    """`prefix + suffix`, or if that is longer than `max_length` a hash of `suffix` in place of it.

    A shortened id is exactly `max_length` long and has `_` after the prefix; a suffix that starts so and fills the
    length is hashed too, lest it be taken for one. An empty suffix is `_`.
    """
    if not suffix:
        return prefix + "_"
    if len(suffix) > (room := max_length - len(prefix)) or (len(suffix) == room and suffix.startswith("_")):
        return f"{prefix}_{base64url(hashlib.sha256(suffix.encode()).digest())[: max(room - 1, 0)]}"
    return prefix + suffix


# --- workload endpoints


@dataclass(frozen=True)
class WorkloadEndpointName:
    """The parts of a WorkloadEndpoint's name: `node-k8s-pod-eth0`, with `-` doubled inside a part.

    Which parts follow the orchestrator depends on it: `k8s` pod and endpoint; `cni` containerID and endpoint;
    `libnetwork` the word `libnetwork` and endpoint; others workload and endpoint.
    """

    node: str = ""
    orchestrator: str = ""
    pod: str = ""
    container_id: str = ""
    workload: str = ""
    endpoint: str = ""

    def parts(self) -> list[tuple[str, str]]:
        """The parts in order, each with what it is called; empty ones too."""
        middle = {
            "k8s": ("pod", self.pod),
            "cni": ("containerID", self.container_id),
            "libnetwork": ("workload", "libnetwork"),
        }.get(self.orchestrator, ("workload", self.workload))
        return [("node", self.node), ("orchestrator", self.orchestrator), middle, ("endpoint", self.endpoint)]

    @property
    def name(self) -> str:
        """The whole name. Raises ValueError, which names the part that is missing or ill-formed."""
        return "-".join(escaped_part(what, text) for what, text in self.parts())

    @property
    def prefix(self) -> str:
        """What the names of all endpoints begin with that agree in the leading parts that are given.

        Names of others may begin so too (`pod-` begins `pod--1`): compare the parts of what is found.
        """
        texts = []
        for what, text in self.parts():
            if not text:
                break
            texts.append(escaped_part(what, text))
        else:
            return "-".join(texts)
        return "".join(text + "-" for text in texts)


def escaped_part(what: str, text: str) -> str:
    if not text:
        raise ValueError(f"the endpoint's {what} is missing")
    if text.startswith("-") or text.endswith("-"):
        raise ValueError(f"the endpoint's {what} {text!r} starts or ends with '-'")
    return text.replace("-", "--")


def parts_of_endpoint_name(name: str) -> WorkloadEndpointName:
    """The reverse of `WorkloadEndpointName.name`. Raises ValueError."""
    parts = split_parts(name)
    if len(parts) != 4 or not all(parts):
        raise ValueError(f"{name!r} is not NODE-ORCHESTRATOR-WORKLOAD-ENDPOINT")
    node, orchestrator, middle, endpoint = parts
    match orchestrator:
        case "k8s":
            return WorkloadEndpointName(node, orchestrator, pod=middle, endpoint=endpoint)
        case "cni":
            return WorkloadEndpointName(node, orchestrator, container_id=middle, endpoint=endpoint)
    return WorkloadEndpointName(node, orchestrator, workload=middle, endpoint=endpoint)


def split_parts(name: str) -> Sequence[str]:
    """Cut at single `-`; `--` is a `-` inside a part."""
    return [part.replace("\0", "-") for part in name.replace("--", "\0").split("-")]


def workload_interface(namespace: str, pod: str, prefix: str = "cali") -> str:
    """The host side of a pod's veth pair: the prefix and 11 hex digits, 15 characters with `cali`."""
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()[:11]


# --- CRD objects of IPAM


def crd_name_of_cidr(cidr: str) -> str:
    """`10.65.79.0/26` → `10-65-79-0-26`, `fd00::/122` → `fd00---122`."""
    return cidr.replace(".", "-", 3).replace(":", "-", 7).replace("/", "-", 1)


def crd_name_of_affinity(host: str, cidr: str) -> str:
    """`HOST-10-65-79-0-26`; a host too long for that is cut, and 11 hex digits of a hash tell it from others."""
    block = crd_name_of_cidr(cidr)
    name = f"{host}-{block}"
    if len(name) < MAX_OBJECT_NAME:
        return name
    digest = hashlib.sha256(f"{host}+{block}".encode()).hexdigest()[:11]
    return f"{host[: MAX_OBJECT_NAME - 1 - len(block) - 13]}-{block}-{digest}"


def crd_name_of_handle(handle: str) -> str:
    return handle.lower()


def hostname_hash(host: str) -> str:
    """The value of the label `projectcalico.org/hostname-hash`: SHA3-256 in base32 without padding, 52 characters."""
    return base64.b32encode(hashlib.sha3_256(host.encode()).digest()).decode().rstrip("=")


# --- files of the endpoint status directory, keys of Felix and Typha


def escape(component: str) -> str:
    """A part of a v1 key: `%` → `%25`, then `/` → `%2f`."""
    return component.replace("%", "%25").replace("/", "%2f")


def unescape(component: str) -> str:
    return component.replace("%2f", "/").replace("%25", "%")


def v3_uid(crd_uid: str) -> str:
    """The UID of the v3 resource that a CRD of crd.projectcalico.org/v1 stands for, and the other way round.

    The bits of every octet are reversed but for octets 6 and 8, which hold a UUID's version and variant.
    What is no UUID is returned as it is.
    """
    digits = crd_uid.replace("-", "")
    try:
        octets = bytes.fromhex(digits)
    except ValueError:
        return crd_uid
    if len(octets) != 16:
        return crd_uid
    turned = [octet if at in (6, 8) else int(f"{octet:08b}"[::-1], 2) for at, octet in enumerate(octets)]
    text = bytes(turned).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
