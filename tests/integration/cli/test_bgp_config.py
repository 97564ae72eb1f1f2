"""bgp-config: what a node runs, from files and from the datastore."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.integration.cli.commands import Commands, peer

CLUSTER = Path(__file__).parent / "cluster.yaml"
GOLDEN = Path(__file__).parent / "bgp_config_of_a.json"


def test_json_is_as_it_was_agreed(catbird: Commands) -> None:
    """The file was read by a person; programs rely on its names."""
    done = catbird("bgp-config", "--node", "a", "-f", str(CLUSTER), "-o", "json")
    assert done.code == 0
    view = done.json
    # What stands in policies is the business of tests/integration/bgpconfig.
    assert set(view.pop("export")) == {"export ipv4", "export ipv4 own"}
    assert view.pop("kernel")["program"] is True
    assert view == json.loads(GOLDEN.read_text())


def test_datastore_and_files_yaml_and_json_say_the_same(catbird: Commands) -> None:
    offline = catbird("bgp-config", "--node", "a", "-f", str(CLUSTER), "-o", "json")
    assert catbird("apply", "-f", str(CLUSTER)).code == 0
    stored = catbird("bgp-config", "--node", "a", "-o", "json")
    assert stored.json == offline.json
    assert yaml.safe_load(catbird("bgp-config", "--node", "a", "-o", "yaml").out) == stored.json


def test_the_table_has_one_line_a_peer_with_where_it_came_from(catbird: Commands) -> None:
    done = catbird("bgp-config", "--node", "a", "-f", str(CLUSTER))
    assert (done.code, done.err) == (0, "")
    assert done.lines == [
        "node a: AS 64512, router ID 192.0.2.11, listens on 0.0.0.0 port 179",
        "",
        "PEER                      ADDRESS         AS     OPTIONS                      FILTERS  FROM",
        "Mesh_192_0_2_12           192.0.2.12      64512  passive, source 192.0.2.11   -        Node b, BGPConfiguration default",
        "Node_192_0_2_1_port_1790  192.0.2.1:1790  65001  password, source 192.0.2.11  own      BGPPeer tor7, "
        "Secret kube-system/bgp, BGPFilter own",
        "",
        "originates:",
        "  10.96.0.0/16",
    ]


def test_the_password_itself_is_nowhere(catbird: Commands) -> None:
    for output in ("table", "json", "yaml"):
        done = catbird("bgp-config", "--node", "a", "-f", str(CLUSTER), "-o", output)
        assert "secret" not in done.out.replace("Secret", "")
        assert "c2VjcmV0" not in done.out


def test_problems_are_an_error_with_strict_alone(catbird: Commands) -> None:
    files = [
        "-f",
        str(CLUSTER),
        "-f",
        catbird.file("more.yaml", peer("lost", "192.0.2.400") + peer("x", filters=["gone"])),
    ]
    done = catbird("bgp-config", "--node", "a", *files)
    assert done.code == 0
    assert "BGPPeer x: spec.filters[0]: BGPFilter gone does not exist" in done.out
    assert "BGPPeer lost: spec.peerIP: " in done.out
    assert "more.yaml, document 1, line 2" in done.out
    strict = catbird("bgp-config", "--node", "a", *files, "--strict")
    assert (strict.code, strict.out) == (1, done.out)
    assert catbird("bgp-config", "--node", "a", "-f", str(CLUSTER), "--strict").code == 0


def test_a_node_that_is_not_there_has_no_peers_and_says_so(catbird: Commands) -> None:
    done = catbird("bgp-config", "--node", "nobody", "-f", str(CLUSTER))
    assert "no peers" in done.lines
    assert "  Node nobody: does not exist; this node has no addresses, and so no peers" in done.lines


def test_the_environment_counts_as_for_a_node(catbird: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMESPACE", "other")
    monkeypatch.setenv("NODENAME", "a")
    view = catbird("bgp-config", "-f", str(CLUSTER), "-o", "json").json
    assert view["node"] == "a"
    assert view["problems"][0]["reason"].startswith("Secret other/bgp does not exist")
