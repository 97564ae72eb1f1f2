"""The kinds of value that Calico's resources are made of, with the rules for them."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from integration.resources.rules import Checked, Length, OneOf, Pattern, Range
from integration.resources.selector import parse as parse_selector

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ROUTE_PRIORITY = 2_147_483_646  # 2^31 - 2: LOCAL_PREF is 2^31 - 1 minus it, and must stay above 0


def parse_address(text: str, version: int = 0) -> Address:
    """An IP address without zone; of family `version` (4 or 6) if that is given. Raises ValueError."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("is not an IP address") from None
    if "%" in text:
        raise ValueError("has a zone")
    if version and address.version != version:
        raise ValueError(f"is not an IPv{version} address")
    return address


def parse_network(text: str, version: int = 0, *, bare: bool = True, masked: bool = False) -> Network:
    """A CIDR, its host bits cleared; with `masked` they must be clear already. Raises ValueError.

    With `bare` an address will do, and is a /32 or /128.
    """
    address, slash, length = text.partition("/")
    if not slash and not bare:
        raise ValueError("has no prefix length")
    parsed = parse_address(address, version)
    if not slash:
        return ipaddress.ip_network(parsed)
    if not length.isascii() or not length.isdigit() or len(length) > 3 or int(length) > parsed.max_prefixlen:
        raise ValueError(f"has a prefix length that IPv{parsed.version} does not have")
    network = ipaddress.ip_network(f"{parsed}/{int(length)}", strict=False)
    if masked and network.network_address != parsed:
        raise ValueError(f"has bits set behind its prefix length: {network} is meant")
    return network


def parse_address_and_port(text: str) -> tuple[Address, int | None]:
    """`10.0.0.1`, `10.0.0.1:179`, `fd00::1` or `[fd00::1]:179`. Raises ValueError."""
    bracketed = re.fullmatch(r"\[([^\]]*)\]:([0-9]{1,5})", text)
    plain = re.fullmatch(r"([0-9.]+):([0-9]{1,5})", text)
    found = bracketed or plain
    if not found:
        return parse_address(text), None
    port = int(found[2])
    if not 1 <= port <= 65535:
        raise ValueError(f"has port {port}, which is out of range")
    return parse_address(found[1], 6 if bracketed else 4), port


def parse_as_number(value: Any) -> int:
    """A number, its text, or `high.low` with both below 65536 (RFC 5396 asdot). Raises ValueError."""
    if isinstance(value, str):
        dotted = re.fullmatch(r"([0-9]{1,5})\.([0-9]{1,5})", value)
        if dotted and int(dotted[1]) < 65536 and int(dotted[2]) < 65536:
            return int(dotted[1]) * 65536 + int(dotted[2])
        if re.fullmatch(r"[0-9]{1,10}", value):
            value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0xFFFF_FFFF:
        raise ValueError("is not an AS number (0 to 4294967295, or high.low with both below 65536)")
    return value


DURATION_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION_PART = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"


def duration_s(text: str) -> float:
    """Seconds of a duration in Go's form: `90s`, `1h30m`, `1.5h`, `-2ms`, `0`. Raises ValueError."""
    unsigned = text.lstrip("+-") if text[:1] in ("+", "-") and text[1:2] not in ("+", "-") else text
    if unsigned == "0":
        return 0.0
    if not re.fullmatch(f"(?:{DURATION_PART})+", unsigned):
        raise ValueError("is not a duration")
    seconds = sum(float(number) * DURATION_UNITS_S[unit] for number, unit in re.findall(DURATION_PART, unsigned))
    return -seconds if text.startswith("-") else seconds


def parse_community(text: str) -> tuple[int, ...]:
    """`aa:nn` (16 bits each) or `aa:nn:mm` (32 bits each, RFC 8092). Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,10}(:[0-9]{1,10}){1,2}", text):
        raise ValueError("is not a community")
    parts = tuple(int(part) for part in text.split(":"))
    high = 0xFFFF if len(parts) == 2 else 0xFFFF_FFFF
    if max(parts) > high:
        raise ValueError(f"has a part above {high}")
    return parts


def check_wireguard_key(text: str) -> None:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(key) != 32:
        raise ValueError(f"has {len(key)} octets")


LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
PROTOCOLS = ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
PORT_PROTOCOLS: frozenset[Any] = frozenset({"TCP", "UDP", "SCTP", 6, 17, 132})
DSCP_NAMES = {
    "DF": 0, "EF": 46, "AF11": 10, "AF12": 12, "AF13": 14, "AF21": 18, "AF22": 20, "AF23": 22, "AF31": 26, "AF32": 28,
    "AF33": 30, "AF41": 34, "AF42": 36, "AF43": 38, "CS0": 0, "CS1": 8, "CS2": 16, "CS3": 24, "CS4": 32, "CS5": 40,
    "CS6": 48, "CS7": 56,
}  # fmt: skip


def protocol_of(value: int | str | None) -> int | str | None:
    """The number of a text of digits; names and numbers as they are. Calico takes `"6"` for 6, too."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value) else value


def check_protocol(value: int | str) -> None:
    """A name, or a number from 1 to 255. Raises ValueError."""
    protocol = protocol_of(value)
    if not (1 <= protocol <= 255 if isinstance(protocol, int) else protocol in PROTOCOLS):
        raise ValueError("is not a protocol")


def port_range(value: int | str) -> tuple[int, int] | None:
    """First and last port of `80`, `"80"` or `"80:90"`; None for a port's name. Raises ValueError."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]+(:[0-9]+)?", value):
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,128}", value):
            raise ValueError("is neither a port, a range nor a port's name")
        return None
    first, _, last = str(value).partition(":")
    low, high = int(first), int(last or first)
    if not (1 <= low <= 65535 and 1 <= high <= 65535):
        raise ValueError("is out of range")
    if low > high:
        raise ValueError("ends before it begins")
    return low, high


def check_port_name(text: str) -> None:
    """An IANA service name, as Kubernetes names ports."""
    if not re.fullmatch(r"[a-z0-9](-?[a-z0-9])*", text) or text.replace("-", "").isdigit():
        raise ValueError("is not a port's name")


def check_numeric_port(value: int | str) -> None:
    if port_range(value) is None:
        raise ValueError("is a port's name")


def check_dscp(value: int | str) -> None:
    if isinstance(value, str) and value in DSCP_NAMES:
        return
    if not re.fullmatch(r"[0-9]{1,2}", str(value)) or int(value) > 63:
        raise ValueError("is not a DSCP value")


QUALIFIED = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"


def check_qualified_name(key: str) -> None:
    """`[DOMAIN/]NAME`, as Kubernetes names labels. Raises ValueError."""
    domain, slash, name = key.rpartition("/")
    if slash and (len(domain) > 253 or not re.fullmatch(SUBDOMAIN, domain)):
        raise ValueError("has a domain that is none")
    if len(name) > 63:
        raise ValueError("has more than 63 characters")
    if not re.fullmatch(QUALIFIED, name):
        raise ValueError("is malformed")


def is_label_value(text: str) -> bool:
    return len(text) <= 63 and bool(re.fullmatch(f"({QUALIFIED})?", text))


def check_labels(labels: dict[str, str]) -> None:
    for name, value in labels.items():
        try:
            check_qualified_name(name)
        except ValueError as error:
            raise ValueError(f"has the name {name!r}, which {error}") from None
        if not is_label_value(value):
            raise ValueError(f"has under {name} the value {value!r}, which no label can have")


def check_annotations(annotations: dict[str, str]) -> None:
    check_labels(dict.fromkeys(map(str.lower, annotations), ""))


def check_log_filters(filters: dict[str, str]) -> None:
    for interface in filters:
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,15}", interface):
            raise ValueError(f"has the name {interface!r}, which no interface can have")


def check_regex(text: str) -> None:
    """Go's expressions are not quite Python's; what Python cannot compile for other reasons passes."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def named(check: Any, **options: Any) -> Any:
    return lambda text: check(text, **options)


INT_OR_STRING = (("x-kubernetes-int-or-string", True),)
CIDR_EXAMPLE = "a CIDR such as 10.0.0.0/16 or fd00::/64"

AsNumber = Annotated[int, BeforeValidator(parse_as_number), Range(0, 0xFFFF_FFFF)]
Duration = Annotated[str, Checked(duration_s, "a duration such as 90s, 1m30s or 500ms")]
NameText = Annotated[str, Length(253), Pattern(SUBDOMAIN, "lower-case letters, digits, '-' and '.', at most 253")]
SecretKeyText = Annotated[str, Length(253), Pattern(r"[-._a-zA-Z0-9]+", "letters, digits, '-', '_' and '.'")]
ContainerIDText = Annotated[str, Pattern(r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?", "letters, digits and inner '-'")]
PortName = Annotated[
    str, Length(15), Checked(check_port_name, "at most 15 of a-z, 0-9 and inner '-', at least one of them a letter")
]
IPText = Annotated[str, Checked(parse_address, "an IPv4 or IPv6 address")]
IPv4Text = Annotated[str, Checked(named(parse_address, version=4), "an IPv4 address")]
IPv6Text = Annotated[str, Checked(named(parse_address, version=6), "an IPv6 address")]
PeerIPText = Annotated[
    str, Length(64), Checked(parse_address_and_port, "an address, IPv4:port or [IPv6]:port, port 1 to 65535")
]
# Networks without host bits, or addresses.
NetText = Annotated[str, Checked(named(parse_network, masked=True), CIDR_EXAMPLE)]
IPv4NetText = Annotated[str, Checked(named(parse_network, version=4, masked=True), "an IPv4 CIDR such as 10.0.0.0/16")]
IPv6NetText = Annotated[str, Checked(named(parse_network, version=6, masked=True), "an IPv6 CIDR such as fd00::/64")]
# The same with a prefix length for sure.
StrictNetText = Annotated[str, Checked(named(parse_network, bare=False, masked=True), CIDR_EXAMPLE)]
# Networks with or without host bits, or addresses.
CIDRText = Annotated[str, Checked(parse_network, CIDR_EXAMPLE)]
IPv4CIDRText = Annotated[
    str, Checked(named(parse_network, version=4), "an IPv4 address, with prefix length or without")
]
IPv6CIDRText = Annotated[
    str, Checked(named(parse_network, version=6), "an IPv6 address, with prefix length or without")
]
MACText = Annotated[str, Pattern(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", "a MAC address such as 66:0a:0b:0c:0d:0e")]
WireguardKeyText = Annotated[str, Checked(check_wireguard_key, "32 octets in base64")]
CommunityText = Annotated[
    str, Length(32), Checked(parse_community, "aa:nn with both up to 65535, or aa:nn:mm with all up to 4294967295")
]
InterfaceName = Annotated[str, Pattern(r"\*|[a-zA-Z0-9_.-]{1,15}", "* or 1 to 15 letters, digits, '_', '.' and '-'")]
InterfaceGlob = Annotated[str, Pattern(r"[a-zA-Z0-9_.*-]{1,15}", "1 to 15 letters, digits, '_', '.', '-' and '*'")]
InterfaceFilter = Annotated[str, Pattern(r"[a-zA-Z0-9:._+-]{1,15}", "1 to 15 letters, digits and :._+-")]
RegexText = Annotated[str, Checked(check_regex, "a regular expression")]
ProtocolText = Annotated[
    int | str | None, Checked(check_protocol, f"{', '.join(PROTOCOLS)} or 1 to 255", INT_OR_STRING)
]
PortText = Annotated[
    int | str, Checked(port_range, "1 to 65535, a range such as 80:90, or a port's name", INT_OR_STRING)
]
NumericPort = Annotated[
    int | str, Checked(check_numeric_port, "1 to 65535, or a range such as 30000:32767", INT_OR_STRING)
]
DSCPText = Annotated[int | str | None, Checked(check_dscp, f"0 to 63, {', '.join(DSCP_NAMES)}", INT_OR_STRING)]
Port = Annotated[int | None, Range(1, 65535)]
RoutePriority = Annotated[int | None, Range(1, MAX_ROUTE_PRIORITY)]
PlainSelector = Annotated[str, Checked(parse_selector, "a selector such as role == 'db' && has(rack)")]
SelectorText = Annotated[PlainSelector, Length(1024)]
EnabledOrDisabled = Annotated[str, OneOf("Enabled", "Disabled")]
Labels = Annotated[dict[str, str], Checked(check_labels, "[DOMAIN/]NAME: VALUE, as Kubernetes' labels")]
Annotations = Annotated[dict[str, str], Checked(check_annotations, "[DOMAIN/]NAME: any text")]
LogFilters = Annotated[
    dict[str, str] | None, Checked(check_log_filters, "interfaces, all, weps or heps, each with an expression")
]
Order = int | float | None  # whole numbers stay whole when they are written
