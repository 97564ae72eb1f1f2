"""The executed plugins on a real kernel and a real store, by way of the node agent and without it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.cni.bed import Node, a_node, a_pod, finished, resource

pytestmark = pytest.mark.root
POD = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0"}


@pytest.fixture(params=["agent", "alone"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """The same node twice: with the agent, and with the plugin left to itself."""
    with a_node(tmp_path, with_agent=request.param == "agent") as found:
        yield found


def test_a_container_gets_a_network_and_gives_it_back(node: Node) -> None:
    with a_pod() as pod:
        added = node.call("ADD", pod)
        assert added.code == 0, added
        four, six = added.addresses
        assert four.startswith("10.65.")
        assert four.endswith("/32")
        assert six.startswith("fd00:65::")
        assert six.endswith("/128")
        pod.run("ping", "-c1", "-W2", "192.0.2.1")
        node.host.run("ping", "-c1", "-W2", six.partition("/")[0])
        assert node.call("CHECK", pod, config={"prevResult": added.json}).code == 0
        for _ in range(2):
            deleted = node.call("DEL", pod)
            assert (deleted.code, deleted.text) == (0, "")
        assert node.allocated() == 0
        assert node.all("WorkloadEndpoint") == {}
        assert pod.ip_json("link show type veth") == []
        assert [one["ifname"] for one in node.host.ip_json("link show type veth")] == ["eth0"]


def test_the_endpoint_is_written_as_calico_writes_it(node: Node) -> None:
    with a_pod() as pod:
        added = node.call("ADD", pod, "0123456789abcdef", more=POD)
        assert added.code == 0, added
        ((name, endpoint),) = node.all("WorkloadEndpoint").items()
        assert name == "n1-k8s-cart--0-eth0"
        assert endpoint["metadata"]["namespace"] == "shop"
        assert endpoint["metadata"]["labels"]["projectcalico.org/orchestrator"] == "k8s"
        spec = endpoint["spec"]
        assert spec["ipNetworks"] == added.addresses
        assert spec["containerID"] == "0123456789abcdef"
        assert spec["profiles"] == ["net"]
        assert spec["interfaceName"] == added.json["interfaces"][0]["name"]
        assert spec["mac"] == added.json["interfaces"][1]["mac"]
        assert node.all("Profile")["net"]["spec"]["labelsToApply"] == {"net": ""}


def test_kubernetes_policy_takes_labels_profiles_and_annotations_from_the_pod(node: Node) -> None:
    annotations = {
        "cni.projectcalico.org/ipAddrs": '["10.65.3.7"]',
        "cni.projectcalico.org/hwAddr": "02:00:00:00:00:09",
    }
    node.put(
        resource("Namespace", "shop", {}, labels={"team": "a"}),
        resource(
            "Pod", "cart-0", {"nodeName": "n1", "serviceAccountName": "cart", "containers": []}, "shop",
            labels={"app": "cart"}, annotations=annotations,
        ),
    )  # fmt: skip
    with a_pod() as pod:
        added = node.call("ADD", pod, config={"policy": {"type": "k8s"}}, more=POD)
        assert added.code == 0, added
        assert added.addresses == ["10.65.3.7/32"]
        assert added.json["interfaces"][1]["mac"] == "02:00:00:00:00:09"
        (endpoint,) = node.all("WorkloadEndpoint").values()
        assert endpoint["metadata"]["labels"]["app"] == "cart"
        assert endpoint["spec"]["profiles"] == ["kns.shop", "ksa.shop.cart"]


def test_a_delete_of_an_old_container_leaves_the_pods_new_one(node: Node) -> None:
    with a_pod() as old, a_pod() as new:
        assert node.call("ADD", old, "old", more=POD).code == 0
        added = node.call("ADD", new, "new", more=POD)
        assert added.code == 0, added
        assert node.call("DEL", old, "old", more=POD).code == 0
        (endpoint,) = node.all("WorkloadEndpoint").values()
        assert endpoint["spec"]["containerID"] == "new"
        new.run("ping", "-c1", "-W2", "192.0.2.1")
        assert node.allocated() == 2


def test_a_container_without_a_namespace_can_be_deleted(node: Node) -> None:
    with a_pod() as pod:
        assert node.call("ADD", pod).code == 0
    assert node.call("DEL", None).code == 0
    assert node.allocated() == 0
    assert [one["ifname"] for one in node.host.ip_json("link show type veth")] == ["eth0"]


@pytest.mark.parametrize("broken", ["interface", "route", "datastore says not ready", "no pool"])
def test_a_failed_add_leaves_nothing(node: Node, broken: str) -> None:
    with a_pod() as pod:
        match broken:
            case "interface":
                pod.ip("link add eth0 type bridge")
            case "route":
                node.host.ip("route add 10.65.3.7/32 dev eth0")
            case "datastore says not ready":
                node.put(resource("ClusterInformation", "default", {"datastoreReady": False}))
            case "no pool":
                node.put(resource("IPPool", "v6", {"cidr": "fd00:65::/112", "blockSize": 122, "disabled": True}))
        more = {"CNI_ARGS": "IP=10.65.3.7"} if broken == "route" else {}
        answer = node.call("ADD", pod, more=more)
        assert answer.code == 1
        assert answer.json["code"] in (11, 100), answer
        assert answer.json["msg"]
        assert node.allocated() == 0
        assert node.all("WorkloadEndpoint") == {}
        assert [one["ifname"] for one in node.host.ip_json("link show type veth")] == ["eth0"]


def test_check_says_all_that_is_wrong(node: Node) -> None:
    with a_pod() as pod:
        added = node.call("ADD", pod)
        pod.ip("route del default")
        (name,) = node.all("WorkloadEndpoint")
        checked = node.call("CHECK", pod, config={"prevResult": added.json})
        assert checked.code == 1
        assert "the container lacks the route 0.0.0.0/0" in checked.json["msg"]
        assert name
        assert node.call("CHECK", pod).json["code"] == 7


def test_status_tells_whether_an_add_could_be_done(node: Node) -> None:
    config = {"cniVersion": "1.1.0"}
    assert node.call("STATUS", config=config).code == 0
    node.put(resource("ClusterInformation", "default", {"datastoreReady": False}))
    answer = node.call("STATUS", config=config)
    assert (answer.code, answer.json["code"]) == (1, 50)


def test_garbage_is_collected_and_the_living_left_alone(node: Node) -> None:
    with a_pod() as alive, a_pod() as dead:
        kept = node.call("ADD", alive, "alive")
        assert node.call("ADD", dead, "dead").code == 0
        attachments = [{"containerID": "alive", "ifname": "eth0"}]
        collected = node.call("GC", config={"cniVersion": "1.1.0", "cni.dev/valid-attachments": attachments})
        assert collected.code == 0, collected
        (endpoint,) = node.all("WorkloadEndpoint").values()
        assert endpoint["spec"]["containerID"] == "alive"
        assert node.allocated() == 2
        assert node.call("CHECK", alive, "alive", config={"prevResult": kept.json}).code == 0


def test_garbage_of_one_network_is_not_another_whose_name_begins_alike(node: Node) -> None:
    with a_pod() as pod:
        added = node.call("ADD", pod, "c1", config={"name": "net.other"})
        assert added.code == 0, added
        assert node.call("GC", config={"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}).code == 0
        assert node.allocated() == 2
        assert node.call("CHECK", pod, "c1", config={"name": "net.other", "prevResult": added.json}).code == 0
        collected = node.call(
            "GC", config={"cniVersion": "1.1.0", "name": "net.other", "cni.dev/valid-attachments": []}
        )
        assert collected.code == 0
        assert node.allocated() == 0


def test_another_ipam_plugin_is_delegated_to(node: Node, tmp_path: Path) -> None:
    ipam = {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": str(tmp_path / "host-local")}
    with a_pod() as pod:
        added = node.call("ADD", pod, config={"ipam": ipam})
        assert added.code == 0, added
        assert added.addresses == ["10.9.0.2/32"]
        pod.run("ping", "-c1", "-W2", "192.0.2.1")
        assert node.call("DEL", pod, config={"ipam": ipam}).code == 0
        assert [path.name for path in (tmp_path / "host-local/net").iterdir() if path.name.startswith("10.")] == []


def test_calico_ipam_can_be_executed_by_itself(node: Node) -> None:
    config = {"type": "calico-ipam"}
    added = node.call("ADD", plugin="calico-ipam", config=config, more={"CNI_NETNS": "/none"})
    assert added.code == 0, added
    assert added.addresses[0].endswith("/26")
    assert node.allocated() == 2
    assert node.call("DEL", plugin="calico-ipam", config=config).code == 0
    assert node.allocated() == 0


def test_another_plugin_gets_its_addresses_from_calico_ipam(node: Node) -> None:
    ipam = {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false"}
    config = {"type": "bridge", "bridge": "br0", "ipam": ipam}
    with a_pod() as pod:
        added = node.call("ADD", pod, plugin="/usr/lib/cni/bridge", config=config)
        assert added.code == 0, added
        (address,) = added.addresses
        assert address.startswith("10.65.")
        assert [one["ifname"] for one in node.host.ip_json("link show type bridge")] == ["br0"]
        assert node.all("WorkloadEndpoint") == {}  # the pod is the bridge's
        assert node.allocated() == 1
        deleted = node.call("DEL", pod, plugin="/usr/lib/cni/bridge", config={**config, "prevResult": added.json})
        assert deleted.code == 0, deleted
        assert node.allocated() == 0


def test_an_address_by_the_nodes_range_can_be_given_back_without_the_node(node: Node, tmp_path: Path) -> None:
    ipam = {"type": "host-local", "subnet": "usePodCidr", "dataDir": str(tmp_path / "host-local")}
    node.put(resource("Node", "n1", {}) | {"status": {"podCIDRs": ["10.9.0.0/24"]}})
    with a_pod() as pod:
        added = node.call("ADD", pod, config={"ipam": ipam})
        assert added.code == 0, added
        assert added.addresses[0].startswith("10.9.0.")
        assert node.call("CHECK", pod, config={"ipam": ipam, "prevResult": added.json}).code == 0
        node.put(resource("Node", "n1", {}))
        deleted = node.call("DEL", pod, config={"ipam": ipam})
        assert deleted.code == 0, deleted
        assert not list((tmp_path / "host-local" / "net").glob("10.9.*"))


def test_garbage_and_status_are_passed_to_another_ipam_plugin(node: Node, tmp_path: Path) -> None:
    other = node.binaries / "other"
    other.write_text(f'#!/bin/sh\ncat >> {tmp_path}/said\necho "$CNI_COMMAND" >> {tmp_path}/commands\nexit 0\n')
    other.chmod(0o755)
    config = {"cniVersion": "1.1.0", "ipam": {"type": "other"}, "cni.dev/valid-attachments": None}
    assert node.call("STATUS", config=config).code == 0
    assert node.call("GC", config=config).code == 0
    assert (tmp_path / "commands").read_text().split() == ["STATUS", "GC"]
    assert "cni.dev/valid-attachments" in (tmp_path / "said").read_text()
    other.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"code": 51, "msg": "half of it is away"}\'\nexit 1\n')
    answer = node.call("STATUS", config=config)
    assert (answer.code, answer.json["code"]) == (1, 51)
    assert "half of it is away" in answer.json["msg"]


def test_fifty_containers_at_once_get_fifty_addresses(tmp_path: Path) -> None:
    with a_node(tmp_path) as node, ExitStack() as stack:
        pods = [stack.enter_context(a_pod()) for _ in range(50)]
        answers = [finished(one) for one in [node.start("ADD", pod, f"c{number}") for number, pod in enumerate(pods)]]
        assert [answer.code for answer in answers] == [0] * 50, [a for a in answers if a.code][:1]
        assert len({answer.addresses[0] for answer in answers}) == 50
        done = [finished(one) for one in [node.start("DEL", pod, f"c{number}") for number, pod in enumerate(pods)]]
        assert [answer.code for answer in done] == [0] * 50
        assert node.allocated() == 0


def test_plugins_take_over_when_the_agent_dies_and_it_takes_over_again(tmp_path: Path) -> None:
    with a_node(tmp_path) as node, a_pod() as first, a_pod() as second:
        assert node.call("ADD", first, "first").code == 0
        node.kill_agent(signal.SIGKILL)
        alone = node.call("ADD", second, "second")
        assert alone.code == 0, alone
        node.start_agent()
        for pod, name in ((first, "first"), (second, "second")):
            assert node.call("DEL", pod, name).code == 0
        assert node.allocated() == 0


def test_version_needs_neither_agent_nor_datastore(tmp_path: Path) -> None:
    with a_node(tmp_path, with_agent=False) as node:
        answer = node.call("VERSION", config={"cniVersion": "1.1.0"})
        assert answer.code == 0
        assert "1.1.0" in answer.json["supportedVersions"]
        assert json.loads(answer.text)["cniVersion"] == "1.1.0"
