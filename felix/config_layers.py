"""A FelixConfiguration resource as Felix' parameters: names and texts in the form that Calico's v1 model gives them.

The texts are what an environment variable or felix.cfg would hold, so that one parser serves every source. A value that
is malformed goes through as it stands: who resolves the layers (`felix.config`) names parameter and source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from integration.resources.fields import duration_s

ANNOTATION_PREFIX = "config.projectcalico.org/"

# Fields whose parameter is not the field's name with a capital: Calico's `confignamev1` tags and its Go names.
IRREGULAR = {
    "bpfConntrackMode": "BPFConntrackCleanupMode",
    "bpfMapSizePerCpuConntrack": "BPFMapSizePerCPUConntrack",
    "endpointReportingDelay": "EndpointReportingDelaySecs",
    "externalNodesList": "ExternalNodesCIDRList",
    "ipipEnabled": "IpInIpEnabled",
    "ipipMTU": "IpInIpMtu",
    "iptablesLockProbeInterval": "IptablesLockProbeIntervalMillis",
    "iptablesPostWriteCheckInterval": "IptablesPostWriteCheckIntervalSecs",
    "ipv6Support": "Ipv6Support",
    "netlinkTimeout": "NetlinkTimeoutSecs",
    "nftablesFlowTableOffload": "NFTablesFlowTableOffload",
    "nftablesMode": "NFTablesMode",
    "reportingInterval": "ReportingIntervalSecs",
    "reportingTTL": "ReportingTTLSecs",
    "usageReportingInitialDelay": "UsageReportingInitialDelaySecs",
    "usageReportingInterval": "UsageReportingIntervalSecs",
    "wireguardKeepAlive": "WireguardPersistentKeepAlive",
}
# First words that Calico's parameters write in another way than with one capital.
FIRST_WORDS = {
    "aws": "AWS", "bpf": "BPF", "ip": "IP", "ipv4": "IPv4", "ipv6": "IPv6", "mtu": "MTU", "nat": "NAT", "vxlan": "VXLAN", "xdp": "XDP",
}  # fmt: skip
DURATIONS = frozenset({
    "bpfIPFragTimeout", "bpfKubeProxyMinSyncPeriod", "dataplaneWatchdogTimeout", "debugSimulateCalcGraphHangAfter",
    "debugSimulateDataplaneApplyDelay", "debugSimulateDataplaneHangAfter", "endpointReportingDelay", "flowLogsFlushInterval",
    "interfaceRefreshInterval", "ipsetsRefreshInterval", "iptablesPostWriteCheckInterval", "iptablesRefreshInterval",
    "liveMigrationRouteConvergenceTime", "localSubnetL2ReachabilityRefreshInterval", "netlinkTimeout", "nftablesRefreshInterval",
    "reportingInterval", "reportingTTL", "routeRefreshInterval", "usageReportingInitialDelay", "usageReportingInterval",
    "wireguardKeepAlive", "xdpRefreshInterval",
})  # fmt: skip
# Says which nodes a FelixConfiguration is for; no parameter.
NOT_A_PARAMETER = frozenset({"nodeSelector"})


def parameters_of(spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> dict[str, str]:
    """Parameter name → text for every field of a FelixConfiguration's `spec` (as JSON) that says something.

    Null and "" say nothing; an empty list is `none`. `annotations` are the resource's: `config.projectcalico.org/NAME`
    beats the field, unchecked, as in Calico. Unknown fields come out under the name that the rule gives them.
    """
    found: dict[str, str] = {}
    for field, value in spec.items():
        if value is None or value == "" or field in NOT_A_PARAMETER:
            continue
        found[parameter_name(field)] = TEXTS.get(field, text_of)(value)
    # Felix looks parameters up without regard to case, so an annotation replaces whatever case the field's name has.
    lower = {name.lower(): name for name in found}
    for key, text in (annotations or {}).items():
        if key.startswith(ANNOTATION_PREFIX) and key != ANNOTATION_PREFIX:
            name = key.removeprefix(ANNOTATION_PREFIX)
            found.pop(lower.get(name.lower(), name), None)
            found[name] = text
    return {name: text for name, text in found.items() if text}


def parameter_name(field: str) -> str:
    """`vxlanMTUV6` → `VXLANMTUV6`, `ipipEnabled` → `IpInIpEnabled`."""
    if field in IRREGULAR:
        return IRREGULAR[field]
    end = next((at for at, letter in enumerate(field) if letter.isupper()), len(field))
    first = field[:end]
    return FIRST_WORDS.get(first, first[:1].upper() + first[1:]) + field[end:]


def text_of(value: Any) -> str:
    """The text of a boolean, number, text, list (by commas) or map (`a=1,b=2`)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={text_of(item)}" for name, item in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(text_of(item) for item in value) or "none"
    return str(value)


def seconds_text(value: Any, unit_s: float = 1.0) -> str:
    """`1m30s` → `90`, `50ms` → `0.05`, or in units of `unit_s` seconds."""
    try:
        number = duration_s(value) / unit_s
    except (TypeError, ValueError):
        return text_of(value)
    return f"{number:.12g}"


def millis_text(value: Any) -> str:
    return seconds_text(value, 1e-3)


def ports_text(value: Any) -> str:
    """`tcp:22,udp:10.0.0.0/8:53,tcp:[fd00::/64]:179`; `none` for an empty list."""
    if not isinstance(value, Sequence) or not all(isinstance(entry, Mapping) for entry in value):
        return text_of(value)
    return ",".join(map(_port_text, value)) or "none"


def _port_text(entry: Mapping[str, Any]) -> str:
    protocol, net, port = str(entry.get("protocol") or "TCP").lower(), entry.get("net"), entry.get("port")
    if not net:
        return f"{protocol}:{port}"
    return f"{protocol}:[{net}]:{port}" if ":" in str(net) else f"{protocol}:{net}:{port}"


def range_text(value: Any) -> str:
    """`{"min": 1, "max": 250}` → `1-250`."""
    return f"{value.get('min')}-{value.get('max')}" if isinstance(value, Mapping) else text_of(value)


def ranges_text(value: Any) -> str:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return text_of(value)
    return ",".join(map(range_text, value)) or "none"


def overrides_text(value: Any) -> str:
    """`[{"name": "CalculationGraph", "timeout": "1m"}]` → `CalculationGraph=1m`."""
    if not isinstance(value, Sequence) or not all(isinstance(entry, Mapping) for entry in value):
        return text_of(value)
    return ",".join(f"{entry.get('name')}={entry.get('timeout')}" for entry in value) or "none"


def conntrack_text(value: Any) -> str:
    """The timers of an object by their names in Felix: `CreationGracePeriod=10s,TCPSynSent=20s`."""
    if not isinstance(value, Mapping):
        return text_of(value)
    words = {"tcp": "TCP", "udp": "UDP", "icmp": "ICMP"}
    named = {}
    for name, timer in value.items():
        word = next((word for word in words if name.startswith(word)), "")
        named[words[word] + name[len(word) :] if word else name[:1].upper() + name[1:]] = timer
    return text_of(named)


TEXTS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(DURATIONS, seconds_text),
    "iptablesLockProbeInterval": millis_text,
    "failsafeInboundHostPorts": ports_text,
    "failsafeOutboundHostPorts": ports_text,
    "routeTableRange": range_text,
    "routeTableRanges": ranges_text,
    "healthTimeoutOverrides": overrides_text,
    "bpfConntrackTimeouts": conntrack_text,
}
