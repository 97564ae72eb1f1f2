"""apply, create, replace, delete, get, patch and label, as a person sees them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.datastore.settings import load_settings, open_datastore
from integration.resources.keys import Key
from integration.resources.kinds import ALL
from integration.resources.yaml_text import load_all
from tests.integration.cli.commands import Commands, document, peer

BROKEN = (
    "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: broken\nspec:\n  peerIP: 192.0.2.300\n"
)
EVERY_KIND = Path(__file__).parent / "every_kind.yaml"


def names(catbird: Commands, kind: str, *options: str) -> list[str]:
    return [line.partition("/")[2] for line in catbird("get", kind, "-o", "name", *options).lines]


def test_apply_creates_and_then_overwrites(catbird: Commands) -> None:
    done = catbird("apply", "-f", "-", stdin=peer("tor1") + peer("tor2", "192.0.2.2"))
    assert (done.code, done.out) == (0, "Successfully applied 2 'BGPPeer' resource(s)\n")
    before = catbird("get", "bgppeer", "tor1", "-o", "json").json
    assert catbird("apply", "-f", "-", stdin=peer("tor1", asNumber=65009, labels={})).code == 1  # no field of a spec
    assert (
        catbird("apply", "-f", "-", stdin=document("BGPPeer", "tor1", {"peerIP": "192.0.2.9"}, labels={"a": "b"})).code
        == 0
    )
    after = catbird("get", "bgppeer", "tor1", "-o", "json").json
    assert after["spec"] == {"peerIP": "192.0.2.9"}
    assert after["metadata"]["labels"] == {"a": "b"}
    for kept in ("uid", "creationTimestamp"):
        assert after["metadata"][kept] == before["metadata"][kept]


def test_kinds_together_are_counted_together(catbird: Commands) -> None:
    done = catbird("apply", "-f", "-", stdin=peer("tor1") + document("Tier", "ops", {"order": 10}))
    assert done.out == "Successfully applied 2 resource(s)\n"


def test_one_broken_resource_is_named_with_its_place_and_the_rest_goes_on(catbird: Commands) -> None:
    file = catbird.file("peers.yaml", peer("tor1") + BROKEN + peer("tor2", "192.0.2.2"))
    done = catbird("apply", "-f", file)
    assert done.code == 1
    assert done.out == "Partial success: applied 2 out of 3 'BGPPeer' resources\n"
    assert (
        "peers.yaml, document 2, line 9, BGPPeer broken: spec.peerIP = '192.0.2.300': is not an IP address" in done.err
    )
    assert "Traceback" not in done.err
    assert names(catbird, "bgppeers") == ["tor1", "tor2"]


def test_a_file_that_cannot_be_read_keeps_everything_from_being_written(catbird: Commands) -> None:
    good, bad = catbird.file("a.yaml", peer("tor1")), catbird.file("b.yaml", peer("tor2").replace("peerIP", "peerIp"))
    done = catbird("apply", "-f", good, "-f", bad, "-f", "missing.yaml")
    assert done.code == 1
    assert "b.yaml, document 1, line 2, BGPPeer tor2: spec.peerIp: field in document is not recognized" in done.err
    assert "missing.yaml: cannot be read: No such file or directory" in done.err
    assert names(catbird, "bgppeers") == []


def test_create_says_what_is_there_already(catbird: Commands) -> None:
    catbird.applied(peer("tor1"))
    both = peer("tor1", "192.0.2.7") + peer("tor2")
    done = catbird("create", "-f", "-", stdin=both)
    assert (done.code, done.out) == (1, "Partial success: created 1 out of 2 'BGPPeer' resources\n")
    assert "BGPPeer tor1: already exists" in done.err
    assert catbird("create", "-f", "-", stdin=both).err.startswith(
        "catbird: failed to create any 'BGPPeer' resources:\n"
    )
    assert catbird("create", "-f", "-", "--skip-exists", stdin=both).code == 0
    assert catbird("get", "bgpp", "tor1", "-o", "json").json["spec"]["peerIP"] == "192.0.2.1"


def test_replace_ends_at_the_first_that_is_not_there(catbird: Commands) -> None:
    catbird.applied(peer("tor1") + peer("tor3"))
    changed = "".join(peer(name, "192.0.2.8") for name in ("tor1", "tor2", "tor3"))
    done = catbird("replace", "-f", "-", stdin=changed)
    assert (done.code, done.out) == (1, "Partial success: replaced the first 1 out of 3 'BGPPeer' resources\n")
    assert "BGPPeer tor2: does not exist" in done.err
    peers = {
        one["metadata"]["name"]: one["spec"]["peerIP"] for one in catbird("get", "bgpp", "-o", "json").json["items"]
    }
    assert peers == {"tor1": "192.0.2.8", "tor3": "192.0.2.1"}


def test_a_resource_version_in_the_file_guards_against_overwriting_others(catbird: Commands) -> None:
    catbird.applied(peer("tor1"))
    mine = catbird("get", "bgppeer", "tor1", "-o", "yaml").out
    catbird.applied(peer("tor1", "192.0.2.2"))
    for verb in ("apply", "replace", "delete"):
        done = catbird(verb, "-f", "-", stdin=mine)
        assert done.code == 1
        assert "BGPPeer tor1: was changed by somebody else; read it again" in done.err
    fresh = catbird("get", "bgppeer", "tor1", "-o", "yaml").out
    assert catbird("replace", "-f", "-", stdin=fresh).code == 0


def test_delete_by_name_by_file_and_by_what_get_printed(catbird: Commands) -> None:
    catbird.applied("".join(peer(f"tor{number}") for number in range(6)))
    assert catbird("delete", "bgppeer", "tor0", "tor1").out == "Successfully deleted 2 'BGPPeer' resource(s)\n"
    assert catbird("delete", "-f", "-", stdin=peer("tor2")).code == 0
    assert catbird("delete", *catbird("get", "bgppeers", "tor3", "-o", "name").lines).code == 0
    done = catbird("delete", "bgppeer", "nobody", "tor4")
    assert (done.code, done.out) == (1, "Partial success: deleted 1 out of 2 'BGPPeer' resources\n")
    assert "BGPPeer nobody does not exist" in done.err
    assert catbird("delete", "bgppeer", "nobody", "--skip-not-exists").code == 0
    assert names(catbird, "bgppeers") == ["tor5"]


def test_tables_have_calicoctls_columns(catbird: Commands) -> None:
    catbird.applied(
        peer("tor1")
        + peer("rack", "192.0.2.2", nodeSelector="rack == '7'")
        + document("IPPool", "pool", {"cidr": "10.0.0.0/16", "natOutgoing": True})
        + document("Node", "a", {"bgp": {"ipv4Address": "192.0.2.11/24"}})
        + document("Node", "b", {"bgp": {"ipv4Address": "192.0.2.12/24", "asNumber": 65005}})
        + document("BGPFilter", "f", {"exportV4": [{"action": "Accept"}]})
        + document("BGPConfiguration", "default", {"asNumber": 64999})
    )
    assert catbird("get", "bgppeers").lines == [
        "NAME   PEERIP      NODE          ASN",
        "rack   192.0.2.2   rack == '7'   65001",
        "tor1   192.0.2.1   (global)      65001",
        "",
    ]
    assert catbird("get", "pools").lines[1].split() == ["pool", "10.0.0.0/16", "all()"]
    wide = catbird("get", "ippool", "-o", "wide").lines
    assert wide[0].split() == [
        "NAME",
        "CIDR",
        "NAT",
        "IPIPMODE",
        "VXLANMODE",
        "DISABLED",
        "DISABLEBGPEXPORT",
        "SELECTOR",
        "ASSIGNMENTMODE",
    ]
    assert wide[1].split() == ["pool", "10.0.0.0/16", "true", "Never", "Never", "false", "false", "all()", "Automatic"]
    assert [line.split() for line in catbird("get", "nodes", "-o", "wide").lines[:3]] == [
        ["NAME", "ASN", "IPV4", "IPV6"],
        ["a", "(64999)", "192.0.2.11/24"],
        ["b", "65005", "192.0.2.12/24"],
    ]
    assert [line.split() for line in catbird("get", "bgpf").lines[1:2]] == [["f", "1", "0", "0", "0"]]
    assert [line.split() for line in catbird("get", "bgpconfig").lines[1:2]] == [["default", "Info", "-", "64999"]]


def test_namespaces(catbird: Commands) -> None:
    catbird.applied(document("NetworkSet", "one", {"nets": ["10.0.0.0/8"]}))
    assert catbird("apply", "-n", "prod", "-f", "-", stdin=document("NetworkSet", "two")).code == 0
    assert names(catbird, "netsets") == ["one"]
    assert names(catbird, "netsets", "-n", "prod") == ["two"]
    everywhere = catbird("get", "netsets", "-A", "-o", "wide").lines
    assert [line.split() for line in everywhere[:3]] == [
        ["NAMESPACE", "NAME", "NETS"],
        ["default", "one", "10.0.0.0/8"],
        ["prod", "two"],
    ]
    done = catbird("apply", "-n", "prod", "-f", "-", stdin=document("NetworkSet", "x", namespace="test"))
    assert "resource namespace does not match client namespace. test != prod" in done.err
    assert "a BGPPeer is not namespaced" in catbird("get", "bgppeer", "tor1", "-n", "prod").err
    assert catbird("get", "netsets", "-A", "-n", "prod").code == 2
    assert catbird("get", "netsets", "one", "-A").code == 2


def test_get_prints_what_apply_takes(catbird: Commands) -> None:
    catbird.applied(peer("tor1") + peer("tor2"))
    for output in ("yaml", "json"):
        listed = catbird("get", "bgppeers", "-o", output).out
        assert yaml.safe_load(listed)["kind"] == "BGPPeerList"
        assert catbird("replace", "-f", "-", stdin=listed).out == "Successfully replaced 2 'BGPPeer' resource(s)\n"
    assert len(catbird("get", "bgppeers", "tor1", "tor2", "-o", "json").json) == 2
    exported = catbird("get", "bgppeer", "tor1", "--export", "-o", "json").json
    assert exported["metadata"] == {"name": "tor1"}
    assert [one["metadata"]["name"] for one in [catbird("get", "-f", "-", "-o", "json", stdin=peer("tor2")).json]] == [
        "tor2"
    ]


def test_get_tells_what_is_missing_and_shows_the_rest(catbird: Commands) -> None:
    catbird.applied(peer("tor1"))
    done = catbird("get", "bgppeer", "tor1", "tor2")
    assert done.code == 1
    assert done.lines[1].startswith("tor1 ")
    assert done.err == "catbird: failed to get the resource:\n  BGPPeer tor2 does not exist\n"


def test_every_kind_that_people_write_goes_in_and_comes_out(catbird: Commands) -> None:
    text = EVERY_KIND.read_text()
    written: list[dict[str, Any]] = [one.value for one in load_all(text) if one.value]
    done = catbird("apply", "-f", "-", stdin=text)
    assert (done.out, done.err) == (f"Successfully applied {len(written)} resource(s)\n", "")
    for one in written:
        kind, name, namespace = one["kind"], one["metadata"]["name"], one["metadata"].get("namespace")
        where = ["-n", namespace] if namespace else []
        stored = catbird("get", kind, name, "-o", "json", *where).json
        assert {**stored["metadata"], **one["metadata"]} == stored["metadata"]
        for part in one.get("spec", {}):
            assert stored["spec"][part] == one["spec"][part], (kind, part)
        shown = one["spec"]["pod"] if kind == "WorkloadEndpoint" else name
        for output in ("ps", "wide"):
            header, row, *_ = catbird("get", kind, name, "-o", output, *where).lines
            assert shown in row.split(), (kind, output)
            assert header.split()[0] == ("NAMESPACE" if namespace else "NAME")
        assert catbird("replace", "-f", "-", stdin=catbird("get", kind, name, "-o", "yaml", *where).out).code == 0
    for one in reversed(written):  # a tier stays as long as it has policies
        kind, name, namespace = one["kind"], one["metadata"]["name"], one["metadata"].get("namespace")
        where = ["-n", namespace] if namespace else []
        assert catbird("delete", kind, name, *where).code == 0
    # No kind that calicoctl writes is missing here.
    ours = {kind.name for kind in ALL if kind.group == "calico"} - {"ClusterInformation", "LiveMigration"}
    assert ours <= {one["kind"] for one in written}


def test_patch_merges_and_null_removes(catbird: Commands) -> None:
    catbird.applied(peer("tor1", keepOriginalNextHop=True, filters=["a", "b"]))
    done = catbird("patch", "bgppeer", "tor1", "-p", '{"spec": {"keepOriginalNextHop": null, "filters": ["c"]}}')
    assert (done.code, done.out) == (0, "Successfully patched 1 'BGPPeer' resource\n")
    assert catbird("patch", "bgppeer", "tor1", "-p", "spec:\n  asNumber: 65002\n").code == 0
    spec = catbird("get", "bgppeer", "tor1", "-o", "json").json["spec"]
    assert spec == {"peerIP": "192.0.2.1", "asNumber": 65002, "filters": ["c"]}


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ('{"spec": {"asNumbr": 1}}', "BGPPeer tor1: spec.asNumbr: field in document is not recognized"),
        ('{"spec": {"peerIP": "x"}}', "spec.peerIP = 'x': is not an IP address"),
        ('{"metadata": {"name": "y"}}', "metadata.name = 'y': cannot be changed"),
        ('{"spec": "x"}', "spec = 'x': is not an object"),
        ('{"metadata": null}', "metadata.name: cannot be changed"),
        ('{"metadata": "x"}', "metadata = 'x': is not an object"),
        ('{"spec": ', "the patch is no JSON"),
        ("spec", "the patch is no object"),
    ],
)
def test_a_patch_that_cannot_be_says_why_and_changes_nothing(catbird: Commands, patch: str, said: str) -> None:
    catbird.applied(peer("tor1"))
    before = catbird("get", "bgppeer", "tor1", "-o", "json").json
    done = catbird("patch", "bgppeer", "tor1", "-p", patch)
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err
    assert catbird("get", "bgppeer", "tor1", "-o", "json").json == before


def test_labels_are_set_changed_and_removed(catbird: Commands) -> None:
    catbird.applied(document("Node", "a", {}))
    assert catbird("label", "node", "a", "rack=7", "old=x").code == 0
    refused = catbird("label", "node", "a", "rack=8", "new=y")
    assert refused.code == 1
    assert "the label rack is '7' already; use '--overwrite'" in refused.err
    done = catbird("label", "node", "a", "rack=8", "old-", "--overwrite")
    assert done.lines == ["Successfully updated label rack=8 on Node a", "Successfully removed label old from Node a"]
    assert catbird("get", "node", "a", "-o", "json").json["metadata"]["labels"] == {"rack": "8"}
    assert catbird("label", "node", "a", "rack", "--remove").code == 0
    assert "there is no label rack" in catbird("label", "node", "a", "rack-").err
    assert catbird("label", "node", "a", "rack").code == 1


def test_what_is_not_for_people_to_write_is_refused(catbird: Commands) -> None:
    information = document("ClusterInformation", "default", {})
    assert "resource is readonly" in catbird("apply", "-f", "-", stdin=information).err
    policy = document("NetworkPolicy", "knp.default.web", {"selector": "all()"}, namespace="default")
    assert "must be managed through the kubernetes API" in catbird("create", "-f", "-", stdin=policy).err
    assert "is built in and cannot be deleted" in catbird("delete", "tier", "kube-admin").err
    lost = document("GlobalNetworkPolicy", "ops.web", {"tier": "ops", "selector": "all()"})
    assert "its tier ops does not exist; create the Tier ops first" in catbird("apply", "-f", "-", stdin=lost).err


def test_pools_may_neither_overlap_nor_change_their_addresses(catbird: Commands) -> None:
    catbird.applied(document("IPPool", "one", {"cidr": "10.0.0.0/16"}))
    other = document("IPPool", "two", {"cidr": "10.0.128.0/17"})
    for verb in ("apply", "create"):
        done = catbird(verb, "-f", "-", stdin=other)
        assert (done.code, "= '10.0.128.0/17': overlaps with the 10.0.0.0/16 of IPPool one" in done.err) == (1, True)
    changed = document("IPPool", "one", {"cidr": "10.0.0.0/15", "blockSize": 28})
    done = catbird("apply", "-f", "-", stdin=changed)
    assert "spec.cidr = '10.0.0.0/15': cannot be changed from 10.0.0.0/16; allowed: another pool" in done.err
    assert "spec.blockSize = 28: cannot be changed from 26" in done.err
    assert "cannot be changed from 26" in catbird("patch", "pool", "one", "-p", "spec: {blockSize: 28}").err
    planned = catbird("plan", "-f", "-", stdin=changed + other)
    assert [line.split(":")[0] for line in planned.lines[:2]] == [
        "IPPool one would be refused",
        "IPPool two would be refused",
    ]
    assert catbird("patch", "pool", "one", "-p", "spec: {disabled: true}").code == 0


def test_a_policy_is_planned_and_applied_with_the_tier_before_it(catbird: Commands) -> None:
    policy = document("GlobalNetworkPolicy", "ops.web", {"tier": "ops", "selector": "all()"})
    assert catbird("plan", "-f", "-", stdin=policy).code == 1
    both = document("Tier", "ops", {"order": 7}) + policy
    assert catbird("plan", "-f", "-", stdin=both).code == 0
    assert catbird("apply", "-f", "-", stdin=both).out == "Successfully applied 2 resource(s)\n"


def test_directories_and_empty_files(catbird: Commands) -> None:
    catbird.file("cluster/a.yaml", peer("tor1"))
    catbird.file("cluster/deeper/b.json", peer("tor2").removeprefix("---\n"))
    catbird.file("cluster/notes.txt", "not for us")
    assert catbird("apply", "-f", "cluster").out == "Successfully applied 1 'BGPPeer' resource(s)\n"
    assert catbird("apply", "-R", "-f", "cluster").out == "Successfully applied 2 'BGPPeer' resource(s)\n"
    empty = catbird.file("empty.yaml", "# nothing\n")
    done = catbird("apply", "-f", empty)
    assert (done.code, "no resources specified in file empty.yaml" in done.err) == (1, True)
    done = catbird("apply", "-f", empty, "--skip-empty")
    assert (done.code, done.out) == (0, "No resources specified\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["get", "peerings"], 1, "resource type 'peerings' is not known"),
        (["get"], 2, "say KIND [NAME…], or -f FILE"),
        (["apply"], 2, "say -f FILE"),
        (["delete", "bgppeer"], 2, "resource name may not be empty"),
        (["apply", "-f", "."], 1, "no resources specified in directory ."),
        (["get", "bgppeer", "a/b"], 1, "a name may neither be empty nor contain '/'"),
    ],
)
def test_what_is_said_to_commands_that_make_no_sense(
    catbird: Commands, arguments: list[str], code: int, said: str
) -> None:
    done = catbird(*arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"\xff\xfe", "stdin: is no UTF-8 text"),
        (b"kind: x\n# \x00", "stdin: unacceptable character #x0000"),
        (b"a: [", "stdin, line 1: "),
        (b"{" * 100_000, "stdin: is nested too deeply"),
        (b"7", "stdin, document 1, line 1: 7 is not a resource"),
    ],
)
def test_what_is_no_text_of_resources_is_said_in_a_line(catbird: Commands, octets: bytes, said: str) -> None:
    for verb in ("apply", "plan"):
        done = catbird(verb, "-f", "-", stdin=octets)
        assert (done.code, done.out) == (1, "")
        assert said in done.err
        assert len(done.err.splitlines()) == 2


def test_what_others_stored_wrongly_is_shown_and_can_be_replaced_or_deleted(catbird: Commands) -> None:
    catbird.applied(peer("tor1"))
    broken = {"kind": "BGPPeer", "metadata": {"name": "tor1", "labels": 7}, "spec": [1]}

    async def store() -> None:
        datastore = open_datastore(load_settings(catbird.store))
        await datastore.apply(Key("BGPPeer", "tor1"), broken)
        await datastore.close()

    for mend in (["apply", "-f", "-"], ["replace", "-f", "-"], ["delete", "bgppeer", "tor1"]):
        asyncio.run(store())
        assert catbird("get", "bgppeers").lines[1].split() == ["tor1", "(global)", "0"]
        assert "metadata.labels = 7: is not an object" in catbird("label", "bgppeer", "tor1", "a=b").err
        assert "spec = [1]: is not an object" in catbird("patch", "bgppeer", "tor1", "-p", "{}").err
        assert catbird(*mend, stdin=peer("tor1")).code == 0


def test_the_identity_of_a_resource_outlives_patches(catbird: Commands) -> None:
    catbird.applied(peer("tor1"))
    before = catbird("get", "bgppeer", "tor1", "-o", "json").json["metadata"]
    assert catbird("patch", "bgppeer", "tor1", "-p", "metadata: {uid: x, annotations: {a: b}}").code == 0
    after = catbird("get", "bgppeer", "tor1", "-o", "json").json["metadata"]
    assert (after["uid"], after["annotations"]) == (before["uid"], {"a": "b"})


def test_a_datastore_that_is_not_there_is_one_line(catbird: Commands) -> None:
    catbird.store = "etcd:http://127.0.0.1:1"
    for arguments in (["get", "nodes"], ["delete", "node", "a"]):
        done = catbird(*arguments)
        assert done.code == 1
        assert "no etcd server answers at http://127.0.0.1:1" in done.err
        assert "Traceback" not in done.err
    catbird.store = "sqlite:x"
    assert "datastore 'sqlite:x' is not known" in catbird("get", "nodes").err
