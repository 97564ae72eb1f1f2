"""A large change is written step by step: what packets meet, and what is told, in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from felix.filter_rules import Accept, Chain, Drop, HookRules, InSet, Jump, Return, Rule
from felix.kernel.nftables import NftablesFilter
from tests.felix.kernel.nft_scene import inside
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root
MANY = 200


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


def filling(what: str) -> list[Chain]:
    """More rules than one transaction takes."""
    return [
        Chain(f"cali-pi-{n}", tuple(Rule((), Return(), (f"{what} {n} {at}",)) for at in range(60))) for n in range(MANY)
    ]


def test_a_new_chain_is_whole_before_a_changed_one_leads_to_it(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        def rules(chain: str) -> list[int]:
            return nft._counting.rule_handles(chain).get(chain, [])

        ends = [Chain(f"cali-tw-{n}", (Rule((), Jump("cali-pi-0")), Rule((), Drop()))) for n in range(20)]
        nft.set_chains("filter", [*filling("before"), *ends])
        nft.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-tw-0")),)))
        assert await nft.apply() == []
        groups = [Chain(f"cali-gi-{n}", (Rule((), Drop(), ("a denial",)),)) for n in range(20)]
        nft.set_chains("filter", [*filling("after"), *groups])
        nft.set_chains("filter", [Chain(f"cali-tw-{n}", (Rule((), Jump(f"cali-gi-{n}")),)) for n in range(20)])
        open_: set[int] = set()
        looked = 0
        writing = asyncio.create_task(nft.apply())
        while not writing.done():
            looked += 1
            for n in range(20):
                if len(rules(f"filter-cali-tw-{n}")) == 1 and not rules(f"filter-cali-gi-{n}"):
                    open_.add(n)
            await asyncio.sleep(0)
        assert writing.result() == []
        assert looked > 3
        assert not open_

    inside(host, body)


@pytest.mark.parametrize("then_goes", [False, True])
def test_members_that_come_while_it_is_written_close_no_chain(host: Namespace, then_goes: bool) -> None:
    async def body(nft: NftablesFilter) -> None:
        wanted = {
            f"s:{n}": Chain(one.name, (Rule((InSet("source", f"s:{n}"),), Accept()), *one.rules))
            for n, one in enumerate(filling("with a set"))
        }
        for id in wanted:
            nft.set_ip_set(id, "net", ())
        nft.set_chains("filter", wanted.values())
        writing = asyncio.create_task(nft.apply())
        to_tell = list(wanted)
        told = []
        while not writing.done():
            await asyncio.sleep(0.002)
            if to_tell:
                id = to_tell.pop()
                told.append(id)
                nft.change_ip_set(id, {"10.0.0.1/32"}, ())
                if then_goes:
                    nft.remove_ip_set(id)
        assert writing.result() == []
        assert len(told) > 3
        if then_goes:
            nft.remove_chains("filter", [wanted[id].name for id in told])
        assert await nft.apply() == []
        assert await nft.check() == []
        stand = nft._counting.rule_handles()
        for id in told:
            assert len(stand.get(f"filter-{wanted[id].name}", ())) == (0 if then_goes else 61)

    inside(host, body)
