"""`catbird felix` on two nodes over one datastore file: what is written there becomes tunnels, and pods reach each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.felix.dataplane.programs import Programs, cluster, node_resource, of, pools, programs

pytestmark = pytest.mark.root


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Programs]:
    with programs(tmp_path) as made:
        yield made


def test_a_life_with_vxlan(both: Programs) -> None:
    both.write({**cluster(1, 2), **pools(vxlanMode="Always")})
    for number in (1, 2):
        both.start(number)
    both.until(lambda: both.ping(1, "10.65.2.2") and both.ping(1, "fd65:2::2"))
    node = both.nodes[1]
    before = node.ifindex("vxlan.calico")
    assert node.ip_json("link show dev vxlan.calico")[0]["mtu"] == 1450
    assert node.ip_json("link show dev vxlan-v6.calico")[0]["mtu"] == 1430
    assert both.mtu_file(1) == "1430"

    # a restart adopts what is there
    both.stop(1)
    assert both.ping(2, "10.65.1.2")
    both.start(1)
    both.until(lambda: "felix_started" in both.log(1) and both.ping(1, "10.65.2.2"))
    assert node.ifindex("vxlan.calico") == before

    # somebody deletes the device
    node.ip("link delete vxlan.calico")
    both.until(lambda: both.ping(1, "10.65.2.2"))
    assert "vxlan.calico" in node.ip("route show 10.65.2.0/26")

    # the configuration changes while packets flow
    both.write(dict([of("FelixConfiguration", "default", {"vxlanPort": 4790, "vxlanMTU": 1300})]))
    both.until(lambda: both.mtu_file(1) == both.mtu_file(2) == "1300")
    both.until(lambda: both.ping(1, "10.65.2.2"))
    assert "dstport 4790" in node.ip("-d link show vxlan.calico")

    # within one subnet no tunnel is needed
    both.write({**pools(vxlanMode="CrossSubnet")})
    both.until(lambda: "via 172.16.0.2 dev eth0" in node.ip("route show 10.65.2.0/26"))
    both.until(lambda: both.ping(1, "10.65.2.2") and both.ping(1, "fd65:2::2"))

    # the other node goes
    gone = node_resource(2)[0]
    both.stop(2)
    both.write({gone: None, **{key: None for key in cluster(2) if key.kind == "IPAMBlock"}})
    both.until(
        lambda: not node.ip("route show 10.65.2.0/26") and not node.ip("neigh show dev vxlan.calico nud permanent")
    )

    # and nobody wants tunnels any more
    both.write({**pools()})
    both.until(lambda: "vxlan" not in node.ip("link show"))
    assert "defect" not in both.log(1)
