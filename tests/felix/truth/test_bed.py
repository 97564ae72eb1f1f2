"""The bed before anybody programs a rule: whatever is denied later, it is Felix who denies it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from tests.felix.truth.bed import Bed
from tests.felix.truth.sockets import crc32c
from tests.felix.truth.tables import Probe, ports_of, probes_of, scenarios

pytestmark = pytest.mark.root


def own_translation(probe: Probe) -> tuple[str, int] | None:
    """Floating addresses are Felix' to translate: without it their probes go to the address behind."""
    return probe.via if probe.via and probe.via[0] == "host" else None


def test_without_rules_every_probe_of_every_scenario_arrives() -> None:
    async def run() -> dict[Probe, str]:
        found: dict[Probe, str] = {}
        async with Bed(ports_of(scenarios(), 6), ports_of(scenarios(), 17)) as bed:
            for scenario in scenarios():
                probes = [
                    replace(one, expected="allow", seen_as="", via=own_translation(one)) for one in scenario.probes
                ]
                bed.translate(probes)
                bed.forget_connections()
                found |= await bed.verdicts(probes)
        return found

    began = time.monotonic()
    found = asyncio.run(run())
    assert {str(probe): what for probe, what in found.items() if what != "allow"} == {}
    assert len(found) > 100
    assert time.monotonic() - began < 60


def test_a_denied_probe_is_seen_as_denied() -> None:
    """Of every kind of probe one, and a rule that drops what is forwarded."""
    table = """
        a -> b tcp 80 deny
        a -> b tcp6 80 deny
        a -> out udp 53 deny
        a -> b icmp 8 deny
        a -> b icmp6 128 deny
        a -> b sctp 80 deny
        a!10.65.0.9 -> out udp 53 deny
        out -> b tcp 80 via host:30080 deny
        out -> host tcp 80 allow as out
        host -> lan udp 53 allow as host
    """
    probes = list(probes_of(table))

    async def run() -> dict[Probe, str]:
        async with Bed({80}, {53}) as bed:
            bed.translate(probes)
            bed.host.command(
                "nft", "-f", "-", text="table inet t { chain c { type filter hook forward priority 0; drop;\n}\n}"
            )
            return await bed.verdicts(probes)

    found = asyncio.run(run())
    assert {str(probe): what for probe, what in found.items()} == {str(probe): probe.expected for probe in probes}


def test_the_address_that_the_receiver_sees_is_compared() -> None:
    probes = list(probes_of("a -> out tcp 80 allow as host"))

    async def run() -> dict[Probe, str]:
        async with Bed({80}, {53}) as bed:
            return await bed.verdicts(probes)

    assert list(asyncio.run(run()).values()) == ["allow as 10.65.0.1, not 192.0.2.1"]


def test_crc32c_of_the_check_string() -> None:
    assert crc32c(b"123456789") == 0xE3069283
