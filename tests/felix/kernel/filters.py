"""An iptables filter inside a namespace, as tests use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from felix.filter_rules import Accept, Chain, Drop, HookRules, InSet, Jump, Mark, Rule
from felix.kernel.iptables import IptablesFilter
from tests.netns import Namespace


def inside(
    host: Namespace,
    body: Callable[[IptablesFilter], Awaitable[None]],
    backend: str = "nft",
    version: int = 4,
    **options: object,
) -> None:
    """A new filter, which knows nothing but what is in the kernel."""

    def run() -> None:
        async def go() -> None:
            await body(IptablesFilter(version, backend, **options))  # type: ignore[arg-type]

        with asyncio.Runner() as runner:
            asyncio.get_event_loop_policy().set_child_watcher(asyncio.ThreadedChildWatcher())
            runner.run(go())

    host.call(run)


def policy(name: str = "cali-pi-x") -> Chain:
    return Chain(name, (Rule((InSet("source", "s:web"),), Accept(), ("Policy x",)), Rule((), Drop())))


def base(rules: IptablesFilter) -> None:
    rules.set_ip_set("s:web", "net", {"10.0.0.1/32", "10.1.0.0/16", "fd00::1/128"})
    rules.set_chains("filter", [policy(), Chain("cali-FORWARD", (Rule((), Jump("cali-pi-x")),))])
    after = (Rule((Mark(1, 1),), Accept()), Rule((), None, ("last",)))
    rules.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-FORWARD")),), after))


def forward(host: Namespace, backend: str = "nft") -> list[str]:
    return host.run(f"iptables-{backend}", "-S", "FORWARD").splitlines()[1:]
