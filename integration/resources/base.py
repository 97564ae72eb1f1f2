"""What every model has in common: JSON names, unknown fields, what is written and what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

API_VERSION = "projectcalico.org/v3"

# Words that Calico's JSON names write in capitals when they are not the first word of the name.
CAPITALS = {
    "api", "as", "aws", "bgp", "bpf", "ca", "cidr", "ctlb", "dnat", "dns", "dscp", "dsr", "gc", "gro", "guid", "icmp", "id", "ip", "ipam",
    "ipip", "jit", "mac", "mb", "mtu", "nat", "psnat", "rpf", "tcp", "tls", "ttl", "udp", "uid", "vm", "vni", "vxlan", "xdp",
}  # fmt: skip
MIXED = {"cidrs": "CIDRs", "ips": "IPs", "ipv4": "IPv4", "ipv6": "IPv6", "nats": "NATs"}
# Names that follow no rule.
IRREGULAR = {
    "local_workload_peering_ipv4": "localWorkloadPeeringIPV4",
    "local_workload_peering_ipv6": "localWorkloadPeeringIPV6",
}


def json_name(attribute: str) -> str:
    """Calico's JSON name of an attribute: `peer_ip` → `peerIP`, `local_as_number` → `localASNumber`."""
    if attribute in IRREGULAR:
        return IRREGULAR[attribute]
    first, *rest = attribute.split("_")
    return first + "".join(
        MIXED.get(word) or (word.upper() if word in CAPITALS else word.capitalize()) for word in rest
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a resource.

    `field` is a JSON path (`spec.exportV4[0].cidr`), `value` what stands there (None: nothing), `reason` what is wrong
    with it, `allowed` what would be right ("" if the reason says it all).
    """

    field: str
    value: Any
    reason: str
    allowed: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value!r}"
        return f"{self.field}{shown}: {self.reason}" + (f"; allowed: {self.allowed}" if self.allowed else "")


class ResourceError(ValueError):
    """A resource that cannot be used; `problems` says field by field why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(map(str, self.problems)))


class Model(BaseModel):
    """A JSON object with known fields, read and written in Calico's names; fields it does not know survive.

    Attributes that nobody set have Calico's zero value ("" for texts, None for what may be absent) and are not written.
    JSON null is absence. Lists are assigned, not appended to, or an unset default would change without being written.
    """

    model_config = ConfigDict(
        alias_generator=json_name,
        validate_by_alias=True,
        validate_by_name=True,
        extra="allow",
        strict=True,
        protected_namespaces=(),
    )
    # Fields (by JSON name) that are written as null when they are None.
    written_null: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def leave_out_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None or name in cls.written_null}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a JSON object; what it does not know is shared with it. Raises ResourceError, one problem a field."""
        try:
            # By alias alone: a JSON field `peer_ip` is an unknown field, not a way to write peerIP.
            return cls.model_validate(data, by_alias=True, by_name=False)
        except ValidationError as error:
            raise ResourceError(problems_of(error)) from error

    def to_json(self) -> dict[str, Any]:
        """The JSON object: what was set, in Calico's names, known fields first and in Calico's order."""
        return self.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)


def problems_of(error: ValidationError) -> list[Problem]:
    """pydantic's errors with fields as JSON paths; the alternatives of one union make one problem."""
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False, include_context=False):
        place = json_path(part for part in detail["loc"] if part not in UNION_BRANCHES)
        value = detail["input"]
        reason = WRONG_TYPES.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "missing":
            found.setdefault(place, Problem(place, None, "is required"))
        elif detail["type"] == "string_type" and place not in found:
            found[place] = Problem(place, value, "is not a text", "" if isinstance(value, dict | list) else "in quotes")
        elif place in found:
            found[place] = Problem(place, value, f"{found[place].reason}, or {reason}")
        else:
            found[place] = Problem(place, value, reason)
    return list(found.values())


WRONG_TYPES = {
    "bool_type": "is neither true nor false",
    "string_type": "is not a text",
    "int_type": "is not a whole number",
    "float_type": "is not a number",
    "list_type": "is not a list",
    "dict_type": "is not an object",
    "model_type": "is not an object",
}
# What pydantic adds to the place of an error to tell the branches of our few unions apart.
UNION_BRANCHES = {"int", "str", "bool", "float"}


def json_path(parts: Any) -> str:
    """`("spec", "exportV4", 0, "cidr")` → `spec.exportV4[0].cidr`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class OwnerReference(Model):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Metadata(Model):
    """Kubernetes' ObjectMeta; timestamps are RFC 3339 texts."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []
    finalizers: list[str] = []


class Resource(Model):
    """An object with kind, apiVersion and metadata; each kind adds `spec` and, where it has one, `status`."""

    kind: str = ""
    api_version: str = ""
    metadata: Metadata = Field(default_factory=Metadata)
