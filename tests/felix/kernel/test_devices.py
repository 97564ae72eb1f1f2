"""Devices, addresses and neighbours as netlink says them: what is written is what is read, and nothing else gets through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix.kernel.devices import (
    add_address,
    change_link,
    create_device,
    delete_address,
    octets_of,
    read_link,
    vxlan_attributes,
)
from felix.kernel.links import decode_address
from felix.kernel.neighbours import delete_neighbour, put_neighbour, read_neighbour
from felix.kernel.netlink import HEADER_OCTETS, NetlinkFormatError
from felix.kernel.policy_routing import RTM_NEWRULE, UnlessMarked, read_rule, rule_message
from felix.kernel.wireguard import DeviceReader
from felix.sync.devices import FdbEntry, Neighbour, VxlanParameters

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
macs = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))


@given(st.integers(1, 2**24 - 1), st.integers(1, 65535), addresses, st.integers(1, 2**31 - 1), st.booleans(), macs)
def test_a_vxlan_device_is_read_as_it_is_written(
    vni: int, port: int, local: str, parent: int, learns: bool, mac: str
) -> None:
    wanted = VxlanParameters(vni, port, local, parent, learns)
    data = create_device(1, "vxlan.calico", "vxlan", 1450, mac, vxlan_attributes(wanted))
    link = read_link(data, HEADER_OCTETS, len(data))
    assert (link.name, link.kind, link.mtu, link.mac, link.vxlan) == ("vxlan.calico", "vxlan", 1450, mac, wanted)
    assert not link.is_up


def test_a_change_says_nothing_of_what_is_to_stay() -> None:
    assert len(change_link(1, 7)) == HEADER_OCTETS + 16
    link = read_link(data := change_link(1, 7, is_up=True, mtu=1400), HEADER_OCTETS, len(data))
    assert (link.index, link.is_up, link.mtu, link.mac) == (7, True, 1400, "")


@given(addresses)
def test_an_address_is_read_as_it_is_written(address: str) -> None:
    data = add_address(1, 7, address)
    decoded = decode_address(data, HEADER_OCTETS, len(data))
    assert decoded is not None
    found, is_usable = decoded
    assert (found.ifindex, found.bits, is_usable) == (7, 128 if ":" in address else 32, True)
    assert len(delete_address(1, 7, address)) < len(data)  # no other end is named


@given(st.one_of(st.builds(Neighbour, addresses, macs), st.builds(FdbEntry, macs, addresses)))
def test_neighbours_and_forwarding_entries_are_read_as_they_are_written(one: Neighbour | FdbEntry) -> None:
    for data in (put_neighbour(1, 7, one), delete_neighbour(1, 7, one)):
        assert read_neighbour(data, HEADER_OCTETS, len(data)) == (7, one)


@given(st.integers(1, 32765), st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1), st.sampled_from([4, 6]))
def test_a_rule_is_read_as_it_is_written(priority: int, mark: int, table: int, version: int) -> None:
    rule = UnlessMarked(priority, mark, table)
    data = rule_message(RTM_NEWRULE, 0, 1, 4 if version == 4 else 6, rule)
    assert read_rule(data, HEADER_OCTETS, len(data)) == rule


READERS: list[Callable[[bytes, int, int], object]] = [
    read_link, read_neighbour, read_rule, lambda data, start, end: DeviceReader().take(data, start, end)
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
@given(data=st.binary(max_size=120))
def test_no_bytes_raise_anything_but_a_format_error(read: Callable[[bytes, int, int], object], data: bytes) -> None:
    try:
        read(data, 0, len(data))
    except NetlinkFormatError:
        pass


@pytest.mark.parametrize("text", ["", "66:00", "66:00:00:00:00:01:02", "zz:00:00:00:00:01"])
def test_what_is_no_mac_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        octets_of(text)
