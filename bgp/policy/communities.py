"""Communities as people write them, and the octets they stand for.

| written | octets | RFC |
|---|---|---|
| `65000:1`, `no-export` | 4 | 1997 |
| `64512:1:2` | 12 | 8092 |
| `rt:65000:1`, `soo:192.0.2.1:7`, `0x0002fde800000001` | 8 | 4360, 5668 |
"""

from __future__ import annotations

import ipaddress

WELL_KNOWN = {
    "graceful-shutdown": bytes.fromhex("ffff0000"),  # RFC 8326
    "accept-own": bytes.fromhex("ffff0001"),  # RFC 7611
    "llgr-stale": bytes.fromhex("ffff0006"),  # RFC 9494
    "no-llgr": bytes.fromhex("ffff0007"),  # RFC 9494
    "blackhole": bytes.fromhex("ffff029a"),  # RFC 7999
    "no-export": bytes.fromhex("ffffff01"),  # RFC 1997
    "no-advertise": bytes.fromhex("ffffff02"),  # RFC 1997
    "no-export-subconfed": bytes.fromhex("ffffff03"),  # RFC 1997
    "no-peer": bytes.fromhex("ffffff04"),  # RFC 3765
}
_NAMES = {octets: name for name, octets in WELL_KNOWN.items()}

# Low-order type octet of an extended community, RFC 4360 §4 and §5.
_SUBTYPES = {"rt": 0x02, "soo": 0x03}
_SUBTYPE_NAMES = {number: name for name, number in _SUBTYPES.items()}
_TWO_OCTET_AS, _IPV4, _FOUR_OCTET_AS = 0x00, 0x01, 0x02

ALLOWED = "65000:1, 64512:1:2 (large), rt:65000:1 or soo:192.0.2.1:1 (extended), or a name such as no-export"


def parse_community(text: str) -> bytes:
    """Return 4 (standard), 8 (extended) or 12 octets (large). Raises ValueError, which says what is allowed."""
    if (octets := WELL_KNOWN.get(text.lower())) is not None:
        return octets
    if text.startswith("0x"):
        return _parse_hexadecimal(text)
    parts = text.split(":")
    if parts[0] in _SUBTYPES and len(parts) == 3:
        return _parse_extended(text, *parts)
    if len(parts) == 2:
        return b"".join(_number(part, 16, text) for part in parts)
    if len(parts) == 3:
        return b"".join(_number(part, 32, text) for part in parts)
    raise ValueError(f"{text!r} is not a community; allowed: {ALLOWED}")


def community_text(octets: bytes) -> str:
    """The inverse of `parse_community`."""
    if len(octets) == 4:
        return _NAMES.get(octets) or f"{int.from_bytes(octets[:2], 'big')}:{int.from_bytes(octets[2:], 'big')}"
    if len(octets) == 12:
        return ":".join(str(int.from_bytes(octets[at : at + 4], "big")) for at in (0, 4, 8))
    name = _SUBTYPE_NAMES.get(octets[1])
    if name is None or octets[0] not in (_TWO_OCTET_AS, _IPV4, _FOUR_OCTET_AS):
        return "0x" + octets.hex()
    cut = 4 if octets[0] == _TWO_OCTET_AS else 6
    if octets[0] == _IPV4:
        first = str(ipaddress.IPv4Address(octets[2:6]))
    else:
        first = str(int.from_bytes(octets[2:cut], "big"))
        if octets[0] == _FOUR_OCTET_AS and int(first) <= 0xFFFF:
            return "0x" + octets.hex()  # rt:1:1 means the two-octet form
    return f"{name}:{first}:{int.from_bytes(octets[cut:], 'big')}"


def _parse_extended(text: str, kind: str, administrator: str, assigned: str) -> bytes:
    if "." in administrator:
        try:
            first = bytes([_IPV4, _SUBTYPES[kind]]) + ipaddress.IPv4Address(administrator).packed
        except ipaddress.AddressValueError:
            raise ValueError(f"{text!r}: {administrator} is not an IPv4 address") from None
        return first + _number(assigned, 16, text)
    number = int.from_bytes(_number(administrator, 32, text), "big")
    if number <= 0xFFFF:
        return bytes([_TWO_OCTET_AS, _SUBTYPES[kind]]) + number.to_bytes(2, "big") + _number(assigned, 32, text)
    return bytes([_FOUR_OCTET_AS, _SUBTYPES[kind]]) + number.to_bytes(4, "big") + _number(assigned, 16, text)


def _parse_hexadecimal(text: str) -> bytes:
    digits = text[2:]
    if len(digits) != 16 or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise ValueError(f"{text!r} is not an extended community: 0x takes exactly 16 hexadecimal digits")
    return bytes.fromhex(digits)


def _number(digits: str, bits: int, text: str) -> bytes:
    # isdecimal() alone takes other scripts' digits; a long run of digits is refused before int() has to chew on it.
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 10 or int(digits) >> bits:
        raise ValueError(f"{text!r}: {digits!r} is not a number from 0 to {(1 << bits) - 1}")
    return int(digits).to_bytes(bits // 8, "big")
