"""The kinds of value that Calico's resources are made of, with the rules for them."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from integration.resources.rules import Checked, Length, OneOf, Pattern, Range

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


def parse_network(text: str, version: int = 0, *, bare: bool = True) -> Network:
    """A CIDR, its host bits cleared; with `bare` also an address, which is a /32 or /128. Raises ValueError."""
    address, slash, length = text.partition("/")
    if not slash and not bare:
        raise ValueError("has no prefix length")
    parsed = parse_address(address, version)
    if not slash:
        return ipaddress.ip_network(parsed)
    if not length.isascii() or not length.isdigit() or len(length) > 3 or int(length) > parsed.max_prefixlen:
        raise ValueError(f"has a prefix length that IPv{parsed.version} does not have")
    return ipaddress.ip_network(f"{parsed}/{int(length)}", strict=False)


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

AsNumber = Annotated[int, BeforeValidator(parse_as_number)]
Duration = Annotated[str, Checked(duration_s, "a duration such as 90s, 1m30s or 500ms")]
NameText = Annotated[str, Length(253), Pattern(SUBDOMAIN, "lower-case letters, digits, '-' and '.', at most 253")]
SecretKeyText = Annotated[str, Length(253), Pattern(r"[-._a-zA-Z0-9]+", "letters, digits, '-', '_' and '.'")]
IPText = Annotated[str, Checked(parse_address, "an IPv4 or IPv6 address")]
IPv4Text = Annotated[str, Checked(lambda text: parse_address(text, 4), "an IPv4 address")]
IPv6Text = Annotated[str, Checked(lambda text: parse_address(text, 6), "an IPv6 address")]
PeerIPText = Annotated[
    str, Length(64), Checked(parse_address_and_port, "an address, IPv4:port or [IPv6]:port, port 1 to 65535")
]
NetText = Annotated[str, Checked(parse_network, "a CIDR such as 10.0.0.0/16 or fd00::/64")]
IPv4NetText = Annotated[str, Checked(lambda text: parse_network(text, 4), "an IPv4 CIDR such as 10.0.0.0/16")]
IPv6NetText = Annotated[str, Checked(lambda text: parse_network(text, 6), "an IPv6 CIDR such as fd00::/64")]
CIDRText = Annotated[str, Checked(lambda text: parse_network(text, bare=False), "a CIDR such as 10.0.0.0/16")]
MACText = Annotated[str, Pattern(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", "a MAC address such as 66:0a:0b:0c:0d:0e")]
WireguardKeyText = Annotated[str, Checked(check_wireguard_key, "32 octets in base64")]
CommunityText = Annotated[
    str, Length(32), Checked(parse_community, "aa:nn with both up to 65535, or aa:nn:mm with all up to 4294967295")
]
InterfaceGlob = Annotated[str, Pattern(r"[a-zA-Z0-9_.*-]{1,15}", "1 to 15 letters, digits, '_', '.', '-' and '*'")]
Port = Annotated[int, Range(1, 65535)]
RoutePriority = Annotated[int | None, Range(1, MAX_ROUTE_PRIORITY)]
SelectorText = Annotated[str, Length(1024)]
EnabledOrDisabled = Annotated[str, OneOf("Enabled", "Disabled")]
