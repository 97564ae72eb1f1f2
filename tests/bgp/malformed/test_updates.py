"""Malformed UPDATEs over a live session, seen from the other, healthy session.

Every malformed attribute is put first, in the middle and last, and comes from an external and from an internal peer.
The route is announced well-formed first, so that each outcome shows:

WITHDRAWN   the route is gone, the session stands (treat-as-withdraw, RFC 7606 §2)
DISCARDED   the route is there as announced anew, without the attribute (attribute discard)
ACCEPTED    the route is there as announced anew
NOWHERE     the announcement changed nothing at all
(c, s, d)   the session is reset with this NOTIFICATION; data in hexadecimal, ANY if the RFC leaves it open
"""

from __future__ import annotations

import itertools

import pytest

from tests.bgp.malformed.live import (
    EXTERNAL_ASN,
    UPDATE,
    LiveSpeaker,
    Router,
    attribute,
    message,
    split_attributes,
    update,
)

WITHDRAWN, DISCARDED, ACCEPTED, NOWHERE, ANY = "withdrawn", "discarded", "accepted", "nowhere", "any"
Outcome = str | tuple[int, int, str]

ORIGIN, AS_PATH, NEXT_HOP, MED, LOCAL_PREF, ATOMIC, AGGREGATOR = 1, 2, 3, 4, 5, 6, 7
COMMUNITIES, ORIGINATOR, CLUSTERS, MP_REACH, MP_UNREACH, EXTENDED = 8, 9, 10, 14, 15, 16
AS4_PATH, AS4_AGGREGATOR, IPV6_EXTENDED, LARGE = 17, 18, 25, 32
SEQUENCE = b"\x02\x01" + EXTERNAL_ASN.to_bytes(4, "big")
COMMUNITY_OLD, COMMUNITY_NEW = b"\xfd\xea\0\1", b"\xfd\xea\0\2"
GOOD = {
    ORIGIN: (0x40, b"\0"),
    AS_PATH: (0x40, SEQUENCE),
    NEXT_HOP: (0x40, bytes([192, 0, 2, 9])),
    MED: (0x80, b"\0\0\0\x07"),
    LOCAL_PREF: (0x40, b"\0\0\0\x64"),
    COMMUNITIES: (0xC0, COMMUNITY_NEW),
}
PEERS = ["ebgp", "ibgp"]


def asn(number: int) -> bytes:
    return number.to_bytes(4, "big")


def good(router: Router, *, without: int = 0, community: bytes = COMMUNITY_NEW) -> list[bytes]:
    """The attributes of an ordinary route from this peer, in order."""
    codes = [code for code in GOOD if code != without and (code != LOCAL_PREF or router.asn != EXTERNAL_ASN)]
    values = GOOD | {COMMUNITIES: (0xC0, community)}
    return [attribute(code, values[code][1], values[code][0]) for code in codes]


def outcome(live: LiveSpeaker, router: Router, octets: bytes, nlri: bytes, code: int = 0) -> Outcome:
    """Announce `nlri` properly, send `octets`, and see what the healthy session was told."""
    router.send(update(b"".join(good(router, community=COMMUNITY_OLD)), nlri))
    base = b"".join(good(router))
    assert live.settle(router, base)
    assert live.healthy.routes[nlri][COMMUNITIES][1] == COMMUNITY_OLD
    router.send(octets)
    if not live.settle(router, base):
        answer = router.answer()
        assert answer is not None, "closed without a NOTIFICATION"
        assert nlri not in live.healthy.routes or live.settle_without(nlri)
        return answer
    told = live.healthy.routes.get(nlri)
    if told is None:
        return WITHDRAWN
    if code and code not in told and code not in (COMMUNITIES, MED):
        return DISCARDED if told[COMMUNITIES][1] == COMMUNITY_NEW else NOWHERE
    is_new = told.get(COMMUNITIES, (0, b""))[1] != COMMUNITY_OLD
    return ACCEPTED if is_new else NOWHERE


# --- attributes ------------------------------------------------------------------------------------------------------

# code, flags, value, from an external peer, from an internal one, why
ATTRIBUTES: list[tuple[int, int, bytes, Outcome, Outcome, str]] = [
    (ORIGIN, 0x40, b"", WITHDRAWN, WITHDRAWN, "no octet (RFC 7606 §7.1)"),
    (ORIGIN, 0x40, b"\0\0", WITHDRAWN, WITHDRAWN, "two octets"),
    (ORIGIN, 0x40, b"\3", WITHDRAWN, WITHDRAWN, "value 3"),
    (ORIGIN, 0x40, b"\xff", WITHDRAWN, WITHDRAWN, "value 255"),
    (ORIGIN, 0xC0, b"\0", WITHDRAWN, WITHDRAWN, "optional (RFC 7606 §3 c)"),
    (ORIGIN, 0x00, b"\0", WITHDRAWN, WITHDRAWN, "not transitive"),
    (ORIGIN, 0x80, b"\0", WITHDRAWN, WITHDRAWN, "optional, not transitive"),
    (AS_PATH, 0x40, b"\2", WITHDRAWN, WITHDRAWN, "a segment of one octet (RFC 7606 §7.2)"),
    (AS_PATH, 0x40, b"\2\2" + asn(EXTERNAL_ASN), WITHDRAWN, WITHDRAWN, "a segment past the end"),
    (AS_PATH, 0x40, SEQUENCE + b"\2", WITHDRAWN, WITHDRAWN, "an octet behind the last segment"),
    (AS_PATH, 0x40, SEQUENCE + b"\2\0", WITHDRAWN, WITHDRAWN, "a segment of no AS numbers"),
    (AS_PATH, 0x40, b"\0\1" + asn(EXTERNAL_ASN), WITHDRAWN, WITHDRAWN, "segment type 0"),
    (AS_PATH, 0x40, SEQUENCE + b"\5\1" + asn(65009), WITHDRAWN, WITHDRAWN, "segment type 5"),
    (AS_PATH, 0x40, SEQUENCE + b"\2\1" + asn(0), WITHDRAWN, WITHDRAWN, "AS 0 (RFC 7607)"),
    (AS_PATH, 0xC0, SEQUENCE, WITHDRAWN, WITHDRAWN, "optional"),
    (AS_PATH, 0x00, SEQUENCE, WITHDRAWN, WITHDRAWN, "not transitive"),
    (AS_PATH, 0x40, b"", WITHDRAWN, ACCEPTED, "empty: only an internal peer may"),
    (AS_PATH, 0x40, b"\2\1" + asn(65009), WITHDRAWN, ACCEPTED, "does not begin with the external peer"),
    (AS_PATH, 0x40, b"\3\1" + asn(65009) + SEQUENCE, WITHDRAWN, ACCEPTED, "confederation segment (RFC 5065 §5)"),
    (AS_PATH, 0x40, b"\2\2" + asn(EXTERNAL_ASN) + asn(65001), WITHDRAWN, WITHDRAWN, "our own AS: a loop (RFC 4271 §9.1.2)"),
    (NEXT_HOP, 0x40, b"", WITHDRAWN, WITHDRAWN, "no octet (RFC 7606 §7.3)"),
    (NEXT_HOP, 0x40, b"\xc0\0\2", WITHDRAWN, WITHDRAWN, "three octets"),
    (NEXT_HOP, 0x40, b"\xc0\0\2\1\1", WITHDRAWN, WITHDRAWN, "five octets"),
    (NEXT_HOP, 0x40, b"\x20\1\x0d\xb8" + b"\0" * 12, WITHDRAWN, WITHDRAWN, "sixteen octets"),
    (NEXT_HOP, 0x40, bytes(4), WITHDRAWN, WITHDRAWN, "0.0.0.0 is no host (RFC 4271 §6.3)"),
    (NEXT_HOP, 0x40, b"\xe0\0\0\1", WITHDRAWN, WITHDRAWN, "a multicast group is no host"),
    (NEXT_HOP, 0x40, b"\xff\xff\xff\xff", WITHDRAWN, WITHDRAWN, "nor is the broadcast address"),
    (NEXT_HOP, 0x40, b"\x7f\0\0\1", WITHDRAWN, WITHDRAWN, "our own address (RFC 4271 §5.1.3)"),
    (NEXT_HOP, 0x80, b"\xc0\0\2\x09", WITHDRAWN, WITHDRAWN, "optional"),
    (NEXT_HOP, 0xC0, b"\xc0\0\2\x09", WITHDRAWN, WITHDRAWN, "optional transitive"),
    (MED, 0x80, b"", WITHDRAWN, WITHDRAWN, "no octet (RFC 7606 §7.4)"),
    (MED, 0x80, b"\0\0\1", WITHDRAWN, WITHDRAWN, "three octets"),
    (MED, 0x80, b"\0\0\0\0\1", WITHDRAWN, WITHDRAWN, "five octets"),
    (MED, 0x40, b"\0\0\0\1", WITHDRAWN, WITHDRAWN, "well-known"),
    (MED, 0xC0, b"\0\0\0\1", WITHDRAWN, WITHDRAWN, "transitive"),
    (LOCAL_PREF, 0x40, b"", DISCARDED, WITHDRAWN, "no octet (RFC 7606 §7.5)"),
    (LOCAL_PREF, 0x40, b"\0\0\1", DISCARDED, WITHDRAWN, "three octets"),
    (LOCAL_PREF, 0x40, b"\0\0\0\0\1", DISCARDED, WITHDRAWN, "five octets"),
    (LOCAL_PREF, 0xC0, b"\0\0\0\1", DISCARDED, WITHDRAWN, "optional"),
    (LOCAL_PREF, 0x40, b"\0\0\0\1", DISCARDED, DISCARDED, "well-formed: nothing for an external peer"),
    (ATOMIC, 0x40, b"\0", DISCARDED, DISCARDED, "an octet (RFC 7606 §7.6)"),
    (ATOMIC, 0x40, b"x" * 300, DISCARDED, DISCARDED, "three hundred octets"),
    (AGGREGATOR, 0xC0, b"", DISCARDED, DISCARDED, "no octet (RFC 7606 §7.7)"),
    (AGGREGATOR, 0xC0, b"\xfd\xea\x0a\0\0\1", DISCARDED, DISCARDED, "the six octets of a 2-octet peer"),
    (AGGREGATOR, 0xC0, asn(65002) + b"\x0a\0\0", DISCARDED, DISCARDED, "seven octets"),
    (AGGREGATOR, 0xC0, asn(65002) + b"\x0a\0\0\1\0", DISCARDED, DISCARDED, "nine octets"),
    (AGGREGATOR, 0xC0, asn(0) + b"\x0a\0\0\1", DISCARDED, DISCARDED, "AS 0 (RFC 7607)"),
    (COMMUNITIES, 0xC0, b"", WITHDRAWN, WITHDRAWN, "no octet (RFC 7606 §7.8)"),
    (COMMUNITIES, 0xC0, b"\0\1\0", WITHDRAWN, WITHDRAWN, "three octets"),
    (COMMUNITIES, 0xC0, b"\0\1\0\1\0", WITHDRAWN, WITHDRAWN, "five octets"),
    (COMMUNITIES, 0x40, b"\0\1\0\1", WITHDRAWN, WITHDRAWN, "well-known"),
    (COMMUNITIES, 0x80, b"\0\1\0\1", WITHDRAWN, WITHDRAWN, "not transitive"),
    (ORIGINATOR, 0x80, b"", DISCARDED, WITHDRAWN, "no octet (RFC 7606 §7.9)"),
    (ORIGINATOR, 0x80, b"\1\2\3", DISCARDED, WITHDRAWN, "three octets"),
    (ORIGINATOR, 0x80, b"\1\2\3\4\5", DISCARDED, WITHDRAWN, "five octets"),
    (ORIGINATOR, 0xC0, b"\1\2\3\4", DISCARDED, WITHDRAWN, "transitive"),
    (ORIGINATOR, 0x80, b"\1\2\3\4", DISCARDED, DISCARDED, "well-formed: nothing for an external peer"),
    (CLUSTERS, 0x80, b"", DISCARDED, WITHDRAWN, "no octet (RFC 7606 §7.10)"),
    (CLUSTERS, 0x80, b"\1\2\3", DISCARDED, WITHDRAWN, "three octets"),
    (CLUSTERS, 0x80, b"\1\2\3\4\5", DISCARDED, WITHDRAWN, "five octets"),
    (CLUSTERS, 0x40, b"\1\2\3\4", DISCARDED, WITHDRAWN, "well-known"),
    (EXTENDED, 0xC0, b"", WITHDRAWN, WITHDRAWN, "no octet (RFC 7606 §7.14)"),
    (EXTENDED, 0xC0, b"\0" * 7, WITHDRAWN, WITHDRAWN, "seven octets"),
    (EXTENDED, 0xC0, b"\0" * 9, WITHDRAWN, WITHDRAWN, "nine octets"),
    (EXTENDED, 0x80, b"\0" * 8, WITHDRAWN, WITHDRAWN, "not transitive"),
    (AS4_PATH, 0xC0, b"\2\1" + asn(65009), DISCARDED, DISCARDED, "from a 4-octet speaker (RFC 6793 §4.1)"),
    (AS4_PATH, 0xC0, b"\2\xff", DISCARDED, DISCARDED, "a segment past the end (RFC 6793 §6)"),
    (AS4_PATH, 0xC0, b"", DISCARDED, DISCARDED, "no octet"),
    (AS4_AGGREGATOR, 0xC0, asn(65009) + b"\1\2\3\4", DISCARDED, DISCARDED, "from a 4-octet speaker"),
    (AS4_AGGREGATOR, 0xC0, b"\1\2\3", DISCARDED, DISCARDED, "three octets (RFC 6793 §6)"),
    (IPV6_EXTENDED, 0xC0, b"", WITHDRAWN, WITHDRAWN, "no octet (RFC 7606 §7.15)"),
    (IPV6_EXTENDED, 0xC0, b"\0" * 19, WITHDRAWN, WITHDRAWN, "nineteen octets"),
    (LARGE, 0xC0, b"", WITHDRAWN, WITHDRAWN, "no octet (RFC 8092 §6)"),
    (LARGE, 0xC0, b"\0" * 11, WITHDRAWN, WITHDRAWN, "eleven octets"),
    (LARGE, 0xC0, b"\0" * 13, WITHDRAWN, WITHDRAWN, "thirteen octets"),
    (LARGE, 0x40, b"\0" * 12, WITHDRAWN, WITHDRAWN, "well-known"),
    (99, 0x40, b"abc", (3, 2, "406303616263"), (3, 2, "406303616263"), "an unknown well-known one (RFC 4271 §6.3)"),
    (99, 0x00, b"", (3, 2, "006300"), (3, 2, "006300"), "the same, not even transitive"),
    (0, 0x40, b"x", (3, 2, "40000178"), (3, 2, "40000178"), "type 0, well-known"),
    (99, 0x80, b"abc", DISCARDED, DISCARDED, "unknown, optional, not transitive: ignored (RFC 4271 §9)"),
    (99, 0xC0, b"poison", DISCARDED, ACCEPTED, "unknown, optional, transitive: stops at the border"),
    (40, 0xC0, b"\xff" * 50, DISCARDED, ACCEPTED, "a PREFIX_SID of rubbish is an unknown one to us"),
    (128, 0xC0, b"", DISCARDED, ACCEPTED, "ATTR_SET without contents"),
]  # fmt: skip


@pytest.mark.parametrize("position", ["first", "middle", "last"])
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    ("code", "flags", "value", "external", "internal", "why"),
    ATTRIBUTES,
    ids=[f"{row[0]}-{row[1]:02x}-{row[2][:8].hex() or 'empty'}" for row in ATTRIBUTES],
)
def test_a_malformed_attribute(
    live: LiveSpeaker,
    peer: str,
    position: str,
    code: int,
    flags: int,
    value: bytes,
    external: Outcome,
    internal: Outcome,
    why: str,
) -> None:
    is_ebgp = peer == "ebgp"
    with live.router(is_ebgp=is_ebgp) as router:
        router.establish()
        attributes = good(router, without=code)
        at = {"first": 0, "middle": len(attributes) // 2, "last": len(attributes)}[position]
        attributes.insert(at, attribute(code, value, flags))
        nlri = live.fresh_prefix()
        expected = external if is_ebgp else internal
        assert outcome(live, router, update(b"".join(attributes), nlri), nlri, code) == expected, why


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("code", [ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF])
def test_a_missing_attribute(live: LiveSpeaker, peer: str, code: int) -> None:
    """RFC 7606 §3 d; LOCAL_PREF is mandatory between internal peers (RFC 4271 §5.1.5)."""
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        nlri = live.fresh_prefix()
        octets = update(b"".join(good(router, without=code)), nlri)
        expected = ACCEPTED if (peer, code) == ("ebgp", LOCAL_PREF) else WITHDRAWN
        assert outcome(live, router, octets, nlri) == expected


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("code", list(GOOD))
def test_an_attribute_twice(live: LiveSpeaker, peer: str, code: int) -> None:
    """RFC 7606 §3 g: all but the first are discarded, whatever they say."""
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        nlri = live.fresh_prefix()
        octets = update(b"".join(good(router)) + attribute(code, b"\xff" * 9, GOOD[code][0]), nlri)
        assert outcome(live, router, octets, nlri) == ACCEPTED
        assert live.healthy.routes[nlri][COMMUNITIES][1] == COMMUNITY_NEW


BLOCKS: list[tuple[bytes, Outcome, str]] = [
    (b"\x40", WITHDRAWN, "one octet of an attribute (RFC 7606 §4)"),
    (b"\xc0\x08", WITHDRAWN, "two octets of an attribute"),
    (b"\xd0\x08\x01", WITHDRAWN, "half an extended length"),
    (b"\xc0\x20\x0c\0\0", WITHDRAWN, "an attribute past the others"),
    (b"\xd0\x20\xff\xff\0", WITHDRAWN, "an attribute of 65535 octets"),
    (b"\xc0\x10\xff", WITHDRAWN, "an attribute of 255 octets, none there"),
    (b"\xd0\x20\x00\x0c" + b"\0" * 12, ACCEPTED, "an extended length that need not be (RFC 4271 §4.3)"),
    (b"\xcf\x20\x0c" + b"\0" * 12, ACCEPTED, "the unused flags (RFC 4271 §4.3: ignored)"),
    (b"\xe0\x20\x0c" + b"\0" * 12, ACCEPTED, "the Partial bit"),
]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("octets", "expected", "why"), BLOCKS, ids=[row[2] for row in BLOCKS])
def test_the_end_of_the_attributes(live: LiveSpeaker, peer: str, octets: bytes, expected: Outcome, why: str) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        nlri = live.fresh_prefix()
        assert outcome(live, router, update(b"".join(good(router)) + octets, nlri), nlri) == expected, why


@pytest.mark.parametrize("peer", PEERS)
def test_sixteen_thousand_communities(live: LiveSpeaker, peer: str) -> None:
    """Some decoders take half a minute for them."""
    from tests.bgp.malformed.live import capability

    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish(more=capability(6))
        nlri = live.fresh_prefix()
        value = bytes(range(250)) * 256
        octets = update(b"".join(good(router, without=COMMUNITIES)) + attribute(COMMUNITIES, value, 0xC0), nlri)
        router.send(octets)
        assert live.settle(router, b"".join(good(router)))
        view = live.peer(router)
        assert view is not None
        assert view["prefixes"]["ipv4"]["accepted"] == 3
        assert nlri not in live.healthy.routes, "does not fit into a message of 4096 octets, which is all it takes"


@pytest.mark.parametrize("peer", PEERS)
def test_many_small_unknown_attributes(live: LiveSpeaker, peer: str) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        nlri = live.fresh_prefix()
        some = b"".join(attribute(code, b"", 0x80) for code in itertools.islice(itertools.cycle(range(200, 256)), 1200))
        assert outcome(live, router, update(b"".join(good(router)) + some, nlri), nlri) == ACCEPTED


# --- the frame of the UPDATE -----------------------------------------------------------------------------------------


def framed(withdrawn_length: int, withdrawn: bytes, attributes_length: int, rest: bytes) -> bytes:
    body = withdrawn_length.to_bytes(2, "big") + withdrawn + attributes_length.to_bytes(2, "big") + rest
    return message(UPDATE, body)


FRAMES: list[tuple[bytes, Outcome, str]] = [
    (framed(1, b"", 0, b""), (3, 1, ""), "one octet of withdrawn routes, then no room for a length (RFC 4271 §6.3)"),
    (framed(0xFFFF, b"", 0, b""), (3, 1, ""), "withdrawn routes past the message"),
    (framed(3, b"\x10\x0a\0", 1, b""), (3, 1, ""), "attributes past the message"),
    (framed(0, b"", 0xFFFF, b"\x40\1\1\0"), (3, 1, ""), "attributes of 65535 octets"),
    (update(withdrawn=b"\x21\x0a\0\0\0\0"), (3, 10, ANY), "a withdrawn prefix of 33 bits (RFC 7606 §5.3)"),
    (update(withdrawn=b"\xff"), (3, 10, ANY), "a withdrawn prefix of 255 bits"),
    (update(withdrawn=b"\x18\x0a\0"), (3, 10, ANY), "a withdrawn prefix that ends too soon"),
    (update(withdrawn=b"\x08\x0a\x18"), (3, 10, ANY), "half a prefix behind a whole one"),
]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("octets", "expected", "why"), FRAMES, ids=[row[2] for row in FRAMES])
def test_a_bad_frame(live: LiveSpeaker, peer: str, octets: bytes, expected: tuple[int, int, str], why: str) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        assert matches(outcome(live, router, octets, live.fresh_prefix()), expected), why


def matches(got: Outcome, expected: Outcome) -> bool:
    if isinstance(got, tuple) and isinstance(expected, tuple) and expected[2] == ANY:
        return got[:2] == expected[:2]
    return got == expected


NLRIS: list[tuple[bytes, Outcome, str]] = [
    (b"\x21\x0a\0\0\0\0", (3, 10, ANY), "a prefix of 33 bits"),
    (b"\x80" + b"\x0a" * 16, (3, 10, ANY), "a prefix of 128 bits"),
    (b"\x18\x0a\0", (3, 10, ANY), "a prefix that ends too soon"),
    (b"\x20\x0a\0\0", (3, 10, ANY), "a host that ends too soon"),
    (b"\x18\x0a\x63\0\xff", (3, 10, ANY), "a whole prefix, then a length alone"),
]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("nlri", "expected", "why"), NLRIS, ids=[row[2] for row in NLRIS])
def test_a_bad_prefix(live: LiveSpeaker, peer: str, nlri: bytes, expected: Outcome, why: str) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        octets = update(b"".join(good(router)), nlri)
        assert matches(outcome(live, router, octets, live.fresh_prefix()), expected), why


@pytest.mark.parametrize("peer", PEERS)
def test_bits_behind_the_prefix_are_ignored(live: LiveSpeaker, peer: str) -> None:
    """RFC 4271 §4.3: they are irrelevant, so two spellings are one prefix."""
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        nlri = live.fresh_prefix()
        spelled = bytes([22]) + nlri[1:3] + bytes([3])
        router.send(update(b"".join(good(router)), spelled))
        assert live.settle(router, b"".join(good(router)))
        clean = bytes([22]) + nlri[1:3] + b"\0"
        assert clean in live.healthy.routes
        router.send(update(withdrawn=bytes([22]) + nlri[1:3] + bytes([1])))
        assert live.settle(router, b"".join(good(router)))
        assert clean not in live.healthy.routes


@pytest.mark.parametrize("peer", PEERS)
def test_a_prefix_withdrawn_and_announced_in_one_update_is_announced(live: LiveSpeaker, peer: str) -> None:
    """RFC 4271 §4.3: treated as if the withdrawn routes did not hold it."""
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        nlri = live.fresh_prefix()
        octets = update(b"".join(good(router)), nlri, withdrawn=nlri)
        assert outcome(live, router, octets, nlri) == ACCEPTED


@pytest.mark.parametrize("peer", PEERS)
def test_withdrawing_what_was_never_announced_means_nothing(live: LiveSpeaker, peer: str) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        octets = update(withdrawn=b"\x18\x0a\xfe\0" + b"\0" + b"\x18\x0a\xfd\0")
        assert outcome(live, router, octets, live.fresh_prefix()) == NOWHERE


@pytest.mark.parametrize("peer", PEERS)
def test_prefixes_without_attributes(live: LiveSpeaker, peer: str) -> None:
    """Everything mandatory is missing (RFC 7606 §3 d)."""
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        nlri = live.fresh_prefix()
        assert outcome(live, router, update(b"", nlri), nlri) == WITHDRAWN


@pytest.mark.parametrize("peer", PEERS)
def test_a_malformed_attribute_with_nothing_to_withdraw(live: LiveSpeaker, peer: str) -> None:
    """RFC 7606 §5.2: the prefixes meant cannot be known, so the session is reset."""
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        octets = update(attribute(ORIGIN, b"\7", 0x40))
        assert matches(outcome(live, router, octets, live.fresh_prefix()), (3, 6, ANY))


@pytest.mark.parametrize("peer", PEERS)
def test_ordinary_attributes_without_a_prefix_mean_nothing(live: LiveSpeaker, peer: str) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        assert outcome(live, router, update(b"".join(good(router))), live.fresh_prefix()) == NOWHERE


# --- multiprotocol ---------------------------------------------------------------------------------------------------

V6, NEXT_HOP_6, PREFIX_6 = b"\0\2\1", b"\x20\1\x0d\xb8" + b"\0" * 11 + b"\x09", b"\x20\x20\1\x0d\xb8"


def reach(next_hop: bytes = NEXT_HOP_6, nlri: bytes = PREFIX_6, family: bytes = V6, length: int = -1) -> bytes:
    return family + bytes([len(next_hop) if length < 0 else length]) + next_hop + b"\0" + nlri


# code, flags, value, outcome for the session, why. The IPv4 route announced before must not change.
MULTIPROTOCOL: list[tuple[int, int, bytes, Outcome, str]] = [
    (MP_REACH, 0x80, b"", (3, 9, ANY), "empty (RFC 7606 §7.11)"),
    (MP_REACH, 0x80, b"\0\2\1", (3, 9, ANY), "ends before the next hop"),
    (MP_REACH, 0x80, reach(length=255), (3, 9, ANY), "a next hop past the attribute"),
    (MP_REACH, 0x80, reach(b""), (3, 9, ANY), "no next hop"),
    (MP_REACH, 0x80, reach(b"\1\2\3\4"), (3, 9, ANY), "an IPv4 next hop, not negotiated (RFC 8950)"),
    (MP_REACH, 0x80, reach(NEXT_HOP_6 + b"\0"), (3, 9, ANY), "a next hop of 17 octets"),
    (MP_REACH, 0x80, reach(NEXT_HOP_6 * 3), (3, 9, ANY), "a next hop of 48 octets"),
    (MP_REACH, 0x80, reach(nlri=b"\x81" + b"\0" * 17), (3, 10, ANY), "a prefix of 129 bits"),
    (MP_REACH, 0x80, reach(nlri=b"\x40\x20\1"), (3, 10, ANY), "a prefix that ends too soon"),
    (
        MP_REACH,
        0x80,
        reach(NEXT_HOP_6, b"\x18\x0a\0\0", b"\0\1\1"),
        (3, 9, ANY),
        "an IPv6 next hop for IPv4, not negotiated",
    ),
    (MP_REACH, 0x80, reach(b"\1\2\3\4", b"\0\0", b"\0\x19\x46"), NOWHERE, "a family that was not negotiated"),
    (MP_REACH, 0x80, reach(nlri=b""), NOWHERE, "no prefix"),
    (MP_REACH, 0x80, reach(bytes(16)), NOWHERE, ":: as next hop: the IPv6 route is withdrawn, no more"),
    (MP_REACH, 0x80, reach(b"\xff\2" + b"\0" * 13 + b"\1"), NOWHERE, "a multicast next hop: the same"),
    (MP_UNREACH, 0x80, b"", (3, 9, ANY), "empty (RFC 7606 §7.12)"),
    (MP_UNREACH, 0x80, b"\0\2", (3, 9, ANY), "two octets"),
    (MP_UNREACH, 0x80, V6 + b"\x81" + b"\0" * 17, (3, 10, ANY), "a prefix of 129 bits"),
    (MP_UNREACH, 0x80, V6 + b"\x40\x20\1", (3, 10, ANY), "a prefix that ends too soon"),
    (MP_UNREACH, 0x80, b"\0\x19\x46\1\2\3", NOWHERE, "a family that was not negotiated"),
    (MP_UNREACH, 0x80, V6, NOWHERE, "no prefix: End-of-RIB"),
]


@pytest.mark.parametrize("position", ["first", "middle", "last"])
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    ("code", "flags", "value", "expected", "why"), MULTIPROTOCOL, ids=[f"{row[0]}-{row[4]}" for row in MULTIPROTOCOL]
)
def test_malformed_multiprotocol(
    live: LiveSpeaker, peer: str, position: str, code: int, flags: int, value: bytes, expected: Outcome, why: str
) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        attributes = good(router, without=NEXT_HOP)
        at = {"first": 0, "middle": len(attributes) // 2, "last": len(attributes)}[position]
        attributes.insert(at, attribute(code, value, flags))
        got = outcome(live, router, update(b"".join(attributes)), live.fresh_prefix())
        assert matches(got, expected), why
        assert b"6" + PREFIX_6 not in live.healthy.routes


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("code", [MP_REACH, MP_UNREACH])
def test_multiprotocol_twice(live: LiveSpeaker, peer: str, code: int) -> None:
    """RFC 7606 §3 g."""
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        value = reach() if code == MP_REACH else V6 + PREFIX_6
        octets = update(b"".join(good(router, without=NEXT_HOP)) + attribute(code, value, 0x80) * 2)
        assert matches(outcome(live, router, octets, live.fresh_prefix()), (3, 1, ANY))


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("flags", [0x40, 0xC0, 0x00])
def test_multiprotocol_with_wrong_flags_withdraws(live: LiveSpeaker, peer: str, flags: int) -> None:
    """RFC 7606 §3 c: the prefixes can be read, so they are treated as withdrawn and nothing more happens."""
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        rest = b"".join(good(router, without=NEXT_HOP))
        router.send(update(attribute(MP_REACH, reach(), 0x80) + rest))
        assert live.settle(router, b"".join(good(router)))
        assert b"6" + PREFIX_6 in live.healthy.routes
        router.send(update(attribute(MP_REACH, reach(), flags) + rest))
        assert live.settle(router, b"".join(good(router)))
        assert b"6" + PREFIX_6 not in live.healthy.routes


@pytest.mark.parametrize("peer", PEERS)
def test_a_malformed_attribute_withdraws_the_prefixes_of_both_families(live: LiveSpeaker, peer: str) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        rest = b"".join(good(router))
        nlri = live.fresh_prefix()
        both = attribute(MP_REACH, reach(), 0x80) + rest
        router.send(update(both, nlri))
        assert live.settle(router, rest)
        assert {nlri, b"6" + PREFIX_6} <= live.healthy.routes.keys()
        router.send(update(both + attribute(LARGE, b"x", 0xC0), nlri))
        assert live.settle(router, rest)
        assert not {nlri, b"6" + PREFIX_6} & live.healthy.routes.keys()


# --- an old peer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected", "why"),
    [
        (b"\2\1" + (EXTERNAL_ASN).to_bytes(2, "big"), ACCEPTED, "two octets"),
        (SEQUENCE, WITHDRAWN, "four octets where two were agreed"),
    ],
)
def test_a_peer_without_four_octet_numbers(live: LiveSpeaker, path: bytes, expected: Outcome, why: str) -> None:
    with live.router(is_ebgp=True) as router:
        router.establish(four_octet_asn=None)
        nlri = live.fresh_prefix()
        first = [attribute(ORIGIN, b"\0", 0x40), attribute(NEXT_HOP, bytes([192, 0, 2, 9]), 0x40)]
        two = b"".join(first) + attribute(AS_PATH, b"\2\1" + EXTERNAL_ASN.to_bytes(2, "big"), 0x40)
        router.send(update(two, nlri))
        assert live.settle(router, two)
        assert nlri in live.healthy.routes
        router.send(update(b"".join(first) + attribute(AS_PATH, path, 0x40), nlri))
        assert live.settle(router, two)
        assert (ACCEPTED if nlri in live.healthy.routes else WITHDRAWN) == expected, why


# --- what is kept for the operator -----------------------------------------------------------------------------------


def test_the_operator_can_see_what_was_wrong(live: LiveSpeaker) -> None:
    with live.router(is_ebgp=True) as router:
        router.establish()
        nlri = live.fresh_prefix()
        octets = update(b"".join([*good(router, without=ORIGIN), attribute(ORIGIN, b"\x09", 0x40)]), nlri)
        assert outcome(live, router, octets, nlri) == WITHDRAWN
        view = live.peer(router)
        assert view is not None
        assert view["malformed"] == 1
        import time

        detail = live.call(lambda: live.speaker.peer_view(view["name"], time.monotonic()))
        [kept] = detail["malformed_messages"]
        assert kept["hex"] == octets.hex()
        assert kept["verdict"] == "treat-as-withdraw"
        assert "ORIGIN" in kept["text"]


@pytest.mark.parametrize("peer", PEERS)
def test_what_is_passed_on_is_well_formed(live: LiveSpeaker, peer: str) -> None:
    with live.router(is_ebgp=peer == "ebgp") as router:
        router.establish()
        nlri = live.fresh_prefix()
        router.send(update(b"".join(good(router)), nlri))
        assert live.settle(router, b"".join(good(router)))
        told = live.healthy.routes[nlri]
        assert set(told) == {ORIGIN, AS_PATH, NEXT_HOP, COMMUNITIES}
        assert split_attributes(attribute(COMMUNITIES, COMMUNITY_NEW, 0xC0)) == {COMMUNITIES: told[COMMUNITIES]}


@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_what_only_internal_peers_may_say_has_no_effect_from_an_external_one(live: LiveSpeaker, position: str) -> None:
    """LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST (RFC 7606 §7.5, §7.9, §7.10): discarded, not merely not sent on."""
    with live.router(is_ebgp=True) as router:
        router.establish()
        attributes = good(router)
        at = {"first": 0, "middle": 2, "last": len(attributes)}[position]
        attributes[at:at] = [
            attribute(LOCAL_PREF, b"\0\0\xff\xff", 0x40),
            attribute(ORIGINATOR, bytes([10, 255, 0, 1]), 0x80),
            attribute(CLUSTERS, bytes([10, 255, 0, 1]), 0x80),
        ]
        nlri = live.fresh_prefix()
        router.send(update(b"".join(attributes), nlri))
        assert live.settle(router, b"".join(good(router)))
        prefix = f"10.{nlri[2]}.{nlri[3]}.0/24"
        [route] = live.call(lambda: list(live.speaker.routes_view(prefix=prefix, which="all")))
        [path] = route["paths"]
        assert path["state"] == "best"
        assert (path["local_pref"], path["originator_id"], path["cluster_list"]) in (
            (None, None, None),
            (None, None, []),
            (100, None, []),
        )
