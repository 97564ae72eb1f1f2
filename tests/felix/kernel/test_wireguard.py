"""WireGuard's messages: what is written is what is read, in as many pieces as it takes."""

from __future__ import annotations

import base64
import struct

import pytest

from felix.kernel.netlink import NetlinkFormatError, attribute
from felix.kernel.wireguard import (
    OCTETS_AT_ONCE,
    DeviceReader,
    KernelWireguard,
    device_parts,
    in_messages,
    peer_parts,
    removed_peer_parts,
)
from felix.sync.wireguard import Peer
from tests.netns import network_namespace

KEY = base64.b64encode(bytes(range(32))).decode()
HEADER = bytes(4)


def peer(number: int, networks: int = 1, address: str = "172.16.0.1") -> Peer:
    key = base64.b64encode(number.to_bytes(32, "big")).decode()
    return Peer(key, (address, 51820), frozenset(f"10.{n >> 8}.{n & 255}.0/24" for n in range(networks)), 25)


def test_a_peer_is_written_as_the_kernel_s_header_says() -> None:
    (parts,) = peer_parts(Peer(KEY, ("172.16.0.2", 51820), frozenset({"10.65.2.0/26"}), 25))
    assert parts.hex(" ", 4) == (
        "24000100 00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f "  # WGPEER_A_PUBLIC_KEY
        "08000300 02000000 "  # WGPEER_A_FLAGS: REPLACE_ALLOWEDIPS
        "14000400 0200ca6c ac100002 00000000 00000000 "  # WGPEER_A_ENDPOINT: AF_INET, port 51820, 172.16.0.2
        "06000500 19000000 "  # WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
        "20000980 1c000080 "  # WGPEER_A_ALLOWEDIPS, the first of them
        "06000100 02000000 08000200 0a410200 05000300 1a000000"  # family, address, length
    )


@pytest.mark.parametrize("address", ["172.16.0.1", "fd16::1"])
def test_peers_survive_the_way_there_and_back(address: str) -> None:
    wanted = {one.key: one for one in (peer(number, number * 3, address) for number in range(1, 400))}
    reader = DeviceReader()
    messages = list(in_messages(piece for one in wanted.values() for piece in peer_parts(one)))
    assert len(messages) > 1
    assert all(len(one) <= OCTETS_AT_ONCE + 32_000 < 65_536 for one in messages)
    for one in messages:
        reader.take(HEADER + one, 0, len(HEADER) + len(one))
    assert reader.state().peers == wanted


def test_a_peer_with_very_many_networks_goes_in_pieces_of_which_the_first_replaces() -> None:
    one = peer(1, 5000)
    pieces = list(peer_parts(one))
    assert len(pieces) == 10
    assert max(map(len, pieces)) < 65_000
    assert [b"\x08\x00\x03\x00\x02" in piece for piece in pieces] == [True] + [False] * 9
    reader = DeviceReader()
    for message in in_messages(pieces):
        reader.take(HEADER + message, 0, len(HEADER) + len(message))
    assert reader.state().peers == {one.key: one}


def test_port_mark_and_key_are_read_and_a_key_of_zeros_is_none() -> None:
    reader = DeviceReader()
    parts = device_parts(51820, 0x200000) + attribute(4, bytes(32))
    reader.take(HEADER + parts, 0, 4 + len(parts))
    state = reader.state()
    assert (state.port, state.mark, state.public_key) == (51820, 0x200000, "")


def test_a_peer_that_goes_is_named_and_flagged() -> None:
    assert removed_peer_parts(KEY).endswith(struct.pack("=HHI", 8, 3, 1))


@pytest.mark.parametrize("cut", [1, 3, 5, 9])
def test_what_is_cut_short_is_said_to_be(cut: int) -> None:
    parts = next(iter(in_messages(peer_parts(peer(1)))))
    with pytest.raises(NetlinkFormatError):
        DeviceReader().take(HEADER + parts[:-cut], 0, 4 + len(parts) - cut)


@pytest.mark.root
def test_a_kernel_without_wireguard_is_said_to_be_one() -> None:
    """On one that has it, no such device is what it says."""
    with network_namespace() as namespace:
        wireguard = namespace.call(KernelWireguard)
        with pytest.raises(OSError, match=r"WireGuard|No such device"):
            wireguard.read(99)
        wireguard.close()
