"""How Felix' parameters are written, in the environment, in felix.cfg and in the datastore alike. Source: Calico's config."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from felix.desired import PortRange
from integration.resources.fields import DSCP_NAMES, duration_s, parse_address, parse_network, port_range

T = TypeVar("T")

MAX_SECONDS = 1e9  # 30 years: what is above is a mistake, and no timer's business
RESERVED_TABLES = (253, 254, 255)  # default, main and local
MAX_TABLES = 65535


class ProtoPort(NamedTuple):
    """`protocol` is tcp, udp or sctp; `net` is empty for every address."""

    protocol: str
    port: int
    net: str = ""


class TableRange(NamedTuple):
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How one parameter is written. `parse` raises ValueError; `zero` is what `none` means; `allowed` is for people."""

    parse: Callable[[str], T]
    zero: T
    allowed: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """`is_local`: the datastore has no say. `is_vital`: a bad value ends Calico's Felix. `is_live`: no restart on change."""

    name: str
    form: Form[Any]
    is_local: bool
    is_vital: bool
    has_no_zero: bool
    is_live: bool


LOCAL, VITAL, NON_ZERO, LIVE = "local", "vital", "non-zero", "live"


def parameter(name: str, form: Form[Any], default: str, *flags: str) -> Any:
    """A field of FelixConfig; `default` is written as a user would write it, "" being the form's zero."""
    described = Parameter(name, form, LOCAL in flags, VITAL in flags, NON_ZERO in flags, LIVE in flags)
    return field(default=form.parse(default) if default else form.zero, metadata={"parameter": described})


def _boolean(raw: str) -> bool:
    lower = raw.lower()
    if lower in ("true", "1", "yes", "y", "t"):
        return True
    if lower in ("false", "0", "no", "n", "f"):
        return False
    raise ValueError("is neither true nor false")


BOOLEAN = Form(_boolean, False, "true or false")
OPTIONAL_BOOLEAN: Form[bool | None] = Form(_boolean, None, "true or false")


def whole(low: int = 0, high: int = 2**31 - 1) -> Form[int]:
    """A whole number, decimal or 0x…"""

    def parse(raw: str) -> int:
        try:
            number = int(raw, 0)
        except ValueError:
            raise ValueError("is not a whole number") from None
        if not low <= number <= high:
            raise ValueError("is out of range")
        return number

    return Form(parse, 0, f"{low} to {high}")


def _seconds(raw: str) -> float:
    try:
        number = float(raw)
    except ValueError:
        # Calico takes bare numbers only; `90s` is what people write, and cannot mean anything else.
        number = duration_s(raw)
    if not math.isfinite(number) or not 0 <= number <= MAX_SECONDS:
        raise ValueError("is out of range")
    return number


SECONDS = Form(_seconds, 0.0, "seconds, such as 90 or 0.5")


def _millis(raw: str) -> float:
    return _seconds(raw) if raw[-1:].isalpha() else _seconds(raw) / 1000


MILLIS = Form(_millis, 0.0, "milliseconds, such as 50")


def one_of(*options: str) -> Form[str]:
    """One of these, in any case; the value has the case given here."""
    canonical = {option.lower(): option for option in options}

    def parse(raw: str) -> str:
        try:
            return canonical[raw.lower()]
        except KeyError:
            raise ValueError("is unknown") from None

    return Form(parse, "", ", ".join(options))


def text(pattern: str = r".*", allowed: str = "any text on one line") -> Form[str]:
    compiled = re.compile(pattern)

    def parse(raw: str) -> str:
        if not compiled.fullmatch(raw):
            raise ValueError("is malformed")
        return raw

    return Form(parse, "", allowed)


TEXT = text()
HOSTNAME = text(r"[a-zA-Z0-9_.-]+", "letters, digits and _.-")
HOST_ADDRESS = text(r"[a-zA-Z0-9:._+-]{1,64}", "a name or an address of at most 64 characters")
AUTHORITY = text(r"[^:/\s]+:[0-9]+|\[[0-9a-fA-F:.]+\]:[0-9]+", "HOST:PORT")
INTERFACE = text(r"[a-zA-Z0-9:._+-]{1,15}", "at most 15 letters, digits and :._+-")
LOG_RATE = text(r"[1-9][0-9]{0,3}/(second|minute|hour|day)", "such as 10/second, at most 9999")
REGION = text(r"(?=.{1,46}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?", "at most 46 of a-z, 0-9 and inner -")


def listed(form: Form[T], separator: str = ",") -> Form[tuple[T, ...]]:
    """Comma-separated; blanks around the items and empty items do not count."""

    def parse(raw: str) -> tuple[T, ...]:
        return tuple(form.parse(item.strip()) for item in raw.split(separator) if item.strip())

    return Form(parse, (), f"comma-separated: {form.allowed}")


def at_least_one(form: Form[tuple[T, ...]]) -> Form[tuple[T, ...]]:
    def parse(raw: str) -> tuple[T, ...]:
        found = form.parse(raw)
        if not found:
            raise ValueError("is empty")
        return found

    return Form(parse, (), form.allowed)


INTERFACE_PREFIXES = at_least_one(listed(text(r"[a-zA-Z0-9_-]{1,15}", "at most 15 letters, digits and _-")))


def address(version: int) -> Form[str]:
    return Form(lambda raw: str(parse_address(raw, version)), "", f"an IPv{version} address")


IPV4_NETS = listed(Form(lambda raw: str(parse_network(raw, 4)), "", "an IPv4 address or CIDR"))


def _pattern(raw: str) -> re.Pattern[str]:
    try:
        return re.compile(raw)
    except (re.error, RecursionError, OverflowError):
        raise ValueError("is not a regular expression") from None


PATTERN: Form[re.Pattern[str] | None] = Form(_pattern, None, "a regular expression")


def _interface_pattern(raw: str) -> re.Pattern[str]:
    if re.fullmatch(r"/\S+/", raw):
        return _pattern(raw[1:-1])
    if re.fullmatch(r"[a-zA-Z0-9_.-]{1,15}", raw):
        return re.compile(f"^{re.escape(raw)}$")
    raise ValueError("is neither an interface's name nor /REGEX/")


INTERFACE_PATTERNS = listed(Form(_interface_pattern, re.compile("(?!)"), "interface names or /regular expressions/"))

PROTO_PORT = re.compile(
    r"(?:(?P<protocol>[a-zA-Z]+):)?(?:(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[0-9./]+)):)?(?P<port>[0-9]{1,5})"
)


def _proto_port(raw: str) -> ProtoPort:
    found = PROTO_PORT.fullmatch(raw)
    if not found or int(found["port"]) > 65535:
        raise ValueError("is not a port")
    protocol = (found["protocol"] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"has protocol {protocol}")
    net = found["v6"] or found["v4"] or ""
    return ProtoPort(protocol, int(found["port"]), str(parse_network(net)) if net else "")


PROTO_PORTS = listed(Form(_proto_port, ProtoPort("tcp", 0), "tcp:22, udp:10.0.0.0/8:53, tcp:[fd00::/64]:179"))


def _port_range(raw: str) -> PortRange:
    found = port_range(raw)
    if found is None:
        raise ValueError("is not numeric")
    return PortRange(*found)


PORT_RANGE: Form[PortRange | None] = Form(_port_range, None, "a port or a range such as 30000:32767")
PORT_RANGES = listed(Form(_port_range, PortRange(0, 0), PORT_RANGE.allowed))


def _mark_mask(raw: str) -> int:
    mask = whole(1, 0xFFFF_FFFF).parse(raw)
    if mask.bit_count() < 5:
        raise ValueError("has fewer than five bits")
    return mask


MARK_MASK = Form(_mark_mask, 0, "a mask of at least five of 32 bits, such as 0xffff0000")


def _table_range(raw: str) -> TableRange:
    found = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", raw)
    if not found:
        raise ValueError("is not a range")
    first, last = int(found[1]), int(found[2])
    if not 1 <= first <= last <= 0xFFFF_FFFF:
        raise ValueError("is out of range, or ends before it begins")
    return TableRange(first, last)


def _old_table_range(raw: str) -> TableRange:
    found = _table_range(raw)
    if found.last > 250:
        raise ValueError("is out of range")
    return found


def _table_ranges(raw: str) -> tuple[TableRange, ...]:
    found = listed(Form(_table_range, TableRange(0, 0), "")).parse(raw)
    if sum(last - first + 1 for first, last in found) > MAX_TABLES:
        raise ValueError(f"has more than {MAX_TABLES} tables")
    return found


OLD_TABLE_RANGE: Form[TableRange | None] = Form(_old_table_range, None, "FIRST-LAST, within 1 to 250")
TABLE_RANGES: Form[tuple[TableRange, ...]] = Form(_table_ranges, (), "FIRST-LAST, comma-separated, such as 1-250")


def _pairs(raw: str) -> tuple[tuple[str, str], ...]:
    found = {}
    for item in filter(None, (item.strip() for item in raw.split(","))):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ValueError("is not NAME=VALUE")
        found[name.strip()] = value.strip()
    return tuple(sorted(found.items()))


PAIRS: Form[tuple[tuple[str, str], ...]] = Form(_pairs, (), "NAME=VALUE, comma-separated")


def _duration_pairs(raw: str) -> tuple[tuple[str, float], ...]:
    return tuple((name, _seconds(value)) for name, value in _pairs(raw))


DURATION_PAIRS: Form[tuple[tuple[str, float], ...]] = Form(
    _duration_pairs, (), "NAME=DURATION, such as Graph=1m,Loop=90s"
)


def _dscp(raw: str) -> int:
    return DSCP_NAMES[raw.upper()] if raw.upper() in DSCP_NAMES else whole(0, 63).parse(raw)


DSCP = Form(_dscp, 0, "0 to 63, or a name such as AF11")


def _endpoints(raw: str) -> tuple[str, ...]:
    found = listed(text(r"https?://[^/\s?#@]+/?", "")).parse(raw)
    if len({url.partition(":")[0] for url in found}) > 1:
        raise ValueError("has http beside https")
    return tuple(url.rstrip("/") for url in found)


ENDPOINTS: Form[tuple[str, ...]] = Form(_endpoints, (), "http(s)://HOST:PORT, comma-separated, all of one scheme")
