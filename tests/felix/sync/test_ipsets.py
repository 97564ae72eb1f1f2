"""Members of sets as ipset shows them, and the lines that bring a set from one state to another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from felix.desired import IPSetType, IPVersion
from felix.sync.ipsets import IPSetBook, SavedSet, canonical, read_saved

NETS = ["10.0.0.1/32", "10.0.0.1", "10.1.0.0/16", "10.1.2.3/16", "0.0.0.0/0", "0.0.0.0/1", "fd00::1/128", "x", "1.2.3"]


@pytest.mark.parametrize(
    ("type", "version", "member", "shown"),
    [
        ("net", 4, "10.0.0.1/32", ("10.0.0.1",)),
        ("net", 4, "10.1.0.0/16", ("10.1.0.0/16",)),
        ("net", 4, "0.0.0.0/0", ("0.0.0.0/1", "128.0.0.0/1")),
        ("net", 6, "::/0", ("::/1", "8000::/1")),
        ("net", 6, "fd00::1/128", ("fd00::1",)),
        ("net", 4, "fd00::1/128", ()),
        ("ip,port", 4, "10.0.0.1,tcp:80", ("10.0.0.1,tcp:80",)),
        ("ip,port", 4, "10.0.0.1,tcp: 080", ("10.0.0.1,tcp:80",)),
        ("ip,port", 6, "10.0.0.1,tcp:80", ()),
        ("ip,port", 6, "FD00::1,sctp:80", ("fd00::1,sctp:80",)),
    ],
)
def test_members_are_written_as_ipset_shows_them(
    type: IPSetType, version: IPVersion, member: str, shown: tuple[str, ...]
) -> None:
    assert canonical(type, version, member) == shown


@pytest.mark.parametrize("member", ["", "10.0.0.1", "10.0.0.1,tcp", "10.0.0.1,tcp:x", "10.0.0.1,icmp:1", ",tcp:80"])
def test_what_is_no_address_and_port_is_an_error(member: str) -> None:
    with pytest.raises(ValueError, match="no address and port"):
        canonical("ip,port", 4, member)


def fresh(size: int = 1000) -> IPSetBook:
    book = IPSetBook("s:x", "cali40s:x", "net", 4)
    book.adopt(SavedSet("hash:net", "inet", size, frozenset()))
    return book


def carry_out(book: IPSetBook, there: set[str]) -> None:
    """As the filter does; `there` is the kernel's set."""
    for member, line in list(book.additions()):
        assert line == f"add cali40s:x {member} -exist"
        there.add(member)
        book.to_add.discard(member)
    for member, line in list(book.deletions()):
        assert line == f"del cali40s:x {member} -exist"
        there.discard(member)
        book.to_remove.discard(member)


def meant(members: set[str]) -> set[str]:
    found: set[str] = set()
    for member in members:
        try:
            found.update(canonical("net", 4, member))
        except ValueError:
            pass
    return found


members = st.sets(st.sampled_from(NETS))
steps = st.lists(st.tuples(st.sampled_from(["replace", "change", "carry out", "read"]), members, members), max_size=12)


@settings(max_examples=200, deadline=None)
@given(steps, members)
def test_whatever_is_told_the_kernel_has_it_in_the_end(
    told: list[tuple[str, set[str], set[str]]], others: set[str]
) -> None:
    book, there, wanted = fresh(), set[str](), set[str]()
    for what, some, more in told:
        match what:
            case "replace":
                book.replace(some)
                wanted = set(some)
            case "change":
                book.change(some, more)
                wanted = (wanted - more) | some
            case "carry out":
                carry_out(book, there)
                assert there == meant(wanted)
            case "read":
                there ^= meant(others)
                book.adopt(SavedSet("hash:net", "inet", 1000, frozenset(there)))
        assert book.standing() == there
    carry_out(book, there)
    assert there == meant(wanted)
    assert not book.differs
    assert book.bad == {one for one in wanted if one in ("x", "1.2.3")}


def test_a_set_of_another_kind_is_in_the_way() -> None:
    book = fresh()
    assert not book.adopt(SavedSet("hash:ip,port", "inet", 10, frozenset()))
    assert not book.adopt(SavedSet("hash:net", "inet6", 10, frozenset()))
    assert book.adopt(None)
    assert not book.is_there


def test_a_full_set_needs_room_before_it_takes_more() -> None:
    book = fresh(size=2)
    book.replace({"10.0.0.1/32", "10.0.0.2/32"})
    assert not book.needs_room()
    carry_out(book, set())
    book.change({"10.0.0.3/32"}, {"10.0.0.1/32"})
    assert book.needs_room()
    assert book.room(2) == 3
    lines = [line for _, line in book.additions("cali4t1")]
    assert lines == [f"add cali4t1 10.0.0.{n} -exist" for n in (1, 2, 3)]


def test_only_sets_of_ours_and_of_this_version_are_read() -> None:
    text = """create cali40s:a hash:net family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add cali40s:a 10.0.0.1
add cali40s:a 10.1.0.0/16
create cali60s:a hash:net family inet6 hashsize 1024 maxelem 65536
add cali60s:a fd00::1
create felix-4-all hash:ip family inet hashsize 64 maxelem 100
create docker hash:net family inet hashsize 1024 maxelem 65536
add docker cali40s:b
create cali4t0 bitmap:port range 0-65535
"""
    assert read_saved(text, 4) == {
        "cali40s:a": SavedSet("hash:net", "inet", 65536, frozenset({"10.0.0.1", "10.1.0.0/16"})),
        "felix-4-all": SavedSet("hash:ip", "inet", 100, frozenset()),
        "cali4t0": SavedSet("bitmap:port", "", 0, frozenset()),
    }
    assert set(read_saved(text, 6)) == {"cali60s:a", "felix-4-all"}
