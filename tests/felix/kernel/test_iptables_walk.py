"""A random walk on a real kernel: wishes change, other people are at our chains and sets, processes end and begin.

After every step that was not refused, the kernel has what is wanted, and an heir that knows nothing writes nothing.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable

import pytest

from felix.desired import IPSetType
from felix.filter_rules import Accept, Chain, Drop, Hook, HookRules, InPortSet, InSet, Jump, Masquerade, Return, Rule
from felix.kernel.iptables import IptablesFilter
from tests.felix.kernel.filters import inside
from tests.felix.kernel.test_iptables_others import watch
from tests.netns import network_namespace

pytestmark = pytest.mark.root
CHAINS = [f"cali-{letter}" for letter in "abcdef"]
SETS = ["s:a", "s:b", "n:c"]
HOOKS: list[Hook] = ["INPUT", "FORWARD"]
IPTABLES = [
    "-F", "-X", "-F cali-a", "-F cali-c", "-D cali-b 1", "-A cali-d -j DROP", "-N cali-evil", "-I FORWARD -j cali-e",
    "-I FORWARD 1 -s 192.0.2.1 -j ACCEPT", "-A INPUT -j ACCEPT",
]  # fmt: skip
IPSET = [
    "flush", "destroy", "flush cali40s:a", "del cali40s:a 10.0.0.1", "add cali40s:b 10.0.0.1", "create cali4t1 hash:net",
    "create cali40n:c hash:ip",
]  # fmt: skip


class World:
    """What is wanted."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.chains: dict[str, tuple[tuple[str, object], ...]] = {}  # name → (set or nothing, action) of each rule
        self.sets: dict[str, tuple[IPSetType, frozenset[str]]] = {}
        self.hooks: dict[Hook, HookRules] = {}

    def step(self) -> None:
        pick = self.random
        what = pick.random()
        if what < 0.4:
            at = pick.randrange(len(CHAINS))
            self.chains[CHAINS[at]] = tuple(self._rule(CHAINS[at + 1 :]) for _ in range(pick.randint(0, 5)))
        elif what < 0.5 and self.chains:
            del self.chains[pick.choice(sorted(self.chains))]
        elif what < 0.8:
            kind: IPSetType = pick.choice(["net", "net", "ip,port"])
            end = "/32" if kind == "net" else ",tcp:80"
            members = frozenset(f"10.0.0.{pick.randrange(30)}{end}" for _ in range(pick.randint(0, 9)))
            self.sets[pick.choice(SETS)] = (kind, members)
        elif self.chains:
            first, last = ([Rule((), Jump(pick.choice(sorted(self.chains))))] * pick.randint(0, 2) for _ in range(2))
            self.hooks[pick.choice(HOOKS)] = HookRules(tuple(first), tuple(last))

    def _rule(self, targets: list[str]) -> tuple[str, object]:
        pick = self.random
        id = pick.choice([*SETS, "", "", "", "s:nobody"] if pick.random() < 0.1 else [*self.sets, ""])
        action: object = pick.choice([Drop(), Accept(), Return()])
        if targets and pick.random() < 0.5:
            action = Jump(pick.choice(targets))
        return id, Masquerade() if pick.random() < 0.03 else action

    def chain(self, name: str) -> Chain:
        def criteria(id: str) -> tuple[InSet | InPortSet, ...]:
            if not id:
                return ()
            is_net = self.sets.get(id, ("net",))[0] == "net"
            return (InSet("source", id),) if is_net else (InPortSet("source", id),)

        return Chain(name, tuple(Rule(criteria(id), action) for id, action in self.chains[name]))  # type: ignore[arg-type]

    def tell(self, rules: IptablesFilter, known: set[str]) -> None:
        for id, (kind, members) in self.sets.items():
            rules.set_ip_set(id, kind, members)
        rules.remove_chains("filter", known - self.chains.keys())
        rules.set_chains("filter", map(self.chain, self.chains))
        for hook, wanted in self.hooks.items():
            rules.set_hook("filter", hook, wanted)


@pytest.mark.parametrize("seed", [1, 6])
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_whatever_happens_the_kernel_has_what_is_wanted_in_the_end(backend: str, seed: int) -> None:
    now = [0.0]
    world = World(seed)

    def made() -> IptablesFilter:
        return IptablesFilter(4, backend, max_set_size=5, clock=lambda: now[0])

    async def body(rules: IptablesFilter) -> None:
        rules, fine = made(), 0
        for _ in range(20):
            known = set(world.chains)
            for _ in range(world.random.randint(1, 3)):
                world.step()
            disturb(world.random, backend)
            if world.random.random() < 0.15:
                rules = made()
            world.tell(rules, known)
            now[0] += world.random.choice([0, 100])
            await rules.check()
            failures = await rules.apply()
            assert [one for one in failures if "chain" not in one.what and "hook" not in one.what] == []
            if not failures:
                fine += 1
                assert await rules.check() == []
                await rules.apply()
                await heir_writes_nothing(world, made)
                has_what_is_wanted(world, rules, backend)
        assert fine > 3

    with network_namespace() as host:
        inside(host, body, backend)


def disturb(pick: random.Random, backend: str) -> None:
    """Somebody else, in the same namespace as this thread."""
    for program, commands in ((f"iptables-{backend}", IPTABLES), ("ipset", IPSET)):
        if pick.random() < 0.3:
            subprocess.run([program, *pick.choice(commands).split()], capture_output=True, check=False)


async def heir_writes_nothing(world: World, made: Callable[[], IptablesFilter]) -> None:
    heir, written = made(), list[str]()
    await watch(heir, written.append)
    world.tell(heir, set())
    assert await heir.apply() == []
    assert written == []


def has_what_is_wanted(world: World, rules: IptablesFilter, backend: str) -> None:
    saved = subprocess.run(
        [f"iptables-{backend}-save", "-t", "filter"], capture_output=True, text=True, check=True
    ).stdout
    there = {name: saved.count(f"\n-A {name} ") for name in CHAINS if f"\n:{name} " in saved}
    live = rules._tables["filter"].is_live
    assert there == {name: len(those) for name, those in world.chains.items() if live(name)}
    saved = subprocess.run(["ipset", "save"], capture_output=True, text=True, check=True).stdout
    for id, (_, members) in world.sets.items():
        shown = {line.split()[2] for line in saved.splitlines() if line.startswith(f"add cali40{id} ")}
        assert shown == {one.removesuffix("/32") for one in members}
