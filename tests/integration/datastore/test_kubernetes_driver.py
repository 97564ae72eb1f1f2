"""What is particular to the Kubernetes datastore: Kubernetes' own objects, broken connections, credentials."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.datastore.errors import (
    AlreadyExists,
    DatastoreError,
    DoesNotExist,
    Invalid,
    RevisionGone,
    Unauthorized,
    Unavailable,
    Unsupported,
    UpdateConflict,
)
from integration.datastore.kubernetes.connection import KubernetesSettings
from integration.datastore.kubernetes.driver import KubernetesDatastore
from integration.resources.keys import Key, affinity_key, block_key
from tests.integration.datastore.contract import block, peer, peer_key, policy, run, take, told
from tests.integration.datastore.fake_apiserver import Fault, User
from tests.integration.datastore.kubernetes_servers import (
    Cluster,
    calico_definitions,
    kubeconfig_file,
    running_cluster,
    server_params,
)

CRDS = "/apis/crd.projectcalico.org/v1"
PEERS = f"{CRDS}/bgppeers"


@pytest.fixture(params=server_params("v1"))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with running_cluster(*request.param) as found:
        yield found


@pytest.fixture
def fake() -> Iterator[Cluster]:
    with running_cluster("fake", "v1") as found:
        yield found


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    name = f"node-{time.time_ns()}"
    cluster.make("/api/v1/nodes", {"metadata": {"name": name, "labels": {"zone": "b"}}})
    yield name
    cluster.call("DELETE", f"/api/v1/nodes/{name}")


@pytest.fixture
def pod(cluster: Cluster, node: str) -> Iterator[str]:
    # Who admits pods of the real server wants this account to be there.
    cluster.make("/api/v1/namespaces/ns/serviceaccounts", {"metadata": {"name": "default"}})
    name = f"pod-{time.time_ns()}"
    containers = [{"name": "c", "image": "none", "ports": [{"name": "http", "containerPort": 80}]}]
    spec = {"nodeName": node, "containers": containers, "automountServiceAccountToken": False}
    cluster.make("/api/v1/namespaces/ns/pods", {"metadata": {"name": name}, "spec": spec})
    yield name
    cluster.call("DELETE", f"/api/v1/namespaces/ns/pods/{name}", gracePeriodSeconds=0)


def in_store(cluster: Cluster, body: Any, **settings: Any) -> None:
    async def opened() -> None:
        store = KubernetesDatastore(cluster.settings(**settings))
        try:
            await body(store)
        finally:
            await store.close()

    run(opened())


def test_a_node_is_written_into_annotations_and_nothing_else_changes(cluster: Cluster, node: str) -> None:
    async def body(store: KubernetesDatastore) -> None:
        key = Key("Node", node)
        found = await store.get(key)
        start = (await store.list("Node")).revision
        found.value["spec"]["bgp"] = {"ipv4Address": "10.1.2.3/24", "asNumber": 64500}
        found.value["metadata"]["labels"]["mine"] = "1"
        written = await store.update(key, found.value, revision=found.revision)
        assert written.value["spec"]["bgp"] == {"ipv4Address": "10.1.2.3/24", "asNumber": 64500}
        assert written.value["metadata"]["labels"] == found.value["metadata"]["labels"]
        with pytest.raises(UpdateConflict):
            await store.update(key, found.value, revision=found.revision)
        async with aclosing(store.watch("Node", revision=start)) as events:
            assert (await take(events, 1))[0].entry == written
        del written.value["spec"]["bgp"]
        emptied = await store.apply(key, written.value)
        assert "bgp" not in emptied.value["spec"]
        for refused in (store.create(key, found.value), store.delete(key)):
            with pytest.raises(Unsupported):
                await refused
        with pytest.raises(DoesNotExist):
            await store.apply(Key("Node", "nobody"), found.value)

    in_store(cluster, body)
    metadata = cluster.call("GET", f"/api/v1/nodes/{node}").body["metadata"]
    assert metadata["labels"] == {"zone": "b"}
    assert metadata["annotations"]["projectcalico.org/labels"] == '{"mine":"1"}'
    assert "projectcalico.org/IPv4Address" not in metadata["annotations"]


def test_a_pods_addresses_are_patched_in_and_out(cluster: Cluster, pod: str, node: str) -> None:
    async def body(store: KubernetesDatastore) -> None:
        listing = await store.list("WorkloadEndpoint", namespace="ns")
        [found] = [entry for entry in listing.entries if entry.value["spec"]["pod"] == pod]
        assert found.value["spec"]["ports"] == [{"name": "http", "protocol": "TCP", "port": 80}]
        async with aclosing(store.watch("WorkloadEndpoint", revision=listing.revision, namespace="ns")) as events:
            found.value["spec"] |= {"ipNetworks": ["10.0.0.9/32"], "containerID": "abc"}
            written = await store.create(found.key, found.value)
            assert written.value["spec"]["ipNetworks"] == ["10.0.0.9/32"]
            assert (await take(events, 1))[0].entry == written
            assert await store.get(found.key) == written
            assert await store.delete(found.key) == written
            released = (await take(events, 1))[0].entry
            assert released is not None
            assert "ipNetworks" not in released.value["spec"]
            assert released.value["spec"]["containerID"] == "abc"
        stranger = {
            **found.value,
            "metadata": {**found.value["metadata"], "uid": "0f2a4c68-1234-4abc-8def-0123456789ab"},
        }
        with pytest.raises(UpdateConflict):
            await store.apply(found.key, stranger)
        for name in ("other-k8s-nothing-eth0", found.key.name.replace("node", "edon", 1), "no-endpoint"):
            with pytest.raises(DoesNotExist):
                await store.get(Key("WorkloadEndpoint", name, "ns"))

    in_store(cluster, body)


def test_profiles_come_from_namespaces_and_accounts_and_are_watched_together(cluster: Cluster) -> None:
    name = f"ns-{time.time_ns()}"

    async def body(store: KubernetesDatastore) -> None:
        listing = await store.list("Profile")
        assert {"kns.one", "projectcalico-default-allow"} <= {entry.key.name for entry in listing.entries}
        async with aclosing(store.watch("Profile", revision=listing.revision)) as events:
            await asyncio.to_thread(cluster.make, "/api/v1/namespaces", {"metadata": {"name": name}})
            [space] = await take(events, 1)
            assert told([space]) == [("added", f"kns.{name}")]
            account = {"metadata": {"name": "clerk", "labels": {"a": "b"}}}
            await asyncio.to_thread(cluster.make, f"/api/v1/namespaces/{name}/serviceaccounts", account)
            [made] = await take(events, 1)
            assert told([made]) == [("added", f"ksa.{name}.clerk")]
        assert made.entry is not None
        assert await store.get(made.entry.key) == made.entry
        async with aclosing(store.watch("Profile", revision=space.revision)) as events:
            assert (await take(events, 1))[0].entry == made.entry
        with pytest.raises(Unsupported):
            await store.delete(made.entry.key)
        with pytest.raises(DoesNotExist):
            await store.get(Key("Profile", "mine"))

    in_store(cluster, body)
    cluster.call("DELETE", f"/api/v1/namespaces/{name}")


def test_kubernetes_network_policies_are_among_calicos_and_read_only(cluster: Cluster) -> None:
    name = f"web-{time.time_ns()}"
    path = "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies"
    cluster.make(path, {"metadata": {"name": name}, "spec": {"podSelector": {}}})

    async def body(store: KubernetesDatastore) -> None:
        await store.create(Key("NetworkPolicy", "own", "ns"), policy("own", "ns"))
        key = Key("NetworkPolicy", f"knp.default.{name}", "ns")
        found = await store.get(key)
        listing = await store.list("NetworkPolicy", namespace="ns")
        assert found in listing.entries
        assert Key("NetworkPolicy", "own", "ns") in [entry.key for entry in listing.entries]
        as_it_is = await store.get(Key("KubernetesNetworkPolicy", name, "ns"))
        assert as_it_is.value["apiVersion"] == "networking.k8s.io/v1"
        assert as_it_is.value["spec"]["podSelector"] == {}
        for refused in (store.delete(key), store.apply(key, found.value), store.create(key, found.value)):
            with pytest.raises(Unsupported):
                await refused
        async with aclosing(store.watch("NetworkPolicy", revision=listing.revision, namespace="ns")) as events:
            await asyncio.to_thread(cluster.call, "DELETE", f"{path}/{name}")
            await store.delete(Key("NetworkPolicy", "own", "ns"))
            assert sorted(told(await take(events, 2))) == [("deleted", key.name), ("deleted", "own")]

    in_store(cluster, body)


def test_services_and_secrets_are_read_as_they_are(cluster: Cluster) -> None:
    cluster.make("/api/v1/namespaces/ns/secrets", {"metadata": {"name": "bgp"}, "data": {"password": "eA=="}})
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    cluster.make("/api/v1/namespaces/ns/services", service)

    async def body(store: KubernetesDatastore) -> None:
        secret = await store.get(Key("Secret", "bgp", "ns"))
        assert (secret.value["kind"], secret.value["data"]) == ("Secret", {"password": "eA=="})
        [found] = [e for e in (await store.list("Service", namespace="ns")).entries if e.key.name == "web"]
        assert (found.value["kind"], found.value["apiVersion"]) == ("Service", "v1")
        assert found.value["spec"]["ports"][0]["port"] == 80
        assert "managedFields" not in found.value["metadata"]
        with pytest.raises(Unsupported):
            await store.apply(found.key, found.value)

    in_store(cluster, body)


def test_endpoint_slices_are_read_as_they_are(fake: Cluster) -> None:
    endpoints = [{"addresses": ["10.0.0.1"], "nodeName": "n1"}]
    value = {"metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints}
    fake.make("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices", value)

    async def body(store: KubernetesDatastore) -> None:
        [found] = (await store.list("EndpointSlice")).entries
        assert found.key == Key("EndpointSlice", "web-1", "ns")
        assert (found.value["kind"], found.value["endpoints"]) == ("EndpointSlice", endpoints)

    in_store(fake, body)


def test_what_the_schema_refuses_names_the_field(cluster: Cluster) -> None:
    async def body(store: KubernetesDatastore) -> None:
        with pytest.raises(Invalid) as caught:
            await store.create(peer_key("a"), peer("a", asNumber=-1))
        assert caught.value.problems[0].field == "spec.asNumber"
        with pytest.raises(Invalid) as caught:
            await store.create(peer_key("Not_A_Name"), peer("Not_A_Name"))
        assert caught.value.problems[0].field == "metadata.name"
        with pytest.raises(DoesNotExist) as missing:
            await store.create(Key("NetworkPolicy", "a", "nowhere"), policy("a", "nowhere"))
        assert missing.value.key == Key("Namespace", "nowhere")

    in_store(cluster, body)


def test_a_policy_that_a_former_calico_stored_is_found_changed_and_deleted(cluster: Cluster) -> None:
    annotations = {"projectcalico.org/metadata": '{"name":"allow-dns","creationTimestamp":null}'}
    stored = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "default.allow-dns", "annotations": annotations},
        "spec": {"selector": "all()"},
    }
    cluster.make(f"{CRDS}/namespaces/ns/networkpolicies", stored)

    async def body(store: KubernetesDatastore) -> None:
        key = Key("NetworkPolicy", "allow-dns", "ns")
        with pytest.raises(AlreadyExists):
            await store.create(key, policy("allow-dns", "ns"))
        found = await store.get(key)
        changed = await store.update(key, policy("allow-dns", "ns", order=5), revision=found.revision)
        assert (changed.key, changed.value["spec"]["order"]) == (key, 5)
        with pytest.raises(DoesNotExist):
            await store.get(Key("NetworkPolicy", "default.allow-dns", "ns"))
        await store.delete(key, revision=changed.revision)

    in_store(cluster, body)
    assert cluster.call("GET", f"{CRDS}/namespaces/ns/networkpolicies/default.allow-dns").status == 404


def test_a_block_that_calico_marked_as_deleted_is_gone_and_may_be_made_again(cluster: Cluster) -> None:
    async def body(store: KubernetesDatastore) -> None:
        key = block_key("10.0.0.0/30")
        await store.create(key, block("10.0.0.0/30", "n1"))
        start = (await store.list("IPAMBlock")).revision
        found = (await asyncio.to_thread(cluster.call, "GET", f"{CRDS}/ipamblocks/10-0-0-0-30")).body
        found["spec"]["deleted"] = True
        await asyncio.to_thread(cluster.call, "PUT", f"{CRDS}/ipamblocks/10-0-0-0-30", found)
        with pytest.raises(DoesNotExist):
            await store.get(key)
        assert (await store.list("IPAMBlock")).entries == []
        made = await store.create(key, block("10.0.0.0/30", "n2"))
        async with aclosing(store.watch("IPAMBlock", revision=start)) as events:
            seen = await take(events, 2)
        assert told(seen) == [("deleted", key.name), ("added", key.name)]
        assert seen[1].entry == made

    in_store(cluster, body)


def test_affinities_of_a_host_are_found_by_label_and_those_without_labels_too(cluster: Cluster) -> None:
    spec = {"state": "confirmed", "node": "n1", "cidr": "10.0.1.0/26", "deleted": "false"}
    old = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BlockAffinity",
        "metadata": {"name": "n1-old"},
        "spec": spec,
    }
    cluster.make(f"{CRDS}/blockaffinities", old)

    async def body(store: KubernetesDatastore) -> None:
        for holder, cidr in (("host:n1", "10.0.0.0/26"), ("host:n2", "10.0.0.0/26"), ("virtual:n1", "10.0.2.0/26")):
            await store.create(affinity_key(holder, cidr), {"state": "pending", "deleted": False})
        found = [entry.key for entry in (await store.list("BlockAffinity", namespace="host:n1")).entries]
        assert found == [affinity_key("host:n1", "10.0.0.0/26"), affinity_key("host:n1", "10.0.1.0/26")]
        assert len((await store.list("BlockAffinity")).entries) == 4

    in_store(cluster, body)


# --- broken connections, on the fake server that can be broken


def test_a_watch_that_was_quiet_for_long_is_bridged_from_when_it_broke(fake: Cluster) -> None:
    """Nothing happened for longer than a watch may be away; then its connection is cut, and something happens."""
    server, bridged_s = fake.fake, 1.0
    assert server is not None

    async def cut() -> None:
        server.cut_watches()

    async def body(store: KubernetesDatastore) -> None:
        start = (await store.list("BGPPeer")).revision
        async with aclosing(store.watch("BGPPeer", revision=start)) as events:
            waiting = asyncio.create_task(take(events, 1))
            async with asyncio.timeout(10):
                while not server.watching:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(bridged_s + 0.2)
            await asyncio.to_thread(fake.do, cut())
            await store.create(peer_key("a"), peer("a"))
            (event,) = await waiting
            assert event.type == "added"

    in_store(fake, body, bridged_s=bridged_s)


def test_a_watch_goes_on_when_connections_are_cut_and_the_server_restarts(fake: Cluster) -> None:
    server = fake.fake
    assert server is not None

    async def restart() -> None:
        await server.stop()
        await server.start()

    async def cut() -> None:
        server.cut_watches()

    async def body(store: KubernetesDatastore) -> None:
        start = (await store.list("BGPPeer")).revision
        async with aclosing(store.watch("BGPPeer", revision=start)) as events:
            seen = []
            for number, harm in enumerate((cut, restart, cut, restart)):
                await store.apply(peer_key("a"), peer("a", asNumber=number))
                seen += await take(events, 1)
                waiting = asyncio.create_task(take(events, 1))
                await asyncio.sleep(0)
                await asyncio.to_thread(fake.do, harm())
                await store.apply(peer_key("a"), peer("a", asNumber=number + 100))
                seen += await waiting
        numbers = [event.entry and event.entry.value["spec"]["asNumber"] for event in seen]
        assert numbers == [0, 100, 1, 101, 2, 102, 3, 103]

    in_store(fake, body)


def test_what_was_compacted_away_is_gone(fake: Cluster) -> None:
    server = fake.fake
    assert server is not None

    async def body(store: KubernetesDatastore) -> None:
        start = (await store.list("BGPPeer")).revision
        await store.apply(peer_key("a"), peer("a"))
        server.store.compact()
        for faults in ([], [Fault(410, watch=True)]):
            server.faults = faults
            async with aclosing(store.watch("BGPPeer", revision=start)) as events:
                with pytest.raises(RevisionGone):
                    await take(events, 1)

    in_store(fake, body)


def test_bookmarks_carry_a_quiet_watch_past_a_compaction(fake: Cluster) -> None:
    server = fake.fake
    assert server is not None
    server.bookmark_every_s = 0.01

    async def body(store: KubernetesDatastore) -> None:
        start = (await store.list("BGPPeer")).revision
        await store.apply(Key("BGPFilter", "f"), {"metadata": {"name": "f"}, "spec": {}})
        async with aclosing(store.watch("BGPPeer", revision=start)) as events:
            bookmark = await anext(events)
            assert (bookmark.type, bookmark.entry) == ("bookmark", None)
            assert int(bookmark.revision) > int(start)
        server.store.compact()
        await store.apply(peer_key("a"), peer("a"))
        async with aclosing(store.watch("BGPPeer", revision=bookmark.revision)) as events:
            assert told(await take(events, 1)) == [("added", "a")]

    in_store(fake, body)


def test_a_list_whose_moment_is_compacted_away_between_pages_is_taken_whole(
    fake: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake.fake
    assert server is not None
    monkeypatch.setattr("integration.datastore.kubernetes.driver.PAGE", 2)
    names = [f"p{number}" for number in range(5)]

    async def body(store: KubernetesDatastore) -> None:
        for name in names:
            await store.create(peer_key(name), peer(name))
        assert [entry.key.name for entry in (await store.list("BGPPeer")).entries] == names
        server.faults = [Fault(410, path="bgppeers", query="continue=")]
        assert [entry.key.name for entry in (await store.list("BGPPeer")).entries] == names
        assert server.faults[0].times == 0

    in_store(fake, body)


def test_a_server_that_is_away_is_unavailable_in_time_and_back_when_it_is(fake: Cluster) -> None:
    server = fake.fake
    assert server is not None

    async def body(store: KubernetesDatastore) -> None:
        start = (await store.list("BGPPeer")).revision
        await asyncio.to_thread(fake.do, server.stop())
        with pytest.raises(Unavailable):
            await store.get(peer_key("a"))
        async with aclosing(store.watch("BGPPeer", revision=start)) as events:
            with pytest.raises(Unavailable):
                await take(events, 1)
        await asyncio.to_thread(fake.do, server.start())
        await store.check()

    in_store(fake, body, bridged_s=0.3)


def test_a_server_that_asks_for_patience_is_asked_again(fake: Cluster) -> None:
    server = fake.fake
    assert server is not None
    server.faults = [Fault(429, times=2, method="POST", headers={"Retry-After": "0"}), Fault(503, method="GET")]

    async def body(store: KubernetesDatastore) -> None:
        made = await store.create(peer_key("a"), peer("a"))
        assert await store.get(peer_key("a")) == made
        assert [fault.times for fault in server.faults] == [0, 0]
        server.faults = [Fault(429, times=1000)]
        with pytest.raises(Unavailable):
            await store.get(peer_key("a"))

    in_store(fake, body, request_timeout_s=1.0)


# --- who we are


def test_who_may_not_is_told_so(fake: Cluster) -> None:
    assert fake.fake is not None
    fake.fake.users["reader"] = User("reader", {("list", "bgppeers.crd.projectcalico.org")})

    async def body(store: KubernetesDatastore) -> None:
        start = (await store.list("BGPPeer")).revision
        for refused in (store.get(peer_key("a")), store.apply(peer_key("a"), peer("a")), store.check()):
            with pytest.raises(Unauthorized, match="reader"):
                await refused
        async with aclosing(store.watch("BGPPeer", revision=start)) as events:
            with pytest.raises(Unauthorized):
                await take(events, 1)

    in_store(fake, body, token="reader")

    async def unknown(store: KubernetesDatastore) -> None:
        with pytest.raises(Unauthorized):
            await store.check()

    in_store(fake, unknown, token="nobody")


def test_a_token_file_is_read_again_when_its_token_is_no_longer_taken(fake: Cluster, tmp_path: Path) -> None:
    server = fake.fake
    assert server is not None
    token = tmp_path / "token"
    config = server.kubeconfig()
    config["users"][0]["user"] = {"tokenFile": str(token)}

    async def body(store: KubernetesDatastore) -> None:
        await store.check()
        start = (await store.list("BGPPeer")).revision
        async with aclosing(store.watch("BGPPeer", revision=start)) as events:
            await store.apply(peer_key("b"), peer("b"))
            assert told(await take(events, 1)) == [("added", "b")]
            server.users = {"second": User("me")}
            with pytest.raises(Unauthorized):
                await store.check()
            token.write_text("second")
            await store.apply(peer_key("a"), peer("a"))
            assert told(await take(events, 1)) == [("added", "a")]

    server.users["first"] = User("me")
    token.write_text("first")
    with kubeconfig_file(config) as path:
        in_store(fake, body, kubeconfig=path, kubeconfig_inline="")


def test_in_a_pod_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    settings = KubernetesSettings(service_account=tmp_path)

    async def fails(error: type[DatastoreError], text: str) -> None:
        store = KubernetesDatastore(settings)
        with pytest.raises(error, match=text):
            await store.check()
        await store.close()

    run(fails(DatastoreError, "token"))
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("no certificate")
    run(fails(DatastoreError, "not usable"))


@pytest.mark.kubernetes
def test_a_pods_service_account_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_cluster("real", "v1") as cluster:
        found = cluster.kubeconfig["clusters"][0]["cluster"]
        _, _, address = found["server"].rpartition("/")
        host, _, port = address.rpartition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        (tmp_path / "ca.crt").write_bytes(Path(found["certificate-authority"]).read_bytes())
        (tmp_path / "token").write_text("nobody's")

        async def body(store: KubernetesDatastore) -> None:
            with pytest.raises(Unauthorized):
                await store.check()
            (tmp_path / "token").write_text(cluster.kubeconfig["users"][0]["user"]["token"])
            await store.check()

        in_store(cluster, body, kubeconfig_inline="", service_account=tmp_path)


@pytest.mark.parametrize("kubeconfig", ["/nowhere/config", ""])
def test_access_that_is_not_configured_says_so(kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    async def body() -> None:
        store = KubernetesDatastore(KubernetesSettings(kubeconfig=kubeconfig))
        with pytest.raises(DatastoreError, match="not usable") as caught:
            await store.check()
        assert not isinstance(caught.value, Unavailable)
        await store.close()

    run(body())


# --- which resources the server has


def test_the_group_is_found_out(fake: Cluster) -> None:
    async def group(store: KubernetesDatastore) -> None:
        await store.list("BGPPeer")
        groups.append(store.group_version)

    groups: list[str] = []
    in_store(fake, group, api_group="")
    for definition in calico_definitions("v3"):
        fake.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    in_store(fake, group, api_group="")
    for definition in calico_definitions("v1"):
        name = definition["metadata"]["name"]
        fake.call("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    in_store(fake, group, api_group="")
    assert groups == ["crd.projectcalico.org/v1", "crd.projectcalico.org/v1", "projectcalico.org/v3"]
    with pytest.raises(DatastoreError, match="no API group"):
        KubernetesDatastore(KubernetesSettings(api_group="v2"))


def test_what_the_server_does_not_have_is_unsupported(fake: Cluster) -> None:
    async def body(store: KubernetesDatastore) -> None:
        key = Key("KubernetesClusterNetworkPolicy", "a")
        with pytest.raises(Unsupported, match="clusternetworkpolicies"):
            await store.list(key.kind)
        with pytest.raises(Unsupported):
            await store.get(key)
        async with aclosing(store.watch(key.kind, revision="1")) as events:
            with pytest.raises(Unsupported):
                await take(events, 1)
        with pytest.raises(Unsupported, match="IPAMHost"):
            await store.list("IPAMHost")

    in_store(fake, body)


def test_what_the_server_does_not_have_is_unsupported_for_whom_it_forbids_everything_else_too(fake: Cluster) -> None:
    """A server looks at the roles first: what is not there is forbidden as well, and Calico's older roles name no newer kind."""

    async def body(store: KubernetesDatastore) -> None:
        with pytest.raises(Unsupported, match="clusternetworkpolicies"):
            await store.list("KubernetesClusterNetworkPolicy")
        with pytest.raises(Unauthorized, match="bgppeers"):
            await store.list("BGPPeer")

    assert fake.fake is not None
    user = fake.kubeconfig["users"][0]["user"]["token"]
    fake.fake.users[user] = User("nobody", allowed=set())
    in_store(fake, body)


def test_a_server_that_starts_is_not_believed_that_it_forbids_or_lacks_something(fake: Cluster) -> None:
    """It knows neither its roles nor what definitions add to it until it says that it is ready."""
    assert fake.fake is not None
    faults = fake.fake.faults

    async def body(store: KubernetesDatastore) -> None:
        for code in (403, 404):
            faults[:] = [Fault(500, times=3, path="/readyz"), Fault(code, times=3)]
            with pytest.raises(Unavailable, match="starting"):
                await store.list("BGPPeer")
            async with aclosing(store.watch("BGPPeer", revision="1")) as events:
                with pytest.raises(Unavailable, match="starting"):
                    await take(events, 1)
            # It became ready between the two questions: what it said before counts no more.
            faults[:] = [Fault(code)]
            assert (await store.list("BGPPeer")).entries == []

    in_store(fake, body)


def test_a_status_that_is_kept_apart_is_written_too() -> None:
    with running_cluster("fake", "v3") as cluster:

        async def body(store: KubernetesDatastore) -> None:
            key = Key("IPPool", "p")
            value = {
                "kind": "IPPool",
                "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": "p"},
                "spec": {"cidr": "10.0.0.0/16"},
                "status": {"conditions": [{"type": "Allocatable", "status": "True"}]},
            }
            made = await store.create(key, value)
            assert made.value["status"] == value["status"]
            assert await store.get(key) == made

        in_store(cluster, body)


def test_an_object_that_cannot_be_read_spoils_no_other(fake: Cluster) -> None:
    annotations = {"projectcalico.org/metadata": "no JSON"}
    kind = {"apiVersion": "crd.projectcalico.org/v1", "kind": "BGPPeer"}
    broken = {**kind, "metadata": {"name": "broken", "annotations": annotations}, "spec": {}}

    async def body(store: KubernetesDatastore) -> None:
        start = (await store.list("BGPPeer")).revision
        await store.create(peer_key("a"), peer("a"))
        await asyncio.to_thread(fake.make, PEERS, broken)
        listing = await store.list("BGPPeer")
        assert [entry.key.name for entry in listing.entries] == ["a"]
        assert [error.key for error in listing.unreadable] == [peer_key("broken")]
        async with aclosing(store.watch("BGPPeer", revision=start)) as events:
            seen = await take(events, 2)
            assert seen[1].error is not None
            assert (seen[1].type, seen[1].error.key) == ("unreadable", peer_key("broken"))
            await store.apply(peer_key("broken"), peer("broken"))
            assert told(await take(events, 1)) == [("modified", "broken")]

    in_store(fake, body)


def test_nothing_heavy_is_imported_before_the_first_request() -> None:
    code = "import sys, integration.datastore.kubernetes.driver; print({'aiohttp', 'kubernetes'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def test_the_kubeconfig_may_be_given_in_the_text(fake: Cluster) -> None:
    async def body(store: KubernetesDatastore) -> None:
        await store.check()

    config = fake.kubeconfig | {"current-context": "nowhere"}
    in_store(fake, body, kubeconfig_inline=yaml.safe_dump(config), context="fake")
