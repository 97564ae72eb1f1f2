"""An nftables filter in a namespace, and what nft says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from felix.desired import IPVersion
from felix.filter_rules import Accept, Chain, Drop, InSet, Rule
from felix.kernel.nft_parts import Guard
from felix.kernel.nftables import NftablesFilter
from tests.netns import Namespace


def inside(
    host: Namespace,
    body: Callable[[NftablesFilter], Awaitable[None]],
    version: IPVersion = 4,
    guard: Guard | None = None,
    *,
    owns: bool = False,
) -> None:
    """Run with a filter whose sockets and programs are in the namespace."""

    def run() -> None:
        async def go() -> None:
            packet_filter = NftablesFilter(version, guard=guard, owns=owns)
            try:
                await body(packet_filter)
            finally:
                packet_filter.close()

        asyncio.run(go())

    host.call(run)


def ruleset(host: Namespace) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(host.run("nft", "-j", "list", "ruleset"))["nftables"]
    return found


def chains(host: Namespace) -> dict[str, int]:
    """Chain → number of rules."""
    found = {one["chain"]["name"]: 0 for one in ruleset(host) if "chain" in one}
    for one in ruleset(host):
        if "rule" in one:
            found[one["rule"]["chain"]] += 1
    return found


def listed(host: Namespace, what: str, name: str, family: str = "ip") -> str:
    return host.run("nft", "list", what, family, "calico", name)


def handle_of(host: Namespace, chain: str) -> int:
    """The chain's own, which changes if it is deleted and made again."""
    found: int = next(one["chain"]["handle"] for one in ruleset(host) if one.get("chain", {}).get("name") == chain)
    return found


def policy(name: str = "cali-pi-x", id: str = "s:web") -> Chain:
    return Chain(name, (Rule((InSet("source", id),), Accept()), Rule((), Drop())))
