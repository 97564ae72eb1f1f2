"""ExaBGP 5 as the codec of everything but UPDATE. The only module that imports it, and only when first needed.

ExaBGP has no documented library interface, keeps state in its modules and was not written for hostile callers of its
parts. So nothing of it leaves this module, it is given one capability or one attribute at a time, and these guards hold:

* it reads no environment file, looks up no host name, and its logging does nothing (uninitialised, it raises);
* community attributes are decoded in linear time (its own takes half a minute for 16,000 of them);
* attributes 22, 26, 29 and 40 are opaque: their decoders can raise anything;
* every AS number ever seen stays in its cache for ever, so the cache is emptied after use;
* any exception but its own Notify is a defect there, and never one of the caller's.
"""

from __future__ import annotations

import os
from functools import cache, lru_cache
from typing import Any

from bgp.wire.errors import NotificationError
from bgp.wire.notification import OPEN_ERROR, printable
from bgp.wire.open import (
    AS_TRANS,
    CISCO_REFRESH,
    EXTENDED_MESSAGE,
    EXTENDED_NEXT_HOP,
    FOUR_OCTET_ASN,
    GRACEFUL_RESTART,
    MULTIPROTOCOL,
    REFRESH,
    VERSION,
    Capabilities,
    GracefulRestart,
    OpenMessage,
)

_RESTART_BIT, _NOTIFICATION_BIT, _FORWARDING_BIT = 0x8, 0x4, 0x80
_OPAQUE_ATTRIBUTES = (22, 26, 29, 40)
_OPERATIONAL = 6  # a private message type of ExaBGP
_SHOWN_CHARACTERS = 200


class _Library:
    """The names used of ExaBGP, imported and guarded."""

    def __init__(self) -> None:
        os.environ["EXABGP_ENVFILE"] = os.devnull
        from exabgp.util import dns

        # Asked for at import by the hostname capability; a resolver that hangs would stop every session.
        dns.__dict__.update(__host_name="localhost", __domain_name="localdomain")
        from exabgp.bgp.message import KeepAlive, Message, Notify, Open
        from exabgp.bgp.message.open.asn import ASN
        from exabgp.bgp.message.open.capability import ASN4, Graceful, MultiProtocol, NextHop, RouteRefresh
        from exabgp.bgp.message.open.capability import Capabilities as ExaCapabilities
        from exabgp.bgp.message.open.capability.capability import Capability
        from exabgp.bgp.message.open.capability.extended import ExtendedMessage
        from exabgp.bgp.message.open.holdtime import HoldTime
        from exabgp.bgp.message.open.routerid import RouterID
        from exabgp.bgp.message.open.version import Version
        from exabgp.bgp.message.refresh import RouteRefresh as RefreshMessage
        from exabgp.logger import log
        from exabgp.protocol.family import AFI, SAFI
        from exabgp.protocol.resource import Resource

        for name in ("debug", "info", "warning", "error", "critical", "fatal"):
            setattr(log, name, staticmethod(_say_nothing))
        Message.registered_message.pop(_OPERATIONAL, None)
        self.notify, self.open, self.keepalive, self.refresh_message = Notify, Open, KeepAlive, RefreshMessage
        self.asn, self.hold_time, self.router_id, self.version = ASN, HoldTime, RouterID, Version
        self.capabilities, self.capability = ExaCapabilities, Capability
        self.multiprotocol, self.asn4, self.graceful, self.next_hop = MultiProtocol, ASN4, Graceful, NextHop
        self.refresh, self.extended_message = RouteRefresh, ExtendedMessage
        self.afi, self.safi = AFI, SAFI
        self._resource = Resource
        self._guard_attributes()

    def _guard_attributes(self) -> None:
        from exabgp.bgp.message.direction import Direction
        from exabgp.bgp.message.update.attribute import (
            Attribute,
            Attributes,
            Communities,
            ExtendedCommunities,
            LargeCommunities,
        )
        from exabgp.bgp.message.update.attribute.community.extended import ExtendedCommunity
        from exabgp.bgp.message.update.attribute.community.initial.community import Community
        from exabgp.bgp.message.update.attribute.community.large.community import LargeCommunity

        self._make_linear(Communities, 4, Community)
        self._make_linear(LargeCommunities, 12, LargeCommunity)
        self._make_linear(ExtendedCommunities, 8, ExtendedCommunity.unpack)
        for code in _OPAQUE_ATTRIBUTES:
            for key in [key for key in Attribute.registered_attributes if key[0] == code]:
                del Attribute.registered_attributes[key]
            for known in (Attribute.attributes_known, Attribute.attributes_optional, Attribute.attributes_well_know):
                while code in known:
                    known.remove(code)
        self.attribute, self.attributes, self.incoming = Attribute, Attributes, Direction.IN

    def _make_linear(self, collection: Any, size: int, make: Any) -> None:
        def unpack(data: bytes, direction: Any = None, negotiated: Any = None) -> Any:
            if not data or len(data) % size:
                raise self.notify(3, 5, b"")
            instance = collection()
            instance.communities = [make(bytes(data[at : at + size])) for at in range(0, len(data), size)]
            return instance

        collection.unpack = staticmethod(unpack)

    def forget(self) -> None:
        """Empty the caches that a peer can fill."""
        for kept in (self.asn, self.asn4):
            self._resource.cache.get(kept, {}).clear()


def _say_nothing(*_: Any, **__: Any) -> None:
    pass


@cache
def _library() -> _Library:
    return _Library()


def prepare() -> None:
    _library()


# --- OPEN ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def encode_open(message: OpenMessage) -> bytes:
    """The whole message, once for all peers that are told the same; capabilities in ascending order of their codes, one optional parameter each."""
    exa = _library()
    wanted = message.capabilities
    capabilities = exa.capabilities()
    if wanted.families is not None:
        capabilities[MULTIPROTOCOL] = exa.multiprotocol()
        capabilities[MULTIPROTOCOL].extend(
            (exa.afi.create(afi), exa.safi.create(safi)) for afi, safi in wanted.families
        )
    if wanted.route_refresh:
        capabilities[REFRESH] = exa.refresh()
    if wanted.extended_next_hop:
        capabilities[EXTENDED_NEXT_HOP] = exa.next_hop(
            [(exa.afi.create(a), exa.safi.create(s), exa.afi.create(n)) for a, s, n in sorted(wanted.extended_next_hop)]
        )
    if wanted.extended_message:
        capabilities[EXTENDED_MESSAGE] = exa.extended_message()
    if wanted.graceful_restart is not None:
        capabilities[GRACEFUL_RESTART] = _graceful(exa, wanted.graceful_restart)
    if wanted.four_octet_asn is not None:
        capabilities[FOUR_OCTET_ASN] = exa.asn4(wanted.four_octet_asn)
    encoded: bytes = exa.open(
        exa.version(VERSION),
        exa.asn(message.my_as),
        exa.hold_time(message.hold_time_s),
        exa.router_id(".".join(map(str, message.router_id))),
        capabilities,
    ).message()
    exa.forget()
    return encoded


def _graceful(exa: _Library, wanted: GracefulRestart) -> Any:
    flags = (_RESTART_BIT if wanted.restarting else 0) | (_NOTIFICATION_BIT if wanted.notification else 0)
    families = [
        (exa.afi.create(afi), exa.safi.create(safi), _FORWARDING_BIT if forwarding else 0)
        for afi, safi, forwarding in wanted.families
    ]
    return exa.graceful().set(flags, wanted.time_s, families)


@lru_cache(maxsize=64)
def decode_capabilities(items: tuple[tuple[int, bytes], ...]) -> Capabilities:
    """(code, value) pairs → what they say. A capability sent more than once counts as one (RFC 5492 §4).

    A malformed capability is ignored and named in `problems`, so that a bad host name costs no session; except
    multiprotocol and 4-octet AS, which decide how every UPDATE is read: NotificationError 2/0 (RFC 4271 §6.2).
    """
    exa = _library()
    decoded = exa.capabilities()
    problems: list[str] = []
    for code, value in items:
        # Into a set of its own first: a decoder that fails halfway has already changed what it was given.
        alone = exa.capabilities()
        try:
            if code == MULTIPROTOCOL and len(value) != 4:
                raise ValueError("not 4 octets")
            alone[code] = exa.capability.unpack(code, alone, value)
            if code == GRACEFUL_RESTART:
                decoded[code] = alone[code]  # two of them cannot be merged; RFC 4724 §3: use the last
            elif code == FOUR_OCTET_ASN and code in decoded and decoded[code] != alone[code]:
                raise ValueError("two AS numbers")
            else:
                decoded[code] = exa.capability.unpack(code, decoded, value)
        except Exception as error:
            text = f"capability {code} is malformed: {_short(error)}"
            if code in (MULTIPROTOCOL, FOUR_OCTET_ASN):
                raise NotificationError(OPEN_ERROR, 0, b"", text) from error
            problems.append(text)
    try:
        return _typed(decoded, tuple(problems))
    finally:
        exa.forget()


def _typed(decoded: Any, problems: tuple[str, ...]) -> Capabilities:
    families = None
    if MULTIPROTOCOL in decoded:
        families = tuple(dict.fromkeys((int(afi), int(safi)) for afi, safi in decoded[MULTIPROTOCOL]))
    restart = None
    if GRACEFUL_RESTART in decoded:
        graceful = decoded[GRACEFUL_RESTART]
        restart = GracefulRestart(
            restarting=bool(graceful.restart_flag & _RESTART_BIT),
            notification=bool(graceful.restart_flag & _NOTIFICATION_BIT),
            time_s=int(graceful.restart_time),
            families=tuple((int(a), int(s), bool(flag & _FORWARDING_BIT)) for (a, s), flag in graceful.items()),
        )
    return Capabilities(
        families=families,
        route_refresh=REFRESH in decoded or CISCO_REFRESH in decoded,
        extended_next_hop=frozenset((int(a), int(s), int(n)) for a, s, n in decoded.get(EXTENDED_NEXT_HOP, ())),
        extended_message=EXTENDED_MESSAGE in decoded,
        graceful_restart=restart,
        four_octet_asn=int(decoded[FOUR_OCTET_ASN]) if FOUR_OCTET_ASN in decoded else None,
        display=tuple(_capability_text(code, capability) for code, capability in decoded.items()),
        problems=problems,
    )


def _capability_text(code: int, capability: Any) -> str:
    data = getattr(capability, "data", None)
    if data is not None:  # one that ExaBGP does not know
        return f"capability {code} ({len(data)} octets)"
    if code == GRACEFUL_RESTART:
        bits = f"{'R' if capability.restart_flag & _RESTART_BIT else ''}"
        bits += f"{'N' if capability.restart_flag & _NOTIFICATION_BIT else ''}"
        families = " ".join(
            f"{afi}/{safi}{' (forwarding)' if flag & _FORWARDING_BIT else ''}"
            for (afi, safi), flag in capability.items()
        )
        return f"graceful restart {capability.restart_time} s {bits} {families}".replace("  ", " ").rstrip()
    return _short(capability)


def _short(value: object) -> str:
    text = printable(str(value)) or type(value).__name__
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


# --- the short ones --------------------------------------------------------------------------------------------------


def encode_notification(code: int, subcode: int, data: bytes) -> bytes:
    encoded: bytes = _library().notify(code, subcode, data).message()
    return encoded


def encode_refresh(afi: int, safi: int) -> bytes:
    exa = _library()
    encoded: bytes = exa.refresh_message(exa.afi.create(afi), exa.safi.create(safi), 0).message()
    return encoded


def encode_keepalive() -> bytes:
    encoded: bytes = _library().keepalive().message()
    return encoded


# --- attributes, for people ------------------------------------------------------------------------------------------


def describe_attributes(block: bytes, *, four_octet_asn: bool = True) -> list[tuple[str, str]]:
    """A block of path attributes → (name, text) of each, in wire order. Never raises.

    For what a person asks to see: it costs some 50 µs an attribute. What ExaBGP does not know or refuses is shown in
    hexadecimal, and so is a tail that is not a whole attribute.
    """
    described: list[tuple[str, str]] = []
    at = 0
    while at < len(block):
        value_at = at + (4 if block[at] & 0x10 else 3)
        if value_at > len(block):
            break
        end = value_at + int.from_bytes(block[at + 2 : value_at], "big")
        if end > len(block):
            break
        described.append(_describe(block[at:end], block[value_at:end], four_octet_asn))
        at = end
    if at < len(block):
        described.append(("malformed", block[at:].hex()))
    return described


def _describe(whole: bytes, value: bytes, four_octet_asn: bool) -> tuple[str, str]:
    exa = _library()
    code = whole[1]
    name = str(exa.attribute.CODE.names.get(code, f"attribute {code}"))
    text = value.hex()
    if code not in (14, 15):  # MP_REACH and MP_UNREACH carry prefixes: not an attribute to be described
        try:
            decoded = exa.attributes.unpack(bytes(whole), exa.incoming, _reading(four_octet_asn))
            if len(decoded) == 1 and code in decoded and not decoded[code].GENERIC:
                text = str(decoded[code]) or text
        except Exception:  # its decoders may raise anything
            text = value.hex()
        exa.forget()
    return name, printable(text)


@cache
def _negotiated_class() -> Any:
    from exabgp.bgp.message.open.capability import Negotiated

    return Negotiated


def _reading(four_octet_asn: bool) -> Any:
    """What its decoders want to know of a session; made afresh because it keeps the last set that it decoded."""
    negotiated = _negotiated_class()({"capability": {"aigp": True}})
    negotiated.asn4 = four_octet_asn
    negotiated.local_as = negotiated.peer_as = _library().asn(AS_TRANS)
    return negotiated
