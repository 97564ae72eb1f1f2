"""Which address of a real kernel each method finds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from integration.node.startup.detection import Detected, detect, read_method
from integration.node.startup.interfaces import read_interfaces
from integration.node.startup.variables import StartUpError, Variables
from tests.netns import Namespace, network_namespace, wire

METHOD = "IP_AUTODETECTION_METHOD"


@pytest.fixture(scope="module")
def node() -> Iterator[Namespace]:
    """Five interfaces, in this order; the last two are Calico's own and a container runtime's."""
    with network_namespace() as namespace, network_namespace() as outside:
        for name in ("eth0", "eth1", "ens9", "cali123", "docker0"):
            wire(namespace, name, outside, f"to-{name}")
        namespace.ip_batch(
            "address add 10.1.0.1/24 dev eth0\n"
            "address add 10.1.0.9/24 dev eth0\n"
            "address add 2001:db8:1::1/64 dev eth0\n"
            "address add 172.20.0.1/20 dev eth1\n"
            "address add 169.254.7.7/16 dev ens9\n"
            "address add 10.3.0.1/16 dev ens9\n"
            "address add 2001:db8:3::1/56 dev ens9\n"
            "address add 10.4.0.1/24 dev cali123\n"
            "address add 10.5.0.1/24 dev docker0\n"
            "route add 198.51.100.0/24 via 172.20.0.99\n"
            "route add default via 10.1.0.254\n"
            "route add 2001:db8:ffff::/48 via 2001:db8:1::99\n"
        )
        yield namespace


def find(node: Namespace, method: str, version: int = 4, internal_ips: list[str] | None = None) -> Detected:
    async def main() -> Detected:
        return await detect(read_method(Variables({METHOD: method}), METHOD), version, read_interfaces(), internal_ips)

    return node.call(lambda: asyncio.run(main()))


@pytest.mark.root
@pytest.mark.parametrize(
    ("method", "version", "address"),
    [
        # The interface that came last is asked first; ens9's link-local address does not count.
        ("", 4, "10.3.0.1/16"),
        ("first-found", 4, "10.3.0.1/16"),
        ("first-found", 6, "2001:db8:3::1/56"),
        ("interface=eth.*", 4, "172.20.0.1/20"),
        ("interface=eth.*", 6, "2001:db8:1::1/64"),
        ("interface=eth0,nosuch", 4, "10.1.0.1/24"),
        ("interface=cali", 4, "10.4.0.1/24"),  # what is asked for is not passed over
        ("interface=h0", 4, "10.1.0.1/24"),  # anywhere in the name
        ("skip-interface=ens.*", 4, "172.20.0.1/20"),
        ("skip-interface=ens.*, eth1", 4, "10.1.0.1/24"),
        ("cidr=10.1.0.0/16", 4, "10.1.0.1/24"),
        ("cidr=192.0.2.0/24,10.5.0.0/16", 4, "10.5.0.1/24"),
        ("cidr=10.1.0.8/29", 4, "10.1.0.9/24"),
        ("cidr=10.0.0.0/8,2001:db8:1::/48", 6, "2001:db8:1::1/64"),
        ("can-reach=198.51.100.7", 4, "172.20.0.1/20"),
        ("can-reach=203.0.113.1", 4, "10.1.0.1/24"),
        ("can-reach=2001:db8:ffff::1", 6, "2001:db8:1::1/64"),
    ],
)
def test_a_method_finds(node: Namespace, method: str, version: int, address: str) -> None:
    assert str(find(node, method, version).address) == address


@pytest.mark.root
def test_kubernetes_internal_ip_gets_its_length_from_the_interface(node: Namespace) -> None:
    known = ["2001:db8:3::1", "172.20.0.1"]
    assert str(find(node, "kubernetes-internal-ip", 4, known).address) == "172.20.0.1/20"
    assert str(find(node, "kubernetes-internal-ip", 6, known).address) == "2001:db8:3::1/56"


@pytest.mark.root
@pytest.mark.parametrize(
    ("method", "version", "internal_ips", "why"),
    [
        ("interface=wlan.*", 4, None, "no interface with a matching name has a global IPv4 address"),
        ("interface=cali", 6, None, "no interface with a matching name has a global IPv6 address"),
        ("cidr=192.0.2.0/24", 4, None, "no interface in these networks"),
        ("skip-interface=e.*", 4, None, "no interface that is not passed over"),
        ("can-reach=2001:db8:9999::1", 6, None, "no way to 2001:db8:9999::1 over IPv6"),
        ("kubernetes-internal-ip", 4, None, "under no Kubernetes"),
        ("kubernetes-internal-ip", 4, ["2001:db8::1"], "no InternalIP of IPv4"),
        ("kubernetes-internal-ip", 4, ["192.0.2.1"], "the InternalIP 192.0.2.1 is on no interface"),
    ],
)
def test_a_method_that_finds_nothing_says_why(
    node: Namespace, method: str, version: int, internal_ips: list[str] | None, why: str
) -> None:
    found = find(node, method, version, internal_ips)
    assert found.address is None
    assert why in found.why


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("first", "'first' is no method; use first-found"),
        ("interface=", "is no method"),
        ("interface=eth(", "is no regular expression"),
        ("cidr=10.0.0.0/99", "10.0.0.0/99"),
        ("can-reach", "is no method"),
    ],
)
def test_a_method_that_cannot_be_meant_names_the_variable(method: str, words: str) -> None:
    with pytest.raises(StartUpError, match=f"^{METHOD}: ") as refused:
        read_method(Variables({METHOD: method}), METHOD)
    assert words in str(refused.value)
