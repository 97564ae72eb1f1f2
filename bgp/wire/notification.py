"""NOTIFICATION messages (RFC 4271 §4.5) and what their data says to a person (RFC 8203, 9003, 8538, 4486)."""

from __future__ import annotations

from dataclasses import dataclass

from bgp.wire.errors import NotificationError, notification_name
from bgp.wire.framing import HEADER_OCTETS, MAX_OCTETS

MESSAGE_HEADER_ERROR, OPEN_ERROR, UPDATE_ERROR, HOLD_TIMER_EXPIRED, FSM_ERROR, CEASE = 1, 2, 3, 4, 5, 6
ROUTE_REFRESH_ERROR, SEND_HOLD_TIMER_EXPIRED = 7, 8
# Subcodes of Cease (RFC 4486, RFC 8538)
PREFIX_LIMIT, ADMIN_SHUTDOWN, PEER_DECONFIGURED, ADMIN_RESET, CONNECTION_REJECTED = 1, 2, 3, 4, 5
CONFIGURATION_CHANGE, COLLISION, OUT_OF_RESOURCES, HARD_RESET, BFD_DOWN = 6, 7, 8, 9, 10

# Whether the peer takes more is not known before its OPEN (RFC 8654 §4), so none of ours is longer.
_MAX_DATA = MAX_OCTETS - HEADER_OCTETS - 2
_MAX_COMMUNICATION = 255  # RFC 9003 §2
_SHOWN_OCTETS = 64


@dataclass(frozen=True, slots=True)
class Notification:
    """As it stood on the wire; str() is for people, without control characters."""

    code: int
    subcode: int
    data: bytes = b""

    @property
    def is_hard_reset(self) -> bool:
        """RFC 8538 §3: the peer's routes must go although graceful restart was negotiated."""
        return (self.code, self.subcode) == (CEASE, HARD_RESET)

    @property
    def text(self) -> str:
        """What the data says: the shutdown communication, the prefix limit, else its octets in hexadecimal."""
        if self.code == CEASE and self.subcode in (ADMIN_SHUTDOWN, ADMIN_RESET):
            return read_communication(self.data)
        if self.code == CEASE and self.subcode == PREFIX_LIMIT and len(self.data) == 7:
            afi, safi = int.from_bytes(self.data[:2], "big"), self.data[2]
            return f"AFI {afi} SAFI {safi}, limit {int.from_bytes(self.data[3:], 'big')}"
        if self.is_hard_reset and len(self.data) >= 2 and self.data[:2] != bytes([CEASE, HARD_RESET]):
            # One inside another has no meaning, and two thousand of them fit: those stay hexadecimal.
            return str(Notification(self.data[0], self.data[1], self.data[2:]))
        more = f" … ({len(self.data)} octets)" if len(self.data) > _SHOWN_OCTETS else ""
        return self.data[:_SHOWN_OCTETS].hex() + more

    def __str__(self) -> str:
        name = f"{self.code}/{self.subcode} {notification_name(self.code, self.subcode)}"
        text = self.text
        return f"{name}: {text}" if text else name


def parse_notification(body: bytes) -> Notification:
    """The body after the header. Raises NotificationError 1/2 under 2 octets, which framing does not let pass."""
    if len(body) < 2:
        length = (HEADER_OCTETS + len(body)).to_bytes(2, "big")
        raise NotificationError(MESSAGE_HEADER_ERROR, 2, length, "NOTIFICATION under 21 octets")
    return Notification(body[0], body[1], body[2:])


def encode_notification(code: int, subcode: int, data: bytes = b"") -> bytes:
    """The whole message; data beyond 4096 octets of message is cut off."""
    from bgp.wire import exabgp_codec

    return exabgp_codec.encode_notification(code, subcode, data[:_MAX_DATA])


def hard_reset(code: int, subcode: int, data: bytes) -> tuple[int, int, bytes]:
    """Code, subcode and data of a Hard Reset that carries this notification (RFC 8538 §3)."""
    return CEASE, HARD_RESET, bytes([code, subcode]) + data


def shutdown_communication(text: str) -> bytes:
    """Data of Cease 6/2 or 6/4: a length octet and at most 255 octets of UTF-8, cut between characters (RFC 9003)."""
    if not text:
        return b""
    octets = text.encode("utf-8", "replace")[:_MAX_COMMUNICATION]
    octets = octets.decode("utf-8", "ignore").encode()  # drops a character that the cut went through
    return bytes([len(octets)]) + octets


def read_communication(data: bytes) -> str:
    """The text of a shutdown communication. RFC 9003 §4 wants what is malformed logged: it is shown escaped."""
    if not data:
        return ""
    length, octets = data[0], data[1:]
    text = printable(octets[:length].decode("utf-8", "surrogateescape"))
    if length > len(octets):
        return f"{text} (malformed: {length} octets announced, {len(octets)} there)"
    if length < len(octets):
        return f"{text} (and {len(octets) - length} stray octets)"
    return text


def prefix_limit_data(family_key: bytes, limit: int) -> bytes:
    """Data of Cease 6/1 (RFC 4486 §4): AFI, SAFI and the upper bound."""
    return family_key + min(limit, 0xFFFFFFFF).to_bytes(4, "big")


def printable(text: str) -> str:
    """What a peer says, made safe for a log line or a terminal: control and format characters are escaped."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:  # an octet that is not UTF-8, by way of surrogateescape
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
