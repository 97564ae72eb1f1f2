"""A table that belongs to its process: nobody else flushes or alters it, and it outlives the process."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import partial

import pytest

from felix.filter_rules import Accept, Chain, Rule
from felix.kernel.nfnetlink import NftSocket
from felix.kernel.nft_rules import RuleEncoder
from felix.kernel.nftables import NftablesFilter
from tests.felix.kernel.nft_scene import chains, inside
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root

KEPT = Chain("cali-pi-x", (Rule((), Accept(), ("kept",)),))


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


async def program(nft: NftablesFilter) -> None:
    nft.set_chains("filter", [KEPT])
    assert await nft.apply() == []
    assert await nft.check() == []


def handles(host: Namespace) -> list[int]:
    return host.call(lambda: NftSocket(4, "calico").rule_handles("filter-cali-pi-x"))["filter-cali-pi-x"]


def test_nobody_else_flushes_or_alters_it_while_its_process_lives(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        await program(nft)
        before = handles(host)
        host.run("nft", "flush", "ruleset")
        for command in ("delete table ip calico", "flush chain ip calico filter-FORWARD", "flush table ip calico"):
            with pytest.raises(Exception, match="not permitted"):
                host.run("nft", command)
        assert handles(host) == before
        assert await nft.check() == []
        nft.set_chains("filter", [Chain("cali-pi-y")])
        assert await nft.apply() == []

    inside(host, body, owns=True)
    assert {"filter-cali-pi-x", "filter-cali-pi-y"} <= chains(host).keys()


def test_the_next_process_takes_it_over_as_it_stands(host: Namespace) -> None:
    inside(host, program, owns=True)
    before = handles(host)
    inside(host, program, owns=True)
    assert handles(host) == before


@pytest.mark.parametrize("owns", [True, False])
def test_the_setting_changes_with_a_restart(host: Namespace, owns: bool) -> None:
    async def body(nft: NftablesFilter) -> None:
        await program(nft)
        host.run("nft", "flush", "ruleset")
        assert ("filter-cali-pi-x" in chains(host)) is owns

    inside(host, program, owns=not owns)
    inside(host, body, owns=owns)


def test_a_second_process_is_told_whose_it_is_and_harms_nothing(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        await program(nft)
        for owns in (True, False):
            other = host.call(partial(NftablesFilter, 4, owns=owns))
            other.set_chains("filter", [Chain("cali-other")])
            (failure,) = await other.apply()
            assert "another process" in failure.reason
            other.close()
        assert "filter-cali-other" not in chains(host)
        assert await nft.check() == []

    inside(host, body, owns=True)


def test_what_a_former_process_owned_can_be_removed(host: Namespace) -> None:
    inside(host, program, owns=True)
    inside(host, NftablesFilter.remove_everything)
    assert chains(host) == {}


def test_an_older_kernel_gets_a_table_that_nobody_owns(host: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 6.9 refuses the flags; here what refuses them is a number that no kernel knows."""
    monkeypatch.setattr("felix.kernel.nft_parts.OWNED", 1 << 20)
    encoder = RuleEncoder(4, "calico", table_flags=1 << 20)
    refused = host.call(lambda: NftSocket(4, "calico")).transaction([encoder.new_table()])
    assert refused[0].errno in (errno.EOPNOTSUPP, errno.EINVAL)
    inside(host, program, owns=True)
    assert "filter-cali-pi-x" in chains(host)
