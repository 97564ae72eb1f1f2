"""The attribute scan against RFC 7606, and the fast way in against the full one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.wire import as_path
from bgp.wire.attributes import (
    PathAttributes,
    Scan,
    attribute,
    build,
    one_next_hop,
    scan_nominal,
    scan_usual,
    split_block,
)
from bgp.wire.errors import NotificationError
from reflector.rules import Reflector

ORIGIN = bytes.fromhex("40 01 01 00")
PATH = bytes.fromhex("40 02 06 02 01 0000fde9")  # 65001
NEXT_HOP = bytes.fromhex("40 03 04 c0000201")
LOCAL_PREF = bytes.fromhex("40 05 04 00000064")
BASE = ORIGIN + PATH + NEXT_HOP

blocks = st.lists(
    st.one_of(
        st.sampled_from(
            [ORIGIN, PATH, NEXT_HOP, LOCAL_PREF, bytes.fromhex("c0 08 04 fde80001"), bytes.fromhex("80 04 04 00000005")]
        ),
        st.builds(attribute, st.integers(0, 255), st.integers(0, 40), st.binary(max_size=24)),
        st.binary(max_size=8),
    ),
    max_size=7,
).map(b"".join)


def scan(block: bytes, *, is_ebgp: bool = True, four_octet_asn: bool = True) -> Scan:
    return Scan(block, is_ebgp=is_ebgp, four_octet_asn=four_octet_asn, passes="all")


@given(blocks, st.booleans())
def test_the_fast_scan_takes_only_what_the_full_scan_leaves_as_it_is(block: bytes, is_ebgp: bool) -> None:
    fast = scan_nominal(block, is_ebgp)
    if fast is None:
        return
    full = scan(block, is_ebgp=is_ebgp)
    made = full.attributes(b"")
    assert full.fault is None
    assert full.notes == []
    assert (fast.next_hop, fast.seen) == (made.next_hop, made.seen)
    assert [item[1:] for item in split_block(fast.block)] == [item[1:] for item in split_block(made.block)]


def of_items(code: int, octets: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, 40).map(lambda count: attribute(0xC0, code, bytes(range(octets)) * count))


usual_blocks = st.tuples(
    st.sampled_from(["40010100", "40010102", "40010103"]).map(bytes.fromhex),
    st.lists(st.integers(0, 3).map(lambda asn: asn.to_bytes(4, "big")), max_size=26).map(
        lambda asns: attribute(0x40, 2, bytes([2, len(asns)]) + b"".join(asns) if asns else b"")
    ),
    st.sampled_from([NEXT_HOP, b"", bytes.fromhex("400304e0000001")]),
    st.sampled_from([b"", bytes.fromhex("80040400000005")]),
    st.sampled_from([b"", LOCAL_PREF]),
    st.sampled_from([b"", bytes.fromhex("400600")]),
    st.sampled_from([b"", bytes.fromhex("c007080000fde9c0000201"), bytes.fromhex("c0070800000000c0000201")]),
    of_items(8, 4),
    st.one_of(st.just(b""), of_items(32, 12)),
    st.sampled_from([b"", bytes.fromhex("800904c0000201"), bytes.fromhex("800904c0000201 800a0801020304 05060708")]),
    of_items(16, 8),
    of_items(32, 12),
).map(b"".join)


@given(st.one_of(usual_blocks, blocks), st.booleans())
def test_the_match_of_the_usual_set_takes_only_what_the_walk_takes(block: bytes, is_ebgp: bool) -> None:
    usual = scan_usual(block, is_ebgp)
    if usual is None:
        return
    walked = scan_nominal(block, is_ebgp)
    assert walked is not None
    assert (usual.block, usual.next_hop, usual.seen) == (walked.block, walked.next_hop, walked.seen)
    assert usual.seen & 0b110 == 0b110
    assert is_ebgp or usual.seen >> 5 & 1, "LOCAL_PREF is mandatory on an internal session"
    codes = [code for _, code, _ in split_block(block[: usual.local_pref_at])]
    assert codes == [code for code in (1, 2, 3, 4) if usual.seen >> code & 1], "where LOCAL_PREF belongs"
    if at := usual.reflect_at:
        assert not is_ebgp
        assert (
            Reflector(b"rrrr").reflected(block, b"oooo") == block[:at] + Reflector(b"rrrr").added(b"oooo") + block[at:]
        )
    elif not is_ebgp:
        assert usual.seen >> 9 & 3


@pytest.mark.parametrize("is_ebgp", [True, False])
@pytest.mark.parametrize(
    "more",
    [
        "",
        "c00808fde80001fde80002",
        "400600 c007080000fde9c0000201 c00804fde80001 c01008 0002fde800000001 c0200c 0000fde80000000100000002",
        "c00804fde80001 c0200c 0000fde80000000100000002 c01008 0002fde800000001",  # as FRR orders them
    ],
)
def test_what_daemons_send_is_usual(is_ebgp: bool, more: str) -> None:
    med = bytes.fromhex("80040400000005")
    assert scan_usual(BASE + med + (b"" if is_ebgp else LOCAL_PREF) + bytes.fromhex(more), is_ebgp) is not None


@given(blocks, st.booleans(), st.booleans())
def test_any_block_becomes_a_set_that_scans_clean_or_an_error(block: bytes, is_ebgp: bool, four: bool) -> None:
    try:
        first = scan(block, is_ebgp=is_ebgp, four_octet_asn=four)
    except NotificationError:
        return
    if first.fault is None and any(code == 2 for _, code, _ in first.kept):
        again = scan(first.attributes(b"").block, is_ebgp=is_ebgp)
        assert again.fault is None
        assert not again.notes


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize(
    ("bad", "outcome", "why"),
    [
        ("40 01 01 07", "withdraw", "ORIGIN 7"),
        ("40 01 02 0000", "withdraw", "ORIGIN of two octets"),
        ("c0 01 01 00", "withdraw", "ORIGIN flagged optional"),
        ("40 02 04 05 01 fde9", "withdraw", "segment type 5"),
        ("40 02 02 02 00", "withdraw", "segment without AS numbers"),
        ("40 02 06 02 01 00000000", "withdraw", "AS 0"),
        ("40 02 06 03 01 0000fde9", "withdraw", "confederation segment from an external peer"),
        ("40 03 05 c000020101", "withdraw", "NEXT_HOP of five octets"),
        ("40 03 04 00000000", "withdraw", "NEXT_HOP 0.0.0.0"),
        ("40 03 04 e0000001", "withdraw", "NEXT_HOP multicast"),
        ("80 04 03 000001", "withdraw", "MED of three octets"),
        ("40 05 04 00000064", "discard", "LOCAL_PREF from an external peer"),
        ("40 06 01 00", "discard", "ATOMIC_AGGREGATE with a value"),
        ("c0 07 06 fde9c0000201", "discard", "AGGREGATOR of the 2-octet form"),
        ("c0 07 08 00000000c0000201", "discard", "AGGREGATOR with AS 0"),
        ("c0 08 00", "withdraw", "COMMUNITIES without a community"),
        ("c0 08 05 fde8000101", "withdraw", "COMMUNITIES of five octets"),
        ("80 09 03 010203", "discard", "ORIGINATOR_ID from an external peer, whatever is in it"),
        ("80 0a 04 01020304", "discard", "CLUSTER_LIST from an external peer"),
        ("c0 10 07 00020000000000", "withdraw", "EXTENDED_COMMUNITIES of seven octets"),
        ("c0 11 06 02 01 0000fde9", "discard", "AS4_PATH on a 4-octet session"),
        ("c0 20 0b 0000fde80000000100000002"[:-2], "withdraw", "LARGE_COMMUNITIES of eleven octets"),
    ],
)
def test_a_malformed_attribute_costs_its_routes_or_itself(bad: str, outcome: str, why: str, place: str) -> None:
    others = [part for part in (ORIGIN, PATH, NEXT_HOP) if part[1] != int(bad.split()[1], 16)]
    at = {"first": 0, "middle": 1, "last": len(others)}[place]
    found = scan(b"".join([*others[:at], bytes.fromhex(bad), *others[at:]]))
    if outcome == "withdraw":
        assert found.fault is not None, why
    else:
        assert found.fault is None, why
        assert len(found.notes) == 1
        assert int(bad.split()[1], 16) not in [code for _, code, _ in split_block(found.attributes(b"").block)]


def test_an_unknown_well_known_attribute_resets_the_session() -> None:
    with pytest.raises(NotificationError) as caught:
        scan(BASE + bytes.fromhex("40 63 01 00"))
    assert (caught.value.code, caught.value.subcode, caught.value.data) == (3, 2, bytes.fromhex("40 63 01 00"))


def test_unknown_transitive_attributes_pass_marked_partial_and_others_do_not() -> None:
    found = scan(BASE + bytes.fromhex("c0 63 01 aa") + bytes.fromhex("80 64 01 bb"))
    assert split_block(found.attributes(b"").block)[-1] == (0xE0, 0x63, b"\xaa")


def test_the_allow_list_stops_unknown_attributes_and_counts_them() -> None:
    block = BASE + bytes.fromhex("c0 63 01 aa") + bytes.fromhex("c0 64 01 bb")
    found = Scan(block, is_ebgp=True, four_octet_asn=True, passes=frozenset({0x64}))
    assert [code for _, code, _ in split_block(found.attributes(b"").block)] == [1, 2, 3, 0x64]
    assert found.dropped == 1


def test_the_second_of_two_is_discarded_and_the_first_holds() -> None:
    found = scan(BASE + bytes.fromhex("80 04 04 00000001") + bytes.fromhex("80 04 04 00000002"))
    assert found.attributes(b"").fields.med == 1


def test_a_discarded_first_of_two_does_not_let_the_second_in() -> None:
    found = scan(BASE + bytes.fromhex("40 06 01 00") + bytes.fromhex("40 06 00"))
    assert [code for _, code, _ in split_block(found.attributes(b"").block)] == [1, 2, 3]


def as4(path: str, as4_path: str, aggregator: str = "", as4_aggregator: str = "") -> PathAttributes:
    block = ORIGIN + attribute(0x40, 2, bytes.fromhex(path)) + NEXT_HOP
    if aggregator:
        block += attribute(0xC0, 7, bytes.fromhex(aggregator))
    if as4_path:
        block += attribute(0xC0, 17, bytes.fromhex(as4_path))
    if as4_aggregator:
        block += attribute(0xC0, 18, bytes.fromhex(as4_aggregator))
    return scan(block, four_octet_asn=False).attributes(b"")


@pytest.mark.parametrize(
    ("path", "wide", "text"),
    [
        ("02 03 fde9 5ba0 fdea", "02 02 00030d40 0000fdea", "65001 200000 65002"),
        ("02 01 fde9", "", "65001"),
        ("02 01 5ba0", "02 02 00030d40 0000fdea", "23456"),  # longer than AS_PATH: ignored
        ("02 02 fde9 5ba0 01 01 fdeb", "02 01 00030d40 01 01 0000fdeb", "65001 200000 {65003}"),
    ],
)
def test_as4_path_of_a_2_octet_peer_is_merged(path: str, wide: str, text: str) -> None:
    assert as_path.text(as4(path, wide).fields.as_path) == text


def test_as4_path_is_out_of_date_if_somebody_aggregated_without_it() -> None:
    made = as4("02 01 5ba0", "02 01 00030d40", "fde9 c0000201", "00030d40 c0000202")
    assert as_path.text(made.fields.as_path) == "23456"
    assert made.fields.aggregator == bytes.fromhex("0000fde9 c0000201")


paths = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=6).map(tuple)),
    max_size=4,
).map(as_path.join)


@given(paths)
def test_a_path_survives_a_2_octet_peer(path: bytes) -> None:
    narrow, wide = as_path.narrow(path)
    back = as_path.widen(narrow)
    if wide:
        back = as_path.merge(back, wide)
    assert as_path.text(back) == as_path.text(path)


@given(paths, st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=3).map(tuple))
def test_prepending_puts_numbers_in_front_and_adds_to_the_length(path: bytes, numbers: tuple[int, ...]) -> None:
    longer = as_path.prepend(path, numbers)
    assert as_path.leading_sequence(longer)[: len(numbers)] == numbers
    assert as_path.length(longer) == as_path.length(path) + len(numbers)


def test_a_built_set_reads_back() -> None:
    made = build(next_hop=b"\xc0\0\2\1", med=5, local_pref=200, communities=b"\xfd\xe8\0\1")
    assert scan_nominal(made.block, False) is not None
    assert (made.fields.med, made.fields.local_pref, made.fields.communities) == (5, 200, b"\xfd\xe8\0\1")


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("20010db8000000000000000000000001" + "fe80" + 13 * "00" + "01", None),
        (16 * "00" + "fe80" + 13 * "00" + "01", "fe80" + 13 * "00" + "01"),  # BIRD on a link without other addresses
        (2 * ("fe80" + 13 * "00" + "01"), "fe80" + 13 * "00" + "01"),  # FRR there
        ("fe80" + 13 * "00" + "01", None),
        ("c0000201", None),
    ],
)
def test_a_pair_of_next_hops_without_a_global_one_is_the_link_local_one(sent: str, meant: str | None) -> None:
    assert one_next_hop(bytes.fromhex(sent)) == bytes.fromhex(meant or sent)
