"""IPAM's objects as CRDs of crd.projectcalico.org/v1: the same facts as in etcd, otherwise spelt and named.

`to_crd` and `from_crd` convert between a (key, stored form) and such an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from integration.resources.base import Model, Resource
from integration.resources.keys import Key, affinity_key, block_key, cidr_of
from integration.resources.models.ipam import AllocationAttribute
from integration.resources.names import (
    crd_name_of_affinity,
    crd_name_of_cidr,
    crd_name_of_handle,
    hostname_hash,
)
from integration.resources.rules import Range, Required

CRD_VERSION = "crd.projectcalico.org/v1"
LABELS = "projectcalico.org/"


class IPAMBlockSpec(Model):
    cidr: Annotated[str, Required()] = ""
    affinity: str = ""
    affinity_claim_time: str = ""
    allocations: Annotated[list[int | None], Required()] = []
    unallocated: Annotated[list[int], Required()] = []
    attributes: Annotated[list[AllocationAttribute], Required()] = []
    sequence_number: Annotated[int, Required()] = 0
    sequence_number_for_allocation: dict[str, int] = {}
    deleted: bool = False
    strict_affinity: Annotated[bool, Required()] = False  # read by nobody, and still required


class IPAMBlockObject(Resource):
    spec: IPAMBlockSpec = Field(default_factory=IPAMBlockSpec)


class BlockAffinitySpec(Model):
    state: Annotated[str, Required()] = ""
    node: Annotated[str, Required()] = ""
    type: str = ""  # host if empty
    cidr: Annotated[str, Required()] = ""
    deleted: Annotated[str, Required()] = ""  # "true", "false": a text since the first version


class BlockAffinityObject(Resource):
    spec: BlockAffinitySpec = Field(default_factory=BlockAffinitySpec)


def handle_names(attribute: str) -> str:
    return {"handle_id": "handleID"}.get(attribute, attribute)


class IPAMHandleSpec(Model):
    model_config = ConfigDict(alias_generator=handle_names)

    handle_id: Annotated[str, Required()] = ""
    block: Annotated[dict[str, int], Required()] = {}
    deleted: bool = False


class IPAMHandleObject(Resource):
    spec: IPAMHandleSpec = Field(default_factory=IPAMHandleSpec)


class IPAMConfigSpec(Model):
    strict_affinity: Annotated[bool, Required()] = False
    auto_allocate_blocks: Annotated[bool, Required()] = False
    max_blocks_per_host: Annotated[int, Range(0, 2**31 - 1)] = 0
    kube_virt_vm_address_persistence: str = ""
    ip_cooldown_seconds: Annotated[int, Range(0)] = 0


class IPAMConfigObject(Resource):
    spec: IPAMConfigSpec = Field(default_factory=IPAMConfigSpec)


OBJECTS: Mapping[str, type[Resource]] = {
    "IPAMBlock": IPAMBlockObject,
    "BlockAffinity": BlockAffinityObject,
    "IPAMHandle": IPAMHandleObject,
    "IPAMConfig": IPAMConfigObject,
}
# etcd's name → the CRD's, where they differ
RENAMED = {
    "IPAMBlock": {"affinity_claim_time": "affinityClaimTime"},
    "IPAMConfig": {"strict_affinity": "strictAffinity", "auto_allocate_blocks": "autoAllocateBlocks"},
}


def crd_object_name(key: Key) -> str:
    """The CRD object's name. Raises ValueError for kinds that are not IPAM's."""
    match key.kind:
        case "IPAMBlock":
            return crd_name_of_cidr(cidr_of(key))
        case "BlockAffinity":
            return crd_name_of_affinity(key.namespace.partition(":")[2], cidr_of(key))
        case "IPAMHandle":
            return crd_name_of_handle(key.name)
        case "IPAMConfig":
            return "default"
    raise ValueError(f"{key} is no CRD of IPAM's")


def to_crd(key: Key, value: Mapping[str, Any]) -> dict[str, Any]:
    """The CRD object of what etcd stores under `key`; metadata holds its name and the labels it is listed by."""
    renamed = RENAMED.get(key.kind, {})
    spec = {renamed.get(name, name): each for name, each in value.items() if each is not None}
    metadata: dict[str, Any] = {"name": crd_object_name(key)}
    match key.kind:
        case "IPAMBlock":
            spec.setdefault("strictAffinity", False)
        case "BlockAffinity":
            holder, _, name = key.namespace.partition(":")
            cidr = cidr_of(key)
            deleted = "true" if value.get("deleted") else "false"
            spec |= {"state": value.get("state", ""), "node": name, "type": holder, "cidr": cidr, "deleted": deleted}
            metadata["labels"] = {
                LABELS + "hostname-hash": hostname_hash(name),
                LABELS + "affinity-type": holder,
                LABELS + "ip-version": "6" if ":" in cidr else "4",
            }
        case "IPAMHandle":
            spec = {"handleID": key.name} | spec
            spec.setdefault("block", {})
        case "IPAMConfig":
            spec.setdefault("strictAffinity", False)
            spec.setdefault("autoAllocateBlocks", False)
    return {"apiVersion": CRD_VERSION, "kind": key.kind, "metadata": metadata, "spec": spec}


def from_crd(found: Mapping[str, Any]) -> tuple[Key, dict[str, Any]]:
    """Key and stored form of a CRD object, or of one of projectcalico.org/v3. Raises ValueError if it is neither."""
    try:
        return read_crd(found["kind"], found.get("metadata") or {}, dict(found.get("spec") or {}))
    except KeyError as error:
        raise ValueError(f"a {found.get('kind', 'thing')} of IPAM's without {error.args[0]}") from error


def read_crd(crd_kind: str, metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[Key, dict[str, Any]]:
    kind = "IPAMConfig" if crd_kind == "IPAMConfiguration" else crd_kind
    stored = {crd: etcd for etcd, crd in RENAMED.get(kind, {}).items()}
    value = {stored.get(name, name): each for name, each in spec.items()}
    match kind:
        case "IPAMBlock":
            value.pop("strictAffinity", None)
            return block_key(spec["cidr"]), {"affinity": None} | value
        case "BlockAffinity":
            own = {"state": spec.get("state", ""), "deleted": spec.get("deleted") in (True, "true")}
            others = {
                name: each for name, each in spec.items() if name not in ("state", "deleted", "node", "type", "cidr")
            }
            return affinity_key(f"{spec.get('type') or 'host'}:{spec['node']}", spec["cidr"]), own | others
        case "IPAMHandle":
            name = value.pop("handleID", "") or metadata["name"]
            return Key(kind, name), value
        case "IPAMConfig":
            return Key(kind, "default"), value
    raise ValueError(f"{kind} is no CRD of IPAM's")
