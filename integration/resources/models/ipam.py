"""IPPool, IPReservation, and what IPAM stores: blocks, affinities, handles, configuration.

Blocks, affinities, handles and the configuration have a form of their own in etcd, without kind and metadata; these
models are that form. (In Kubernetes they are CRDs; `ipam_crds.py` converts.)
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from integration.resources.base import Model, Resource
from integration.resources.fields import CIDRText, NetText, SelectorText
from integration.resources.rules import Default, Items, OneOf, Range, Required


class PoolCondition(Model):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class IPPoolStatus(Model):
    conditions: list[PoolCondition] = []


class OldIPIPConfiguration(Model):
    enabled: bool = False
    mode: str = ""


class IPPoolSpec(Model):
    cidr: Annotated[NetText, Required()] = ""
    vxlan_mode: Annotated[str, OneOf("Never", "Always", "CrossSubnet")] = ""
    ipip_mode: Annotated[str, OneOf("Never", "Always", "CrossSubnet")] = ""
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = False
    block_size: Annotated[int | None, Range(0, 128)] = None  # 26 and 122 if absent or 0
    node_selector: SelectorText = ""
    namespace_selector: SelectorText = ""
    allowed_uses: Annotated[
        list[Annotated[str, OneOf("Workload", "Tunnel", "LoadBalancer")]], Items(10, unique=True)
    ] = []
    assignment_mode: Annotated[str | None, OneOf("Automatic", "Manual"), Default("Automatic")] = None
    ipip: OldIPIPConfiguration | None = None  # of the v1 API; nobody may set it any more


class IPPool(Resource):
    spec: IPPoolSpec = Field(default_factory=IPPoolSpec)
    status: IPPoolStatus | None = None


class IPReservationSpec(Model):
    reserved_cidrs: list[CIDRText] = []


class IPReservation(Resource):
    spec: IPReservationSpec = Field(default_factory=IPReservationSpec)


class IPAMConfigurationSpec(Model):
    strict_affinity: bool = False
    auto_allocate_blocks: Annotated[bool, Default(True)] = True
    max_blocks_per_host: Annotated[int, Range(0, 2**31 - 1)] = 0  # 0: 20 of each family
    kube_virt_vm_address_persistence: Annotated[str | None, OneOf("Enabled", "Disabled")] = None
    ip_cooldown_seconds: Annotated[int, Range(0, 2**31 - 1)] = 0


class IPAMConfiguration(Resource):
    """The v3 resource, named `default`. The allocator reads IPAMConfig."""

    spec: IPAMConfigurationSpec = Field(default_factory=IPAMConfigurationSpec)


def own_names(attribute: str) -> str:
    """IPAM's stored form mixes two ways of writing names."""
    return {
        "alternate_owner_attrs": "alternateOwnerAttrs",
        "released_at": "releasedAt",
        "sequence_number": "sequenceNumber",
        "sequence_number_for_allocation": "sequenceNumberForAllocation",
        "host_affinity": "hostAffinity",
        "max_blocks_per_host": "maxBlocksPerHost",
        "kube_virt_vm_address_persistence": "kubeVirtVMAddressPersistence",
        "ip_cooldown_seconds": "ipCooldownSeconds",
    }.get(attribute, attribute)


class StoredByIPAM(Model):
    model_config = ConfigDict(alias_generator=own_names)


class AllocationAttribute(StoredByIPAM):
    """Who holds an address; shared by all ordinals of a block that say the same."""

    handle_id: str | None = None
    secondary: dict[str, str] | None = None
    alternate_owner_attrs: dict[str, str] | None = None
    released_at: str | None = None


class IPAMBlock(StoredByIPAM):
    """A block of 2^n addresses; an ordinal is an address's distance from the block's first.

    `allocations[ordinal]` is an index into `attributes` or None (free); `unallocated` the free ordinals, first out first.
    """

    cidr: str = ""
    affinity: str | None = None  # host:NODE, virtual:NAME
    affinity_claim_time: str | None = None
    allocations: list[int | None] = []
    unallocated: list[int] = []
    attributes: list[AllocationAttribute] = []
    sequence_number: int = 0
    sequence_number_for_allocation: dict[str, int] = {}
    deleted: bool = False
    host_affinity: str | None = None  # of old versions
    written_null: ClassVar[frozenset[str]] = frozenset({"affinity"})

    def to_json(self) -> dict[str, Any]:
        written = super().to_json()
        if self.affinity is None and "affinity" in self.model_fields_set:
            written["affinity"] = None  # as Calico writes it
        return written


class BlockAffinity(StoredByIPAM):
    """That a host holds a block; whose and which is in the key. An empty state is confirmed."""

    state: Annotated[str, OneOf("confirmed", "pending", "pendingDeletion")] = ""
    deleted: bool = False


class IPAMHandle(StoredByIPAM):
    """How many addresses of which block a handle holds: CIDR → count. The handle's id is in the key."""

    block: dict[str, int] = {}
    deleted: bool = False


class IPAMConfig(StoredByIPAM):
    """The allocator's settings."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = False
    max_blocks_per_host: int = 0
    kube_virt_vm_address_persistence: str | None = None
    ip_cooldown_seconds: int = 0


class IPAMHost(StoredByIPAM):
    """A mark that IPAM knows the host; it has no fields."""
