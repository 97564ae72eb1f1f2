"""The netlink message for a pod's interface: a veth pair across two namespaces. Pure."""

from __future__ import annotations

import struct

from felix.kernel.devices import (
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    LINK,
    octets_of,
)
from felix.kernel.links import RTM_NEWLINK
from felix.kernel.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, attribute, message

_IFLA_NET_NS_FD, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 28, 31, 32
_VETH_INFO_PEER = 1


def _named(name: str, mtu: int, mac: str, queues: int) -> bytes:
    said = attribute(IFLA_IFNAME, name.encode() + b"\0") + attribute(IFLA_MTU, struct.pack("=I", mtu))
    if mac:
        said += attribute(IFLA_ADDRESS, octets_of(mac))
    if queues > 1:
        said += attribute(_IFLA_NUM_TX_QUEUES, struct.pack("=I", queues))
        said += attribute(_IFLA_NUM_RX_QUEUES, struct.pack("=I", queues))
    return said


def create_veth(
    sequence: int,
    *,
    host: str,
    host_mac: str,
    container: str,
    container_mac: str,
    namespace: int,
    mtu: int,
    queues: int,
) -> bytes:
    """Both ends at once, the container's in the open namespace. A MAC that is empty is drawn by the kernel.

    One message: nothing can come between, neither another's ADD nor a udev rule that renames.
    """
    peer = LINK.pack(0, 0, 0, 0, 0, 0) + _named(container, mtu, container_mac, queues)
    peer += attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace))
    info = attribute(IFLA_INFO_KIND, b"veth") + attribute(IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
    body = LINK.pack(0, 0, 0, 0, 0, 0) + _named(host, mtu, host_mac, queues) + attribute(IFLA_LINKINFO, info)
    return message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sequence, body)
