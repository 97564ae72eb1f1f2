"""Cutting messages out of the byte stream (RFC 4271 §4.1, §6.1; RFC 8654).

The one part of the wire format that sees every octet from every peer, so the loop works on offsets: one read may hold
thousands of UPDATEs, and an object for each would cost more than what is done with it.
"""

from __future__ import annotations

import sys
from itertools import repeat

from bgp.wire.errors import NotificationError

MARKER = b"\xff" * 16
HEADER_OCTETS = 19
OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE_REFRESH = 1, 2, 3, 4, 5
MESSAGE_NAMES = {OPEN: "open", UPDATE: "update", NOTIFICATION: "notification", KEEPALIVE: "keepalive"} | {
    ROUTE_REFRESH: "refresh"
}
MAX_OCTETS = 4096
EXTENDED_MAX_OCTETS = 65535  # RFC 8654
KEEPALIVE_MESSAGE = MARKER + b"\x00\x13\x04"

# type → (least, most) octets, header included. RFC 8654 §3 leaves OPEN and KEEPALIVE at 4096. A short ROUTE-REFRESH
# has an error of its own, 7/1 (RFC 7313 §5), so only the header bounds it here.
_OCTETS = {
    OPEN: (29, MAX_OCTETS),
    UPDATE: (23, EXTENDED_MAX_OCTETS),
    NOTIFICATION: (21, EXTENDED_MAX_OCTETS),
    KEEPALIVE: (19, 19),
    ROUTE_REFRESH: (19, EXTENDED_MAX_OCTETS),
}
_LEAST_UPDATE = _OCTETS[UPDATE][0]


def cut(
    buffer: bytes, at: int, max_octets: int, limit: int = sys.maxsize
) -> tuple[list[int], NotificationError | None]:
    """Find the whole messages in `buffer` from offset `at`.

    Returns their bounds, n + 1 offsets for n messages (message i is buffer[bounds[i]:bounds[i + 1]], its type the
    19th octet), and the error in the header that follows them, if there is one (RFC 4271 §6.1: 1/1, 1/2 with the
    erroneous length, 1/3 with the type). What lies behind the last bound is the start of a message. `max_octets` is
    4096, or 65535 if we offered RFC 8654. At most `limit` messages.
    """
    bounds = [at]
    append = bounds.append
    size = len(buffer)
    last_header = size - HEADER_OCTETS
    starts_with = buffer.startswith
    for _ in repeat(None, limit):
        if at > last_header:
            break
        length = buffer[at + 16] << 8 | buffer[at + 17]
        if buffer[at + 18] != UPDATE or length < _LEAST_UPDATE or length > max_octets or not starts_with(MARKER, at):
            error = _header_error(buffer, at, max_octets)
            if error is not None:
                return bounds, error
        at += length
        if at > size:
            break
        append(at)
    return bounds, None


def _header_error(buffer: bytes, at: int, max_octets: int) -> NotificationError | None:
    if not buffer.startswith(MARKER, at):
        return NotificationError(1, 1, b"", "marker is not all ones")
    length_field = buffer[at + 16 : at + 18]
    length = int.from_bytes(length_field, "big")
    kind = buffer[at + 18]
    if not HEADER_OCTETS <= length <= max_octets:
        return NotificationError(1, 2, length_field, f"length {length} is not in {HEADER_OCTETS} to {max_octets}")
    if kind not in _OCTETS:
        return NotificationError(1, 3, bytes([kind]), f"message type {kind}")
    least, most = _OCTETS[kind]
    if not least <= length <= most:
        return NotificationError(1, 2, length_field, f"{MESSAGE_NAMES[kind].upper()} of {length} octets")
    return None


def message(kind: int, body: bytes) -> bytes:
    """The whole message; `body` is at most 65516 octets."""
    return MARKER + (HEADER_OCTETS + len(body)).to_bytes(2, "big") + bytes([kind]) + body
