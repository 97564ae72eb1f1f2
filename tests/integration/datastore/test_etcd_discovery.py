"""etcd servers that only SRV records name, asked of a real name server on loopback that answers what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from integration.datastore.errors import Unavailable
from integration.datastore.etcd.discovery import discovered
from integration.datastore.etcd.driver import EtcdDatastore
from integration.datastore.etcd.opening import open_etcd
from integration.datastore.settings import load_settings
from tests.integration.datastore.contract import peer_key

Records = dict[str, list[str]]


class NameServer(asyncio.DatagramProtocol):
    def __init__(self, records: Records) -> None:
        self.records = records
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        asked = query.question[0]
        if texts := self.records.get(asked.name.to_text()):
            response.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "SRV", *texts))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        assert self.transport
        self.transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def resolver(records: Records) -> AsyncIterator[dns.asyncresolver.Resolver]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(records), local_addr=("127.0.0.1", 0)
    )
    made = dns.asyncresolver.Resolver(configure=False)
    made.nameservers, made.port = ["127.0.0.1"], transport.get_extra_info("sockname")[1]
    try:
        yield made
    finally:
        transport.close()


def found(records: Records, domain: str = "example.org") -> tuple[str, ...]:
    async def ask() -> tuple[str, ...]:
        async with resolver(records) as asked:
            return await discovered(domain, 5.0, asked)

    return asyncio.run(ask())


def test_both_services_are_asked_and_the_best_priority_comes_first() -> None:
    records = {
        "_etcd-client-ssl._tcp.example.org.": ["20 0 2379 b.example.org.", "10 0 12379 a.example.org."],
        "_etcd-client._tcp.example.org.": ["0 0 2379 c.example.org."],
    }
    wanted = ("https://a.example.org:12379", "https://b.example.org:2379", "http://c.example.org:2379")
    assert found(records) == wanted
    assert found(records, "example.org.") == wanted
    del records["_etcd-client-ssl._tcp.example.org."]
    assert found(records) == wanted[2:]


def test_no_record_is_named_by_what_was_asked() -> None:
    with pytest.raises(Unavailable, match=r"_etcd-client-ssl\._tcp\.example\.org and .* no such record"):
        found({})


def test_a_name_server_that_does_not_answer_is_unavailable() -> None:
    async def ask() -> None:
        silent = dns.asyncresolver.Resolver(configure=False)
        silent.nameservers, silent.port = ["127.0.0.1"], 1
        with pytest.raises(Unavailable, match="ETCD_DISCOVERY_SRV"):
            await discovered("example.org", 0.3, silent)

    asyncio.run(ask())


def test_the_store_asks_for_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to the attempt to connect to what the records name, where nobody listens."""
    asked: list[str] = []

    async def answer(domain: str, timeout_s: float) -> tuple[str, ...]:
        asked.append(domain)
        return ("http://127.0.0.1:1",)

    monkeypatch.setattr("integration.datastore.etcd.discovery.discovered", answer)

    async def body() -> None:
        settings = load_settings(environment={"DATASTORE_TYPE": "etcdv3", "ETCD_DISCOVERY_SRV": "example.org"})
        store = EtcdDatastore(replace(open_etcd(settings).settings, request_s=1.0))
        try:
            with pytest.raises(Unavailable, match=r"no etcd server answers at http://127\.0\.0\.1:1"):
                await store.get(peer_key("a"))
        finally:
            await store.close()

    asyncio.run(body())
    assert asked[:2] == ["example.org"] * 2  # and again when none answers: they may have moved
