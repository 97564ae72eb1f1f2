"""Whose fault it is, and what happens next."""

from __future__ import annotations


class NotificationError(Exception):
    """The peer broke the protocol so badly that the session must be reset.

    Raised only by bgp/wire, caught only by Session, which answers with this NOTIFICATION (RFC 4271 §6).
    """

    def __init__(self, code: int, subcode: int, data: bytes = b"", text: str = "") -> None:
        super().__init__(code, subcode, data, text)
        self.code = code
        self.subcode = subcode
        self.data = data
        self.text = text

    def __str__(self) -> str:
        return f"{self.code}/{self.subcode} {notification_name(self.code, self.subcode)}" + (
            f": {self.text}" if self.text else ""
        )


NOTIFICATION_NAMES: dict[int, tuple[str, dict[int, str]]] = {
    1: ("Message Header Error", {1: "Connection Not Synchronized", 2: "Bad Message Length", 3: "Bad Message Type"}),
    2: (
        "OPEN Message Error",
        {
            1: "Unsupported Version Number",
            2: "Bad Peer AS",
            3: "Bad BGP Identifier",
            4: "Unsupported Optional Parameter",
            6: "Unacceptable Hold Time",
            7: "Unsupported Capability",
            11: "Role Mismatch",
        },
    ),
    3: (
        "UPDATE Message Error",
        {
            1: "Malformed Attribute List",
            2: "Unrecognized Well-known Attribute",
            3: "Missing Well-known Attribute",
            4: "Attribute Flags Error",
            5: "Attribute Length Error",
            6: "Invalid ORIGIN Attribute",
            8: "Invalid NEXT_HOP Attribute",
            9: "Optional Attribute Error",
            10: "Invalid Network Field",
            11: "Malformed AS_PATH",
        },
    ),
    4: ("Hold Timer Expired", {}),
    5: (
        "Finite State Machine Error",
        {
            1: "Unexpected Message in OpenSent",
            2: "Unexpected Message in OpenConfirm",
            3: "Unexpected Message in Established",
        },
    ),
    6: (
        "Cease",
        {
            1: "Maximum Number of Prefixes Reached",
            2: "Administrative Shutdown",
            3: "Peer De-configured",
            4: "Administrative Reset",
            5: "Connection Rejected",
            6: "Other Configuration Change",
            7: "Connection Collision Resolution",
            8: "Out of Resources",
            9: "Hard Reset",
            10: "BFD Down",
        },
    ),
    7: ("ROUTE-REFRESH Message Error", {1: "Invalid Message Length"}),
    8: ("Send Hold Timer Expired", {}),
}


def notification_name(code: int, subcode: int) -> str:
    name, subcodes = NOTIFICATION_NAMES.get(code, (f"Unknown Error {code}", {}))
    if subcode == 0:
        return name
    return f"{name}, {subcodes.get(subcode, f'subcode {subcode}')}"
