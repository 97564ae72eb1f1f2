"""What a FelixConfiguration says, as Felix' parameters."""

from __future__ import annotations

from typing import Any

import pytest

from felix.config_layers import DURATIONS, TEXTS, parameter_name, parameters_of
from integration.resources.models.felix_configuration import FelixConfigurationSpec


@pytest.mark.parametrize(
    ("field", "value", "name", "text"),
    [
        ("logSeverityScreen", "Debug", "LogSeverityScreen", "Debug"),
        ("ipipEnabled", True, "IpInIpEnabled", "true"),
        ("vxlanMTUV6", 1430, "VXLANMTUV6", "1430"),
        ("ipv6Support", False, "Ipv6Support", "false"),
        ("ipv4NormalRoutePriority", 1024, "IPv4NormalRoutePriority", "1024"),
        ("nftablesMode", "Enabled", "NFTablesMode", "Enabled"),
        ("nftablesMarkMask", 4294901760, "NftablesMarkMask", "4294901760"),
        ("routeRefreshInterval", "1m30s", "RouteRefreshInterval", "90"),
        ("reportingInterval", "500ms", "ReportingIntervalSecs", "0.5"),
        ("iptablesLockProbeInterval", "50ms", "IptablesLockProbeIntervalMillis", "50"),
        ("iptablesLockProbeInterval", "1500us", "IptablesLockProbeIntervalMillis", "1.5"),
        ("netlinkTimeout", "what", "NetlinkTimeoutSecs", "what"),
        ("kubeNodePortRanges", [80, "30000:32767"], "KubeNodePortRanges", "80,30000:32767"),
        ("kubeNodePortRanges", [], "KubeNodePortRanges", "none"),
        ("externalNodesList", ["10.0.0.1", "10.1.0.0/16"], "ExternalNodesCIDRList", "10.0.0.1,10.1.0.0/16"),
        ("failsafeInboundHostPorts", [], "FailsafeInboundHostPorts", "none"),
        (
            "failsafeInboundHostPorts",
            [
                {"protocol": "TCP", "port": 22},
                {"port": 23},
                {"protocol": "UDP", "port": 68, "net": "1.2.3.0/24"},
                {"protocol": "tcp", "port": 179, "net": "fd00::/64"},
            ],
            "FailsafeInboundHostPorts",
            "tcp:22,tcp:23,udp:1.2.3.0/24:68,tcp:[fd00::/64]:179",
        ),
        ("routeTableRange", {"min": 1, "max": 250}, "RouteTableRange", "1-250"),
        ("routeTableRanges", [{"min": 1, "max": 2}, {"min": 256, "max": 300}], "RouteTableRanges", "1-2,256-300"),
        ("healthTimeoutOverrides", [{"name": "a", "timeout": "1m"}], "HealthTimeoutOverrides", "a=1m"),
        ("bpfConntrackTimeouts", {"tcpSynSent": "20s"}, "BPFConntrackTimeouts", "TCPSynSent=20s"),
        ("bpfLogFilters", {"all": "host 1.2.3.4"}, "BPFLogFilters", "all=host 1.2.3.4"),
    ],
)
def test_a_field_has_calicos_name_and_text(field: str, value: Any, name: str, text: str) -> None:
    assert parameters_of({field: value}) == {name: text}


def test_what_is_absent_says_nothing() -> None:
    assert parameters_of({"logPrefix": "", "vxlanEnabled": None, "nodeSelector": "all()"}) == {}


@pytest.mark.parametrize("value", ["22", 22, [22], {"port": 22}, [None], True])
@pytest.mark.parametrize("field", [*sorted(set(TEXTS) - DURATIONS), "routeRefreshInterval"])
def test_a_value_of_the_wrong_shape_becomes_some_text(field: str, value: Any) -> None:
    assert len(parameters_of({field: value})) == 1


def test_an_annotation_beats_the_field_whatever_its_case() -> None:
    annotations = {
        "config.projectcalico.org/LOGPrefix": "x",
        "config.projectcalico.org/New": "1",
        "other/LogPrefix": "y",
    }
    assert parameters_of({"logPrefix": "field"}, annotations) == {"LOGPrefix": "x", "New": "1"}


def test_every_duration_of_the_resource_is_known_as_one() -> None:
    durations = {
        info.alias
        for info in FelixConfigurationSpec.model_fields.values()
        if any(getattr(rule, "allowed", "").startswith("a duration") for rule in info.metadata)
    }
    assert durations == DURATIONS | {"iptablesLockProbeInterval"}


def test_every_field_has_a_parameter_of_its_own() -> None:
    fields = [info.alias or "" for info in FelixConfigurationSpec.model_fields.values()]
    assert len({parameter_name(field).lower() for field in fields}) == len(fields)
