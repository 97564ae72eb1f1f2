"""The commands against a real etcd server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.commands import Commands, peer
from tests.integration.datastore.etcd_servers import Etcd, etcd

pytestmark = pytest.mark.interop
CLUSTER = Path(__file__).parent / "cluster.yaml"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Etcd]:
    with etcd(tmp_path) as running:
        yield running


def test_resources_lie_where_calico_looks_for_them(catbird: Commands, server: Etcd) -> None:
    catbird.store = "etcd:" + ",".join(server.endpoints)
    assert catbird("apply", "-f", str(CLUSTER)).out == "Successfully applied 6 resource(s)\n"
    stored = json.loads(server.ctl("get", "--print-value-only", "/calico/resources/v3/projectcalico.org/bgppeers/tor7"))
    assert stored["spec"]["peerIP"] == "192.0.2.1:1790"
    assert "resourceVersion" not in stored["metadata"]
    assert catbird("patch", "bgppeer", "tor7", "-p", "spec: {asNumber: 65002}").code == 0
    assert catbird("label", "node", "b", "rack=7").code == 0
    view = catbird("bgp-config", "--node", "b", "-o", "json").json
    assert [(one["name"], one["remote_asn"]) for one in view["peers"]] == [
        ("Mesh_192_0_2_11", 64512),
        ("Node_192_0_2_1_port_1790", 65002),
    ]
    planned = catbird("plan", "-f", "-", "--node", "a", "-o", "json", stdin=peer("tor8", "192.0.2.8")).json
    assert [one["name"] for one in planned["nodes"][0]["peers_added"]] == ["Global_192_0_2_8"]
    assert catbird("delete", "-f", str(CLUSTER)).code == 0
    assert server.ctl("get", "--prefix", "--keys-only", "/calico/resources").split() == []
