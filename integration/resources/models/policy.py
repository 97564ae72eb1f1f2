"""Tiers, policies and their staged twins, profiles, network sets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from integration.resources.base import Model, Resource
from integration.resources.fields import (
    Annotations,
    CIDRText,
    Labels,
    NameText,
    Order,
    PlainSelector,
    PortText,
    ProtocolText,
    SelectorText,
    StrictNetText,
)
from integration.resources.rules import Default, Items, Length, OneOf, Range, Required

DEFAULT_TIER = "default"


class ICMPFields(Model):
    type: Annotated[int | None, Range(0, 254)] = None
    code: Annotated[int | None, Range(0, 255)] = None


class HTTPPath(Model):
    """Exactly one of the two."""

    exact: Annotated[str, Length(1024)] = ""
    prefix: Annotated[str, Length(1024)] = ""


class HTTPMatch(Model):
    methods: Annotated[list[str], Items(20, unique=True)] = []
    paths: Annotated[list[HTTPPath], Items(20)] = []


class ServiceMatch(Model):
    name: NameText = ""
    namespace: NameText = ""


class ServiceAccountMatch(Model):
    names: Annotated[list[str], Items(unique=True)] = []
    selector: PlainSelector = ""


class EntityRule(Model):
    """What the source or the destination of a packet must be like; everything that is given must hold."""

    nets: Annotated[list[StrictNetText], Items(256, unique=True)] = []
    selector: SelectorText = ""
    namespace_selector: SelectorText = ""
    services: ServiceMatch | None = None
    ports: Annotated[list[PortText], Items(50)] = []
    not_nets: Annotated[list[StrictNetText], Items(256, unique=True)] = []
    not_selector: SelectorText = ""
    not_ports: Annotated[list[PortText], Items(50)] = []
    service_accounts: ServiceAccountMatch | None = None


class RuleMetadata(Model):
    annotations: Annotations = {}


class PolicyRule(Model):
    action: Annotated[str, Required(), OneOf("Allow", "Deny", "Log", "Pass")] = ""
    ip_version: int | None = None
    protocol: ProtocolText = None
    icmp: ICMPFields | None = None
    not_protocol: ProtocolText = None
    not_icmp: ICMPFields | None = None
    source: EntityRule = Field(default_factory=EntityRule)
    destination: EntityRule = Field(default_factory=EntityRule)
    http: HTTPMatch | None = None
    metadata: RuleMetadata | None = None


PolicyTypes = Annotated[list[Annotated[str, OneOf("Ingress", "Egress")]], Items(2, unique=True)]
Rules = Annotated[list[PolicyRule], Items(1024)]
TierName = Annotated[NameText, Default(DEFAULT_TIER)]
PerformanceHints = Annotated[list[Annotated[str, OneOf("AssumeNeededOnEveryNode")]], Items(unique=True)]
StagedAction = Annotated[str, OneOf("Set", "Delete", "Learn", "Ignore"), Default("Set")]


class NetworkPolicySpec(Model):
    tier: TierName = ""
    order: Order = None  # absent: last
    ingress: Rules = []
    egress: Rules = []
    selector: SelectorText = ""
    types: PolicyTypes = []
    service_account_selector: SelectorText = ""
    performance_hints: PerformanceHints = []


class GlobalNetworkPolicySpec(Model):
    tier: TierName = ""
    order: Order = None
    ingress: Rules = []
    egress: Rules = []
    selector: SelectorText = ""
    types: PolicyTypes = []
    do_not_track: bool = False
    pre_dnat: bool = False
    apply_on_forward: bool = False
    service_account_selector: SelectorText = ""
    namespace_selector: SelectorText = ""
    performance_hints: PerformanceHints = []


class StagedNetworkPolicySpec(NetworkPolicySpec):
    staged_action: StagedAction = ""


class StagedGlobalNetworkPolicySpec(GlobalNetworkPolicySpec):
    staged_action: StagedAction = ""


class StagedKubernetesNetworkPolicySpec(Model):
    """A Kubernetes NetworkPolicy's spec, with `stagedAction`."""

    staged_action: StagedAction = ""
    pod_selector: dict[str, Any] = {}
    ingress: list[dict[str, Any]] = []
    egress: list[dict[str, Any]] = []
    policy_types: PolicyTypes = []


class NetworkPolicy(Resource):
    spec: NetworkPolicySpec = Field(default_factory=NetworkPolicySpec)


class GlobalNetworkPolicy(Resource):
    spec: GlobalNetworkPolicySpec = Field(default_factory=GlobalNetworkPolicySpec)


class StagedNetworkPolicy(Resource):
    spec: StagedNetworkPolicySpec = Field(default_factory=StagedNetworkPolicySpec)


class StagedGlobalNetworkPolicy(Resource):
    spec: StagedGlobalNetworkPolicySpec = Field(default_factory=StagedGlobalNetworkPolicySpec)


class StagedKubernetesNetworkPolicy(Resource):
    spec: StagedKubernetesNetworkPolicySpec = Field(default_factory=StagedKubernetesNetworkPolicySpec)


class TierSpec(Model):
    order: Order = None  # absent: last
    default_action: Annotated[str, OneOf("Pass", "Deny"), Default("Deny")] = ""


class Tier(Resource):
    spec: TierSpec = Field(default_factory=TierSpec)


class NetworkSetSpec(Model):
    nets: Annotated[list[CIDRText], Items(unique=True)] = []


class NetworkSet(Resource):
    spec: NetworkSetSpec = Field(default_factory=NetworkSetSpec)


class GlobalNetworkSet(Resource):
    spec: NetworkSetSpec = Field(default_factory=NetworkSetSpec)


class ProfileSpec(Model):
    """Rules for endpoints that no policy has an opinion on, and labels that they inherit."""

    ingress: Rules = []
    egress: Rules = []
    labels_to_apply: Labels = {}


class Profile(Resource):
    spec: ProfileSpec = Field(default_factory=ProfileSpec)
