"""The iptables filter by itself: `python -m tests.bench.iptables [policies] [endpoints]`, as root; makes its own namespace.

Ten rules a policy, ten policies an endpoint, a set of twenty addresses for every five rules. Prints what it measured.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from felix.desired import PortRange
from felix.filter_rules import (
    Accept,
    Chain,
    Conntrack,
    Drop,
    GoTo,
    HookRules,
    InSet,
    Jump,
    Mark,
    OutInterface,
    Ports,
    Protocol,
    Return,
    Rule,
    SetMark,
)
from felix.kernel.iptables import IptablesFilter
from tests.netns import network_namespace

ACCEPTED = 0x10000
SAMPLES = 20
_returns = Rule((Mark(ACCEPTED, ACCEPTED),), Return())


def policy(number: int) -> Chain:
    def rules() -> Iterator[Rule]:
        for which in range(5):
            ports = Ports("destination", (PortRange(80 + which, 80 + which),))
            yield Rule((Protocol(6), InSet("source", f"s:{number}"), ports), SetMark(ACCEPTED, ACCEPTED))
            yield _returns

    return Chain(f"cali-pi-{number:06d}", tuple(rules()))


def endpoint(number: int, policies: int) -> Chain:
    first = Rule((Conntrack(frozenset({"ESTABLISHED", "RELATED"})),), Accept())
    tried = [
        rule
        for which in range(10)
        for rule in (Rule((), Jump(f"cali-pi-{(number * 10 + which) % policies:06d}")), _returns)
    ]
    return Chain(f"cali-tw-cali{number:05d}", (first, *tried, Rule((), Drop())))


def dispatch(endpoints: int) -> Chain:
    return Chain(
        "cali-FORWARD",
        tuple(Rule((OutInterface(f"cali{n:05d}"),), GoTo(f"cali-tw-cali{n:05d}")) for n in range(endpoints)),
    )


def want(rules: IptablesFilter, policies: int, endpoints: int) -> None:
    for number in range(policies):
        rules.set_ip_set(f"s:{number}", "net", {f"10.{number >> 8}.{number & 255}.{n}/32" for n in range(20)})
    chains = [*map(policy, range(policies)), *(endpoint(n, policies) for n in range(endpoints)), dispatch(endpoints)]
    rules.set_chains("filter", chains)
    rules.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-FORWARD")),)))


async def applied_ms(rules: IptablesFilter) -> float:
    began = time.perf_counter()
    failures = await rules.apply()
    assert not failures, failures[:3]
    return (time.perf_counter() - began) * 1000


async def median_ms(rules: IptablesFilter, change: Callable[[int], None]) -> str:
    took = []
    for sample in range(SAMPLES):
        change(sample)
        took.append(await applied_ms(rules))
    return f"p50 {statistics.median(took):6.1f} ms, worst {max(took):6.1f}"


async def measure(backend: str, policies: int, endpoints: int) -> None:
    rules = IptablesFilter(4, backend)
    began = time.perf_counter()
    want(rules, policies, endpoints)
    print(f"{backend:6}  into words       {time.perf_counter() - began:6.2f} s")
    print(f"        from nothing     {await applied_ms(rules) / 1000:6.2f} s")
    rules = IptablesFilter(4, backend)
    want(rules, policies, endpoints)
    print(f"        adopted          {await applied_ms(rules) / 1000:6.2f} s")
    began = time.perf_counter()
    assert await rules.check() == []
    print(f"        checked          {time.perf_counter() - began:6.2f} s")

    def one_pod_more(sample: int) -> None:
        rules.set_chains("filter", [endpoint(endpoints + sample, policies), dispatch(endpoints + sample + 1)])

    print(f"        one pod more     {await median_ms(rules, one_pod_more)}")
    one_member = await median_ms(rules, lambda n: rules.change_ip_set("s:1", [f"10.9.9.{n}/32"], []))
    print(f"        one member more  {one_member}")
    thousand = [f"10.10.{n >> 8}.{n & 255}/32" for n in range(1000)]
    rules.change_ip_set("s:1", thousand, [])
    print(f"        1,000 members    {await applied_ms(rules):6.1f} ms in, ", end="")
    rules.change_ip_set("s:1", [], thousand)
    print(f"{await applied_ms(rules):6.1f} ms out")


def main() -> None:
    policies, endpoints = (int(one) for one in [*sys.argv[1:], "1000", "100"][:2])
    for backend in ("nft", "legacy"):
        with network_namespace() as host:
            host.call(lambda backend=backend: asyncio.run(measure(backend, policies, endpoints)))  # type: ignore[misc]


if __name__ == "__main__":
    main()
