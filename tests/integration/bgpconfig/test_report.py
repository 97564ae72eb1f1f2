"""The dry run: all that a node would do, as JSON."""

from __future__ import annotations

import json

from bgp.toml import loads
from tests.bgp.toml_text import to_toml
from tests.integration.bgpconfig.cluster import MAX, config_of

TEXT = """
Node a: {bgp: {ipv4Address: 10.0.0.1/24, routeReflectorClusterID: 1.0.0.1}}
Node b: {bgp: {ipv4Address: 10.0.0.2/24}}
IPPool plain: {cidr: 10.1.0.0/16}
BlockAffinity host:a/10.1.0.0-26: {}
BGPFilter f: {exportV4: [{cidr: 10.9.0.0/16, matchOperator: In, action: Accept}]}
BGPPeer all: {nodeSelector: all(), peerIP: 10.0.0.2, asNumber: 64512, filters: [f], keepaliveTime: 5s, maxRestartTime: 60s}
"""


def test_a_peer_says_all_that_is_set_and_where_it_comes_from() -> None:
    (peer,) = config_of(TEXT).to_json()["peers"]
    assert peer == {
        "name": "Node_10_0_0_2",
        "address": "10.0.0.2",
        "port": 179,
        "remote_asn": 64512,
        "local_asn": 64512,
        "passive": False,
        "password": False,
        "source": "10.0.0.1",
        "ttl_security": None,
        "multihop": 64,
        "client": True,
        "cluster_id": "1.0.0.1",
        "next_hop": "auto",
        "graceful_restart_s": 60,
        "keepalive_s": 5,
        "allow_own_asn": 0,
        "filters": ["f"],
        "from": ["BGPPeer all", "Node b", "BGPFilter f"],
    }


def test_the_rest_is_beside_it() -> None:
    report = config_of(TEXT).to_json()
    assert (report["node"], report["asn"], report["router_id"], report["cluster_id"]) == (
        "a",
        64512,
        "10.0.0.1",
        "1.0.0.1",
    )
    assert report["listen"] == {"addresses": ["0.0.0.0"], "port": 179}
    assert report["originate"] == [{"prefix": "10.1.0.0/26", "blackhole": True, "local_pref": MAX - 1024}]
    assert list(report["export"]) == ["export ipv4 f"]
    assert report["kernel"]["priority_base"] == MAX
    assert report["problems"] == []
    assert json.loads(json.dumps(report)) == report


def test_a_speaker_with_a_file_could_run_the_same() -> None:
    """What the engine refuses in a file it is never given from resources."""
    from bgp.toml import config_to_dict

    speaker = config_of(TEXT).speaker
    assert loads(to_toml(config_to_dict(speaker))) == speaker
