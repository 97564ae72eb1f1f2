"""Felix' configuration: forms of parameters, precedence of sources, what is told of mistakes."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.config import (
    ATTRIBUTES,
    PARAMETERS,
    WITHOUT_EFFECT,
    ConfigProblem,
    FelixConfig,
    difference,
    resolve,
)
from felix.config_layers import parameter_name
from felix.config_sources import environment_layer, file_layer
from felix.desired import PortRange
from felix.parameters import ProtoPort, TableRange
from integration.resources.models.felix_configuration import FelixConfigurationSpec


def resolved(
    environment: dict[str, str] | None = None,
    file: dict[str, str] | None = None,
    for_node: dict[str, str] | None = None,
    by_selector: dict[str, str] | None = None,
    everywhere: dict[str, str] | None = None,
) -> tuple[FelixConfig, list[ConfigProblem]]:
    return resolve(
        environment or {}, file or {}, for_node or {}, by_selector or {}, everywhere or {}, hostname="node-1"
    )


def test_nothing_said_gives_the_defaults_and_no_problem() -> None:
    config, problems = resolved()
    assert problems == []
    assert config.hostname == "node-1"
    assert difference(config, FelixConfig()).changed == {"hostname"}
    assert config.interface_exclude[0].search("kube-ipvs0")
    assert not config.interface_exclude[0].search("kube-ipvs01")
    assert config.failsafe_inbound_host_ports[:2] == (ProtoPort("tcp", 22), ProtoPort("udp", 68))
    assert config.free_tables == (TableRange(1, 250),)


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("LogSeverityScreen", "debug", "log_severity_screen", "DEBUG"),
        ("Ipv6Support", "No", "ipv6_support", False),
        ("IpInIpEnabled", "t", "ipip_enabled", True),
        ("IpInIpEnabled", "none", "ipip_enabled", None),
        ("VXLANVNI", "0x10", "vxlan_vni", 16),
        ("IptablesRefreshInterval", "0.5", "iptables_refresh_interval_s", 0.5),
        ("IptablesRefreshInterval", "90s", "iptables_refresh_interval_s", 90.0),
        ("IptablesLockProbeIntervalMillis", "20", "iptables_lock_probe_interval_s", 0.02),
        ("IptablesLockProbeIntervalMillis", "20ms", "iptables_lock_probe_interval_s", 0.02),
        ("IptablesMarkMask", "0xff00", "iptables_mark_mask", 0xFF00),
        ("InterfacePrefix", "cali,tap", "interface_prefixes", ("cali", "tap")),
        (
            "InterfaceExclude",
            "a,/^kube.*/",
            "interface_exclude",
            (re.compile("^a$"), re.compile("^kube.*")),
        ),
        (
            "FailsafeInboundHostPorts",
            "22, udp:10.0.0.1/8:53 ,SCTP:9,tcp:[fd00::/64]:179,",
            "failsafe_inbound_host_ports",
            (
                ProtoPort("tcp", 22),
                ProtoPort("udp", 53, "10.0.0.0/8"),
                ProtoPort("sctp", 9),
                ProtoPort("tcp", 179, "fd00::/64"),
            ),
        ),
        ("FailsafeOutboundHostPorts", "none", "failsafe_outbound_host_ports", ()),
        ("KubeNodePortRanges", "80,30000:32767", "kube_node_port_ranges", (PortRange(80, 80), PortRange(30000, 32767))),
        ("NATPortRange", "1000:2000", "nat_port_range", PortRange(1000, 2000)),
        ("RouteTableRanges", "1-2,256-300", "route_table_ranges", (TableRange(1, 2), TableRange(256, 300))),
        ("ExternalNodesCIDRList", "10.0.0.1,10.1.2.3/16", "external_nodes", ("10.0.0.1/32", "10.1.0.0/16")),
        ("MetadataAddr", "none", "metadata_addr", ""),
        ("MetadataPort", "NONE", "metadata_port", 0),
        ("IstioDSCPMark", "AF11", "istio_dscp_mark", 10),
        ("FeatureDetectOverride", "A=true, B=false", "feature_detect_override", (("A", "true"), ("B", "false"))),
        ("HealthTimeoutOverrides", "a=1m,b=30", "health_timeout_overrides", (("a", 60.0), ("b", 30.0))),
        ("EtcdEndpoints", "https://a:2379,https://b:2379/", "etcd_endpoints", ("https://a:2379", "https://b:2379")),
        ("FelixHostname", "other", "hostname", "other"),
        ("MTUIfacePattern", "^eth", "mtu_iface_pattern", re.compile("^eth")),
        ("ProgramClusterRoutes", "enabled", "program_cluster_routes", "Enabled"),
    ],
)
def test_a_parameter_is_written_so(name: str, text: str, attribute: str, value: Any) -> None:
    config, problems = resolved(environment={name.upper(): text})
    assert problems == []
    assert getattr(config, attribute) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LogSeverityScreen", "loud"),
        ("Ipv6Support", "maybe"),
        ("VXLANPort", "0"),
        ("VXLANPort", "65536"),
        ("VXLANVNI", "9" * 5000),
        ("IptablesRefreshInterval", "-1"),
        ("IptablesRefreshInterval", "nan"),
        ("IptablesRefreshInterval", "inf"),
        ("IptablesRefreshInterval", "1e300"),
        ("InterfacePrefix", "cali,way-too-long-for-linux"),
        ("InterfacePrefix", ","),
        ("InterfacePrefix", "none"),
        ("InterfaceExclude", "/(/"),
        ("MTUIfacePattern", "("),
        ("FailsafeInboundHostPorts", "icmp:1"),
        ("FailsafeInboundHostPorts", "tcp:65536"),
        ("FailsafeInboundHostPorts", "tcp:10.0.0.0/33:1"),
        ("FailsafeInboundHostPorts", "tcp:[fd00::]"),
        ("IptablesMarkMask", "0x10000"),
        ("IptablesMarkMask", "none"),
        ("RouteTableRange", "1-251"),
        ("RouteTableRanges", "9-1"),
        ("RouteTableRanges", "1-4294967295"),
        ("DeviceRouteSourceAddress", "fd00::1"),
        ("NATPortRange", "http"),
        ("EtcdEndpoints", "http://a:1,https://b:1"),
        ("EtcdEndpoints", "http://user@a:1"),
        ("OpenstackRegion", "Big_Region"),
        ("FeatureGates", "=x"),
        ("HealthTimeoutOverrides", "a=soon"),
        ("LogPrefix", "two\nlines"),
    ],
)
def test_a_bad_value_leaves_the_default_and_says_all_about_it(name: str, text: str) -> None:
    config, problems = resolved(environment={name: text})
    assert difference(config, FelixConfig()).changed == {"hostname"}
    assert [(problem.parameter, problem.source, problem.value) for problem in problems] == [(name, "environment", text)]
    assert problems[0].reason
    assert problems[0].allowed == PARAMETERS[ATTRIBUTES[name.lower()]].form.allowed
    assert problems[0].is_vital is PARAMETERS[ATTRIBUTES[name.lower()]].is_vital


def test_the_first_layer_that_speaks_wins() -> None:
    layers = [{"LogPrefix": name} for name in ("environment", "file", "node", "selector", "everywhere")]
    for first in range(5):
        config, problems = resolved(*([{}] * first), *layers[first:])
        assert config.log_prefix == layers[first]["LogPrefix"]
        assert problems == []


def test_an_empty_text_says_nothing() -> None:
    assert resolved(environment={"LogPrefix": "  "}, file={"LogPrefix": "x"})[0].log_prefix == "x"


def test_a_bad_value_does_not_bring_back_what_it_overrides() -> None:
    config, problems = resolved(environment={"VXLANPort": "?"}, everywhere={"VXLANPort": "1"})
    assert config.vxlan_port == 4789
    assert len(problems) == 1


def test_a_bad_value_is_told_even_where_another_source_beats_it() -> None:
    config, problems = resolved(environment={"VXLANPort": "1"}, everywhere={"VXLANPort": "?"})
    assert config.vxlan_port == 1
    assert [problem.source for problem in problems] == ["datastore (global)"]


def test_the_datastore_cannot_move_felix_to_another_datastore_or_host() -> None:
    config, problems = resolved(for_node={"FelixHostname": "evil", "EtcdAddr": "evil:1"})
    assert (config.hostname, config.etcd_addr) == ("node-1", "127.0.0.1:2379")
    assert {problem.parameter for problem in problems} == {"FelixHostname", "EtcdAddr"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("LogPrefiks", "x", "is not a parameter"),
        ("BPFEnabled", "true", "no eBPF dataplane"),
        ("BPFEnabled", "false", None),
        ("BPFMapSizeRoute", "1", None),
        ("GoGCThreshold", "40", None),
        ("DebugPort", "6060", None),
    ],
)
def test_unknown_parameters_are_told_and_those_without_effect_are_not(name: str, text: str, says: str | None) -> None:
    problems = resolved(everywhere={name: text})[1]
    assert len(problems) == (says is not None)
    assert says is None or says in str(problems[0])


@pytest.mark.parametrize(
    "file",
    [
        {"TyphaKeyFile": "/k"},
        {"TyphaKeyFile": "/k", "TyphaCertFile": "/c", "TyphaCAFile": "/a"},
        {"TyphaCN": "typha"},
        {"EtcdAddr": "none"},
    ],
)
def test_settings_that_need_each_other_are_told(file: dict[str, str]) -> None:
    problems = resolved(file=file)[1]
    assert [problem.is_vital for problem in problems] == [True]


def test_complete_tls_settings_are_no_problem() -> None:
    names = ("TyphaKeyFile", "TyphaCertFile", "TyphaCAFile", "TyphaURISAN")
    assert resolved(file=dict.fromkeys(names, "/x"))[1] == []


def test_a_host_without_name_is_a_vital_problem() -> None:
    assert [problem.is_vital for problem in resolve({}, {}, {}, {}, {})[1]] == [True]


TEXTS = st.text(alphabet="0179aenotu,:;=/-.[]()*+\n\\%é\u0663\ud800", max_size=12) | st.sampled_from(
    ["none", "true", "tcp:1"]
)


@given(st.dictionaries(st.sampled_from([known.name for known in PARAMETERS.values()]), TEXTS, max_size=6))
def test_no_text_breaks_it(layer: dict[str, str]) -> None:
    config, problems = resolved(environment=layer)
    assert all(problem.parameter and str(problem) for problem in problems)
    assert resolved(environment=layer)[0] == config


def test_a_change_of_log_level_needs_no_restart_but_one_of_the_mask_does() -> None:
    old = resolved()[0]
    new = resolved(everywhere={"LogSeverityScreen": "debug", "IptablesMarkMask": "0xff0000"})[0]
    found = difference(old, new)
    assert found.changed == {"log_severity_screen", "iptables_mark_mask"}
    assert found.restart == {"iptables_mark_mask"}
    assert difference(old, new, also_live={"iptables_mark_mask"}).restart == frozenset()
    assert difference(old, old).changed == frozenset()


def test_every_field_is_a_parameter_with_a_name_of_its_own() -> None:
    assert len(ATTRIBUTES) == len(PARAMETERS) == len(fields(FelixConfig))


def test_every_field_of_the_resource_is_known() -> None:
    names = [parameter_name(info.alias or "").lower() for info in FelixConfigurationSpec.model_fields.values()]
    unknown = [name for name in names if name not in ATTRIBUTES and not WITHOUT_EFFECT.fullmatch(name)]
    assert unknown == ["nodeselector"]


def test_names_of_the_resource_and_of_felix_are_written_alike() -> None:
    names = {parameter_name(info.alias or "") for info in FelixConfigurationSpec.model_fields.values()}
    known = {parameter.name for parameter in PARAMETERS.values()}
    assert {name for name in names if name.lower() in ATTRIBUTES} <= known


def test_variables_of_the_environment_are_found_in_any_case() -> None:
    environ = {"FELIX_LOGPREFIX": "a", "felix_ipv6support": "false", "FELIX_": "x", "PATH": "/", "felix_logprefix": "b"}
    assert environment_layer(environ) == {"LogPrefix": "a", "Ipv6Support": "false"}


def test_felix_cfg_is_read() -> None:
    text = """\ufeff
    # comment
    [global]
    LogPrefix = a b ; comment
    MetadataAddr: none
    InterfaceExclude = "a,/x;y/"  # comment
    ; another
    EtcdEndpoints = http://a:2379
    nonsense
    = x
    """
    layer, problems = file_layer(text)
    assert layer == {
        "LogPrefix": "a b",
        "MetadataAddr": "none",
        "InterfaceExclude": "a,/x;y/",
        "EtcdEndpoints": "http://a:2379",
    }
    assert [(problem.parameter, problem.value) for problem in problems] == [("line 9", "nonsense"), ("line 10", "= x")]


def test_openstack_is_recognised_by_what_only_it_has() -> None:
    assert not resolved()[0].is_openstack
    for everywhere in ({"ClusterType": "a,OpenStack"}, {"MetadataPort": "1"}, {"InterfacePrefix": "tap"}):
        assert resolved(everywhere=everywhere)[0].is_openstack


def test_who_asks_for_what_is_not_built_is_told() -> None:
    config, problems = resolve({"genericxdpenabled": "true"}, {}, {}, {}, {"AWSSrcDstCheck": "Disable"}, hostname="n")
    assert config.generic_xdp_enabled
    assert sorted(str(one) for one in problems) == [
        "AWSSrcDstCheck = 'Disable' (all sources): has no effect: nothing is changed at AWS",
        "GenericXDPEnabled = 'True' (all sources): has no effect: untracked policies are in the packet filter, not in XDP",
    ]
