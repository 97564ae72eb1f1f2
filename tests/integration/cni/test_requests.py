"""CNI's calls as data: what is refused with which code, and what an ADD answers in each version."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.cni.errors import CNIError
from integration.cni.request import Request, read_request
from integration.cni.results import VERSIONS, Address, Interface, Result, Route, read_result
from integration.cni.serving import answer_call, parse_call
from integration.cni.worker import Answer

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "0123456789abcdef",
    "CNI_NETNS": "/run/netns/pod",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}
CONFIG: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "calico", "ipam": {"type": "calico-ipam"}}


def test_a_request_is_read() -> None:
    request = read_request(ENVIRONMENT, json.dumps(CONFIG))
    assert (request.command, request.container_id, request.interface) == ("ADD", "0123456789abcdef", "eth0")
    assert request.arguments["K8S_POD_NAME"] == "cart-0"
    assert request.path == ("/opt/cni/bin", "/usr/lib/cni")
    assert request.config.uses_calico_ipam
    assert (request.config.assigns_ipv4, request.config.assigns_ipv6) == (True, False)


@pytest.mark.parametrize(
    ("environment", "config", "code", "names"),
    [
        ({"CNI_COMMAND": "FIX"}, {}, 4, "CNI_COMMAND is 'FIX'"),
        ({"CNI_COMMAND": ""}, {}, 4, "CNI_COMMAND is not set"),
        ({"CNI_CONTAINERID": ""}, {}, 4, "CNI_CONTAINERID must be set for ADD"),
        ({"CNI_NETNS": "", "CNI_IFNAME": ""}, {}, 4, "CNI_NETNS, CNI_IFNAME must be set for ADD"),
        ({"CNI_COMMAND": "DEL", "CNI_IFNAME": ""}, {}, 4, "CNI_IFNAME must be set for DEL"),
        ({"CNI_COMMAND": "CHECK", "CNI_NETNS": ""}, {}, 4, "CNI_NETNS must be set for CHECK"),
        ({"CNI_CONTAINERID": "../etc"}, {}, 4, "CNI_CONTAINERID '../etc'"),
        ({"CNI_IFNAME": "much-too-long-a-name"}, {}, 4, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a/b"}, {}, 4, "CNI_IFNAME"),
        ({"CNI_ARGS": "nonsense"}, {}, 4, "CNI_ARGS"),
        ({}, {"cniVersion": "9.0.0"}, 1, "'9.0.0'"),
        ({}, {"cniVersion": 1}, 1, "'1'"),
        ({"CNI_COMMAND": "CHECK"}, {"cniVersion": "0.3.1"}, 1, "CHECK is not in CNI 0.3.1"),
        ({"CNI_COMMAND": "GC"}, {"cniVersion": "1.0.0"}, 1, "GC is not in CNI 1.0.0"),
        ({"CNI_COMMAND": "STATUS"}, {"cniVersion": "1.0.0"}, 1, "STATUS is not in CNI 1.0.0"),
        ({}, {"name": ""}, 7, "name is missing"),
        ({}, {"name": "a b"}, 7, "name 'a b'"),
        ({}, {"mtu": "1400"}, 7, "mtu must be a whole number"),
        ({}, {"mtu": 70000}, 7, "mtu must be a whole number from 0 to 65535"),
        ({}, {"ipam": []}, 0, ""),
        ({}, {"ipam": "calico-ipam"}, 7, "ipam must be an object"),
        ({}, {"ipam": {"assign_ipv6": "maybe"}}, 7, "ipam.assign_ipv6"),
        ({}, {"ipam": {"ipv4_pools": "a"}}, 7, "ipam.ipv4_pools must be a list"),
        ({}, {"policy_setup_timeout_seconds": -1}, 7, "policy_setup_timeout_seconds"),
        ({}, {"container_settings": {"allow_ip_forwarding": "yes"}}, 7, "container_settings.allow_ip_forwarding"),
        ({}, {"prevResult": 7}, 7, "prevResult"),
        ({}, {"mode": "vxlan"}, 2, "mode"),
        ({}, {"dataplane_options": {"type": "grpc"}}, 2, "dataplane_options.type"),
    ],
)
def test_what_is_wrong_has_its_code_and_its_name(
    environment: dict[str, str], config: dict[str, Any], code: int, names: str
) -> None:
    if not code:
        read_request({**ENVIRONMENT, **environment}, json.dumps({**CONFIG, **config}))
        return
    with pytest.raises(CNIError) as caught:
        read_request({**ENVIRONMENT, **environment}, json.dumps({**CONFIG, **config}))
    assert caught.value.code == code
    assert names in caught.value.text


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100000])
def test_a_configuration_that_is_no_json_object_cannot_be_decoded(text: str) -> None:
    with pytest.raises(CNIError) as caught:
        read_request(ENVIRONMENT, text)
    assert caught.value.code == 6


RESULT = Result(
    (Address("10.65.0.2/32", 1), Address("fd00::2/128", 1)),
    (Interface("cali1"), Interface("eth0", "02:00:00:00:00:01", "/run/netns/pod", 1450)),
    (Route("0.0.0.0/0"), Route("::/0")),
)


@pytest.mark.parametrize(
    ("version", "ips", "inner"),
    [
        ("0.3.1", {"address": "10.65.0.2/32", "version": "4", "interface": 1}, {"name", "mac", "sandbox"}),
        ("0.4.0", {"address": "10.65.0.2/32", "version": "4", "interface": 1}, {"name", "mac", "sandbox"}),
        ("1.0.0", {"address": "10.65.0.2/32", "interface": 1}, {"name", "mac", "sandbox"}),
        ("1.1.0", {"address": "10.65.0.2/32", "interface": 1}, {"name", "mac", "sandbox", "mtu"}),
    ],
)
def test_a_result_has_the_form_of_its_version(version: str, ips: dict[str, object], inner: set[str]) -> None:
    value = RESULT.to_json(version)
    assert value["cniVersion"] == version
    assert value["ips"][0] == ips
    assert set(value["interfaces"][1]) == inner


def test_the_first_versions_have_one_address_of_each_kind() -> None:
    assert RESULT.to_json("0.2.0") == {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.65.0.2/32", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "fd00::2/128", "routes": [{"dst": "::/0"}]},
        "dns": {},
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_can_be_read_back(version: str) -> None:
    back = read_result(RESULT.to_json(version))
    assert [one.cidr for one in back.addresses] == ["10.65.0.2/32", "fd00::2/128"]
    assert [one.destination for one in back.routes] == ["0.0.0.0/0", "::/0"]
    assert version < "0.3" or [one.name for one in back.interfaces] == ["cali1", "eth0"]


class Nobody:
    async def perform(self, request: Request, environment: object, namespace: int | None) -> Answer:
        return {"command": request.command}


def run(data: bytes) -> tuple[int, dict[str, Any]]:
    import asyncio

    code, text = asyncio.run(answer_call(parse_call(data), Nobody(), None))
    return code, json.loads(text)


def raw(config: object, **environment: str) -> bytes:
    lines = [b"CATBIRD-CNI 1", b"PLUGIN=calico", *(f"{k}={v}".encode() for k, v in environment.items())]
    return b"\n".join(lines) + b"\n\n" + json.dumps(config).encode()


@pytest.mark.parametrize("asked", VERSIONS)
def test_version_is_answered_in_the_version_that_asks(asked: str) -> None:
    code, answer = run(raw({"cniVersion": asked}, CNI_COMMAND="VERSION"))
    assert (code, answer) == (0, {"cniVersion": asked, "supportedVersions": list(VERSIONS)})


def test_an_error_is_written_in_the_version_of_the_request() -> None:
    code, answer = run(raw({**CONFIG, "cniVersion": "0.4.0", "name": "?"}, **ENVIRONMENT))
    assert (code, answer["cniVersion"], answer["code"]) == (1, "0.4.0", 7)
    assert "name" in answer["msg"]


@given(st.binary(max_size=300))
def test_no_request_makes_the_agent_raise(data: bytes) -> None:
    try:
        code = run(data)[0]
    except CNIError as error:
        code = error.code
    assert code in (1, 6)
