"""How large packets may be: what each tunnel takes, what is written for the CNI plugin, and what is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from felix.dataplane.mtu import MtuKeeper, Mtus, MtuSettings, mtus
from felix.desired import Host, HostUpdate
from tests.felix.dataplane.nodes import Node
from tests.netns import network_namespace

PATTERN = re.compile("^eth.*")


def settings(*enabled: str, **given: int) -> MtuSettings:
    return MtuSettings("n1", PATTERN, frozenset(enabled), tuple(given.items()), file=None)


@pytest.mark.parametrize(
    ("enabled", "given", "pod"),
    [
        ([], {}, 1500),
        (["ipip"], {}, 1480),
        (["vxlan"], {}, 1450),
        (["vxlan", "vxlan-v6"], {}, 1430),
        (["vxlan", "wireguard"], {}, 1440),
        (["wireguard-v6"], {}, 1420),
        (["ipip"], {"ipip": 1400}, 1400),
        (["ipip"], {"vxlan": 1400}, 1480),
        (["vxlan"], {"vxlan": 8951}, 8951),
    ],
)
def test_pods_have_what_the_greediest_tunnel_leaves(enabled: list[str], given: dict[str, int], pod: int) -> None:
    assert mtus(1500, settings(*enabled, **given)).pod == pod


def test_without_a_host_interface_tunnels_reckon_with_ethernet_and_pods_are_told_nothing() -> None:
    found = mtus(0, settings("vxlan"))
    assert (found.tunnels["vxlan"], found.pod) == (1450, 0)
    assert mtus(0, settings("vxlan", vxlan=1300)).pod == 1300


def test_a_tiny_host_mtu_leaves_something_that_a_kernel_takes() -> None:
    assert mtus(68, settings()).tunnels["vxlan-v6"] >= 68


class MtuNode(Node):
    def begin(self, file: Path | None, **changes: Any) -> MtuKeeper:
        self.restart()
        self.changes: list[Mtus] = []
        self.told: list[str] = []
        self.settings = replace(MtuSettings("n1", PATTERN, frozenset({"vxlan"}), file=file), **changes)
        self.keeper = self.add(
            lambda: MtuKeeper(self.settings, self.changes.append, lambda name, **_: self.told.append(name))
        )
        return self.keeper

    def interface(self, name: str, mtu: int, address: str = "") -> None:
        self.namespace.ip(f"link add {name} mtu {mtu} type veth peer name p-{name}")
        if address:
            self.namespace.ip(f"address add {address} dev {name}")


@pytest.fixture
def node() -> Iterator[MtuNode]:
    with network_namespace() as namespace:
        made = MtuNode(namespace)
        yield made
        made.keeper.close()


@pytest.mark.root
def test_the_smallest_of_the_matching_interfaces_counts(node: MtuNode, tmp_path: Path) -> None:
    file = tmp_path / "calico/mtu"
    for name, mtu in (("eth0", 1500), ("eth1", 1400), ("cali1", 1000), ("xeth", 900)):
        node.interface(name, mtu)
    node.begin(file)
    assert node.apply() == []
    assert file.read_text() == "1350"
    assert [(one.host, one.pod) for one in node.changes] == [(1400, 1350)]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.root
def test_where_none_matches_the_one_with_the_nodes_address_does(node: MtuNode, tmp_path: Path) -> None:
    node.interface("bond0", 9000, "172.16.0.1/24")
    node.begin(tmp_path / "mtu")
    node.apply([HostUpdate(Host("n1", "172.16.0.1"))])
    assert (tmp_path / "mtu").read_text() == "8950"


@pytest.mark.root
def test_where_nothing_is_known_nothing_is_written(node: MtuNode, tmp_path: Path) -> None:
    node.begin(tmp_path / "mtu")
    assert node.apply() == []
    assert not (tmp_path / "mtu").exists()


@pytest.mark.root
def test_an_mtu_that_changes_and_a_file_that_is_lost_are_noticed_by_the_check(node: MtuNode, tmp_path: Path) -> None:
    node.interface("eth0", 1500)
    node.begin(tmp_path / "mtu")
    node.apply()
    node.namespace.ip("link set eth0 mtu 1400")
    assert node.check() == ["the host's MTU is 1400, was 1500"]
    node.apply()
    assert (tmp_path / "mtu").read_text() == "1350"
    (tmp_path / "mtu").unlink()
    assert len(node.check()) == 1
    node.apply()
    assert (tmp_path / "mtu").read_text() == "1350"
    assert node.check() == []


@pytest.mark.root
@pytest.mark.parametrize("is_needed", [True, False])
def test_a_file_that_cannot_be_written_is_a_failure_where_it_is_required(
    node: MtuNode, tmp_path: Path, *, is_needed: bool
) -> None:
    node.interface("eth0", 1500)
    (tmp_path / "file").write_text("")
    node.begin(tmp_path / "file/mtu", requires_file=is_needed)
    failures = node.apply()
    assert len(failures) == (1 if is_needed else 0)
    assert node.told == ([] if is_needed else ["mtu_file_not_written"])
    assert node.changes[-1].pod == 1450
