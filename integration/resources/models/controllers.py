"""KubeControllersConfiguration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from integration.resources.base import Model, Resource
from integration.resources.fields import (
    CIDRText,
    Duration,
    EnabledOrDisabled,
    Labels,
    NameText,
    PlainSelector,
    RegexText,
)
from integration.resources.rules import Default, Items, OneOf, Range


class HostEndpointTemplate(Model):
    """Which host endpoints to make for a node; one of `interface_cidrs` and `interface_pattern` is needed."""

    generate_name: NameText = ""
    interface_cidrs: Annotated[list[CIDRText], Items(unique=True)] = []
    interface_pattern: RegexText = ""
    labels: Labels = {}
    node_selector: PlainSelector = ""


class AutoHostEndpointConfig(Model):
    auto_create: EnabledOrDisabled = ""
    create_default_host_endpoint: EnabledOrDisabled = ""
    templates: list[HostEndpointTemplate] = []


class NodeControllerConfig(Model):
    reconciler_period: Duration = ""  # 5m
    sync_labels: EnabledOrDisabled = ""
    host_endpoint: AutoHostEndpointConfig | None = None
    leak_grace_period: Duration | None = None  # 15m; 0 turns the collection of leaked addresses off


class ReconcilingControllerConfig(Model):
    reconciler_period: Duration = ""  # 5m


class LoadBalancerControllerConfig(Model):
    assign_ips: Annotated[str, OneOf("AllServices", "RequestedServicesOnly"), Default("AllServices")] = ""


class PolicyMigrationConfig(Model):
    enabled: Annotated[EnabledOrDisabled, Default("Enabled")] = ""


class ControllersConfig(Model):
    """A controller that is absent is off."""

    node: NodeControllerConfig | None = None
    policy: ReconcilingControllerConfig | None = None
    workload_endpoint: ReconcilingControllerConfig | None = None
    service_account: ReconcilingControllerConfig | None = None
    namespace: ReconcilingControllerConfig | None = None
    load_balancer: LoadBalancerControllerConfig | None = None
    policy_migration: PolicyMigrationConfig | None = None


class KubeControllersConfigurationSpec(Model):
    log_severity_screen: Annotated[
        str, OneOf("", "None", "Trace", "Debug", "Info", "Warning", "Error", "Fatal", "Panic", ignore_case=True)
    ] = ""
    health_checks: Annotated[EnabledOrDisabled, Default("Enabled")] = ""
    etcd_v3_compaction_period: Duration = ""  # 10m; 0: never
    prometheus_metrics_port: Annotated[int | None, Range(0, 65535)] = None  # 9094; 0: none
    controllers: ControllersConfig = Field(default_factory=ControllersConfig)
    debug_profile_port: Annotated[int | None, Range(0, 65535)] = None


class KubeControllersConfigurationStatus(Model):
    running_config: KubeControllersConfigurationSpec | None = None
    environment_vars: dict[str, str] = {}


class KubeControllersConfiguration(Resource):
    spec: KubeControllersConfigurationSpec = Field(default_factory=KubeControllersConfigurationSpec)
    status: KubeControllersConfigurationStatus | None = None
