"""What the nftables filter's kernel refuses, and what others do to our table: it costs little, and never leaves the node open."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from felix.desired import PortRange
from felix.filter_rules import (
    Accept,
    Chain,
    Conntrack,
    Drop,
    HookRules,
    InInterface,
    InSet,
    Jump,
    NetAnyOf,
    Ports,
    Protocol,
    Rule,
)
from felix.kernel.nfnetlink import NEW_RULE, Message, NftSocket, open_nfnetlink
from felix.kernel.nft_elements import net_elements
from felix.kernel.nft_monitor import NftMonitor, Touched
from felix.kernel.nft_rules import RuleEncoder
from felix.kernel.nftables import NftablesFilter
from felix.nft_names import set_name
from felix.ports import Failure
from felix.rules.static import guard
from tests.felix.kernel.nft_scene import chains, handle_of, inside, listed, policy
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[3]


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


def leads_to(name: str, *targets: str) -> Chain:
    return Chain(name, tuple(Rule((), Jump(target)) for target in targets))


# --- refused ---------------------------------------------------------------------------------------------------------


def test_chains_in_a_circle_cost_the_one_that_closes_it(host: Namespace) -> None:
    """The kernel says that of a whole transaction, not of a rule."""

    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy(f"cali-pi-{n}") for n in range(9)])
        nft.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-a")),)))
        nft.set_chains("filter", [leads_to("cali-a", "cali-b"), Chain("cali-b")])
        assert await nft.apply() == []
        nft.set_chains("filter", [policy(f"cali-pi-{n}") for n in range(9, 20)])
        nft.set_chains("filter", [leads_to("cali-b", "cali-a")])
        (failure,) = await nft.apply()
        assert failure == Failure("chain filter cali-b", "Too many links")
        assert await nft.check() == []
        nft.set_chains("filter", [leads_to("cali-b", "cali-pi-3")])
        assert await nft.apply() == []

    inside(host, body)
    assert {name: count for name, count in chains(host).items() if "cali-pi" in name} == {
        f"filter-cali-pi-{n}": 2 for n in range(20)
    }
    assert "jump filter-cali-pi-3" in listed(host, "chain", "filter-cali-b")


def test_an_interface_whose_chain_nobody_told_of_is_closed_until_somebody_does(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy()])
        nft.set_map("filter", "to", {"cali1": "cali-later", "cali2": "cali-pi-x"})
        (failure,) = await nft.apply()
        assert failure.what == "interface cali1"
        assert '"cali1" : goto filter-catbird-closed' in listed(host, "map", "filter-to")
        assert "drop" in listed(host, "chain", "filter-catbird-closed")
        assert '"cali2" : goto filter-cali-pi-x' in listed(host, "map", "filter-to")
        nft.set_chains("filter", [Chain("cali-later")])
        assert await nft.apply() == []
        assert '"cali1" : goto filter-cali-later' in listed(host, "map", "filter-to")
        nft.remove_chains("filter", ["cali-later"])
        (failure,) = await nft.apply()
        assert failure.what == "interface cali1"
        assert '"cali1" : goto filter-catbird-closed' in listed(host, "map", "filter-to")
        assert await nft.check() == []

    inside(host, body)


def test_a_name_that_no_interface_can_have_costs_the_others_nothing(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_chains("filter", [Chain("cali-a")])
        names = ["cali1", "an-interface-of-16", "", "odd\udcffname", 'quote"']
        nft.set_map("filter", "to", dict.fromkeys(names, "cali-a"))
        assert [one.what for one in await nft.apply()] == ["interface ", "interface an-interface-of-16"]
        assert await nft.check() == []
        nft.set_map("filter", "to", {"cali1": "cali-a"})
        assert await nft.apply() == []
        assert await nft.check() == []

    inside(host, body)
    assert '{ "cali1" : goto filter-cali-a }' in listed(host, "map", "filter-to")


def test_what_is_still_in_use_stays_until_it_is_not(host: Namespace) -> None:
    """A chain that was refused stays as it was, and with it what it leads to."""

    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy("cali-old"), leads_to("cali-x", "cali-old"), Chain("cali-gone")])
        assert await nft.apply() == []
        before = handle_of(host, "filter-FORWARD")
        nft.set_chains("filter", [leads_to("cali-x", "cali-nobody")])
        nft.remove_chains("filter", ["cali-old", "cali-gone"])
        nft.remove_ip_set("s:web")
        for _ in range(2):
            failures = await nft.apply()
            assert [one.what for one in failures] == [
                "chain filter cali-x", "gone chain filter-cali-old", "gone set cali40s-web",
            ]  # fmt: skip
            assert await nft.check() == []
        assert "filter-cali-gone" not in chains(host)
        assert chains(host)["filter-cali-old"] == 2
        nft.set_chains("filter", [Chain("cali-x")])
        assert await nft.apply() == []
        assert handle_of(host, "filter-FORWARD") == before

    inside(host, body)
    assert "filter-cali-old" not in chains(host)
    assert "cali40s-web" not in host.run("nft", "list", "ruleset")


def test_a_rule_without_a_meaning_closes_its_chain_alone(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy(), Chain("cali-bad", (Rule((NetAnyOf("source", ()),), Accept()),))])
        (failure,) = await nft.apply()
        assert failure.what == "chain filter cali-bad"
        assert "rule 0" in failure.reason
        assert await nft.check() == []

    inside(host, body)
    assert "drop" in listed(host, "chain", "filter-cali-bad")
    assert chains(host)["filter-cali-pi-x"] == 2


def test_what_is_closed_keeps_failsafes_and_leaves_the_host_alone(host: Namespace) -> None:
    """Nobody is locked out of the host by a chain of ours that the kernel refuses."""

    async def body(nft: NftablesFilter) -> None:
        nft.set_chains("filter", [Chain("cali-failsafe-in", (Rule((Protocol(6),), Accept()),))])
        nft.set_chains(
            "filter", [leads_to(name, "cali-nobody") for name in ("cali-INPUT", "cali-FORWARD", "cali-tw-a")]
        )
        nft.set_chains("filter", [leads_to("cali-fh-eth0", "cali-failsafe-in", "cali-nobody")])
        nft.set_chains("filter", [leads_to("cali-fh-eth1", "cali-failsafe-out", "cali-nobody")])
        nft.set_chains("nat", [leads_to("cali-POSTROUTING", "cali-nobody")])
        nft.set_hook("filter", "INPUT", HookRules((Rule((), Jump("cali-INPUT")),)))
        nft.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-FORWARD")),)))
        assert len(await nft.apply()) == 6
        assert await nft.check() == []

    inside(host, body)

    def verdicts(chain: str) -> list[str]:
        lines = listed(host, "chain", chain).splitlines()[2:-2]
        return [line.partition(" bytes 0 ")[2].partition(" comment")[0] for line in lines]

    assert verdicts("filter-cali-INPUT") == []
    assert verdicts("nat-cali-POSTROUTING") == []
    assert verdicts("filter-cali-FORWARD") == ["drop"]
    assert verdicts("filter-cali-tw-a") == ["drop"]
    assert verdicts("filter-cali-fh-eth0") == ["jump filter-cali-failsafe-in", "drop"]
    assert verdicts("filter-cali-fh-eth1") == ["drop"]


def test_changes_told_one_after_the_other_may_overlap(host: Namespace) -> None:
    """Each step alone has nothing that overlaps; together they have."""

    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.0/8"})
        nft.set_chains("filter", [policy()])
        assert await nft.apply() == []
        before = handle_of(host, "filter-FORWARD")
        nft.change_ip_set("s:web", (), {"10.0.0.0/8"})
        nft.change_ip_set("s:web", {"10.1.0.0/16"}, ())
        assert await nft.apply() == []
        assert await nft.check() == []
        assert handle_of(host, "filter-FORWARD") == before

    inside(host, body)
    assert "elements = { 10.1.0.0/16 }" in listed(host, "set", "cali40s-web")


def test_without_the_right_to_it_is_a_failure_and_no_exception(host: Namespace) -> None:
    program = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1])\n"
        "from felix.kernel.nftables import NftablesFilter\n"
        "nft = NftablesFilter(4)\n"
        "print([(one.what, one.reason) for one in asyncio.run(nft.apply())])"
    )
    command = [
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
        sys.executable,
        "-c",
        program,
        str(ROOT),
    ]
    assert host.run(*command).strip() == "[('table ip calico', 'Operation not permitted')]"


# --- others ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("add table ip calico { flags dormant; }", "table ip calico was made dormant"),
        ("add chain ip calico filter-FORWARD { policy drop; }", "the policy of hook filter FORWARD was altered"),
        (
            "delete chain ip calico filter-INPUT; add chain ip calico filter-INPUT "
            "{ type filter hook input priority 5; policy accept; }",
            "where the kernel calls hook filter INPUT was altered",
        ),
        (
            "flush chain ip calico filter-cali-pi-x; delete set ip calico cali40s-web; "
            "add set ip calico cali40s-web { type ipv4_addr; }",
            "sets of another kind are in the place of ours",
        ),
        ("flush map ip calico filter-to", "map filter-to was altered"),
        (
            'delete element ip calico filter-to { "cali1" }; '
            'add element ip calico filter-to { "cali1" : goto filter-cali-other }',
            "map filter-to was altered",
        ),
        ("insert rule ip calico filter-cali-pi-x accept", "chain filter cali-pi-x was altered"),
        ("flush chain ip calico filter-cali-pi-x; delete set ip calico cali40s-web", "set s:web was removed"),
    ],
)
def test_what_others_do_to_the_table_itself_is_found_and_put_right(host: Namespace, command: str, said: str) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy(), Chain("cali-other", (Rule((), Accept()),))])
        nft.set_map("filter", "to", {"cali1": "cali-pi-x"})
        assert await nft.apply() == []
        before = host.run("nft", "-s", "list", "ruleset")
        host.run("nft", command)
        assert said in " ".join(await nft.check())
        assert await nft.apply() == []
        assert await nft.check() == []
        assert sorted(host.run("nft", "-s", "list", "ruleset").splitlines()) == sorted(before.splitlines())

    inside(host, body)


def test_an_element_of_others_that_is_in_the_way_goes_without_a_new_table(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.0/16"})
        nft.set_chains("filter", [policy()])
        assert await nft.apply() == []
        before = handle_of(host, "filter-FORWARD")
        host.run("nft", "add element ip calico cali40s-web { 11.0.0.0/8 }")
        nft.change_ip_set("s:web", {"11.1.1.1/32"}, ())
        assert await nft.apply() == []
        assert await nft.check() == []
        assert handle_of(host, "filter-FORWARD") == before

    inside(host, body)
    assert "10.0.0.0/16, 11.1.1.1" in listed(host, "set", "cali40s-web")


def test_the_monitor_tells_what_others_touched_and_nothing_of_ours(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        monitor = NftMonitor("calico", nft.port_ids)
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy()])
        assert await nft.apply() == []
        assert monitor.read() == {}
        host.run("nft", "add rule ip calico filter-cali-pi-x accept; add table ip other; add chain ip other x")
        host.run("nft", "add element ip calico cali40s-web { 10.7.0.1 }")
        touched = monitor.read()
        assert touched == {4: Touched({"filter-cali-pi-x"}, {"cali40s-web"})}
        nft.suspect(touched[4])
        found = await nft.check()
        assert found == ["chain filter cali-pi-x was altered", "members of set s:web were altered"]
        assert await nft.apply() == []
        assert monitor.read() == {}
        host.run("nft", "flush ruleset")
        assert monitor.read()[4].is_more
        monitor.close()

    inside(host, body)


def test_a_reading_that_others_disturbed_is_done_again(host: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves of the members change places in one transaction, again and again, while they are read."""
    one, other = ([f"10.{half}.{n >> 8}.{n & 255}/32" for n in range(8000)] for half in (1, 2))
    encoder = RuleEncoder(4, "calico")
    reader, writer = host.call(lambda: (NftSocket(4, "calico"), NftSocket(4, "calico")))

    def change(what: Literal["add", "delete"], members: list[str]) -> list[Message]:
        elements = [part for member in members for part in net_elements(member)]
        return [encoder.elements(what, "s", elements[at : at + 500]) for at in range(0, len(elements), 500)]

    assert writer.transaction([encoder.new_table(), encoder.new_set("s", "net"), *change("add", one)]) == {}
    disturbed: list[bool] = []
    is_over = threading.Event()

    def write() -> None:
        now, then = one, other
        while not is_over.wait(0.0005):
            assert writer.transaction([*change("delete", now), *change("add", then)]) == {}
            now, then = then, now

    def counted(kind: int, asked: bytes) -> tuple[list[tuple[bytes, int, int]], bool]:
        found, is_whole = once(kind, asked)
        disturbed.append(not is_whole)
        return found, is_whole

    once = reader._dump
    monkeypatch.setattr(reader, "_dump", counted)
    writing = threading.Thread(target=write)
    writing.start()
    deadline = time.monotonic() + 20
    try:
        while not any(disturbed) and time.monotonic() < deadline:
            with suppress(OSError):  # five times in a row: said, not guessed
                reader.elements("s")
    finally:
        is_over.set()
        writing.join()
    assert any(disturbed)
    assert len({key[2] for key in reader.elements("s") if not key[0]}) == 1


# --- whatever happens ------------------------------------------------------------------------------------------------


def test_counters_are_read_while_a_large_change_is_written(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy("cali-first")])
        assert await nft.apply() == []
        nft.set_chains("filter", [policy(f"cali-pi-{n}") for n in range(3000)])
        writing = asyncio.create_task(nft.apply())
        counted = 0
        while not writing.done():
            assert len(await nft.counts("filter", ["cali-first"])) == 2
            counted += 1
            await asyncio.sleep(0)
        assert writing.result() == []
        assert counted > 3

    inside(host, body)


def test_what_is_told_while_a_change_is_written_is_not_lost(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_map("filter", "to", {"cali1": "cali-pi-1"})
        nft.set_chains("filter", [policy(f"cali-pi-{n}") for n in range(2000)])
        writing = asyncio.create_task(nft.apply())
        for n in range(40):
            await asyncio.sleep(0.002)
            nft.change_ip_set("s:web", {f"10.0.1.{n}/32"}, ())
            nft.set_chains("filter", [Chain(f"cali-pi-{n * 50}", (Rule((), Drop()),))])
            nft.set_map("filter", "to", {"cali1": f"cali-pi-{n}", f"cali{n}x": "cali-pi-1"})
            if n % 10 == 0:
                nft.remove_chains("filter", [f"cali-pi-{n * 50 + 49}"])
        assert await writing == []
        assert await nft.apply() == []
        assert await nft.check() == []

    inside(host, body)
    assert listed(host, "set", "cali40s-web").count("10.0.1.") == 40
    assert '"cali1" : goto filter-cali-pi-39' in listed(host, "map", "filter-to")
    found = chains(host)
    assert [found[f"filter-cali-pi-{n * 50}"] for n in range(40)] == [1] * 40
    assert "filter-cali-pi-549" not in found


def test_a_cancelled_apply_is_made_up_for(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        members = {f"10.0.{n >> 8}.{n & 255}/32" for n in range(3000)}
        nft.set_ip_set("s:web", "net", members)
        nft.set_chains("filter", [policy(f"cali-pi-{n}") for n in range(3000)])
        for wait_s in (0.0, 0.01, 0.05, 0.1):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await nft.apply()
        assert await nft.apply() == []
        for n in range(1, 9):
            nft.change_ip_set("s:web", {f"10.1.0.{n}/32"}, {f"10.0.0.{n}/32"})
            with suppress(TimeoutError):
                async with asyncio.timeout(0.004 * n):
                    await nft.check()
        assert await nft.apply() == []
        assert await nft.check() == []

    inside(host, body)
    assert sum(chains(host).values()) == 6000
    listed_set = listed(host, "set", "cali40s-web")
    assert "10.1.0.8" in listed_set
    assert "10.0.0.8," not in listed_set


MANY = """
import asyncio, sys; sys.path.insert(0, sys.argv[1])
from felix.filter_rules import *
from felix.kernel.nftables import NftablesFilter
from felix.rules.static import guard
nft = NftablesFilter(4, guard=guard(["cali"]))
nft.set_ip_set("s:web", "net", {f"10.0.{n >> 8}.{n & 255}/32" for n in range(3000)})
rules = (Rule((InSet("source", "s:web"),), Accept()), Rule((), Drop(), (sys.argv[2],)))
nft.set_chains("filter", [Chain(f"cali-pi-{n}", rules) for n in range(3000)])
nft.set_map("filter", "to", {f"cali{n}": f"cali-pi-{n}" for n in range(3000)})
nft.set_chains("filter", [Chain("cali-to", (Rule((), GoToByInterface("to", "out"), (sys.argv[2],)), Rule((), Drop())))])
nft.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-to"), (sys.argv[2],)),)))
print("begins", flush=True)
print(asyncio.run(nft.apply()), asyncio.run(nft.check()), flush=True)
"""


def test_killed_at_any_moment_it_leaves_the_node_closed_or_as_it_was(host: Namespace) -> None:
    def start(generation: str) -> subprocess.Popen[str]:
        command = host.command(sys.executable, "-c", MANY, str(ROOT), generation)
        started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert started.stdout is not None
        assert started.stdout.readline() == "begins\n"
        return started

    def forward() -> str:
        return listed(host, "chain", "filter-FORWARD")

    for after_s in (0.02, 0.06, 0.1, 0.25):
        process = start("first")
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if "filter-FORWARD" not in host.run("nft", "list", "ruleset"):
            continue  # before it wrote anything
        if "jump filter-cali-to" in forward():  # a fast machine
            found = chains(host)
            assert {found[f"filter-cali-pi-{n}"] for n in range(3000)} == {2}
        else:
            assert "catbird: until all rules are there" in forward()
    assert start("first").communicate()[0] == "[] []\n"
    assert "until all rules" not in forward()
    for after_s in (0.1, 0.4):
        process = start("second")
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert "jump filter-cali-to" in forward()
        # Each chain is the former process's or the new one's, and whole.
        found = chains(host)
        assert {found[f"filter-cali-pi-{n}"] for n in range(3000)} == {2}
    assert start("second").communicate()[0] == "[] []\n"
    assert '"first"' not in host.run("nft", "list", "ruleset")


def test_while_a_table_is_made_anew_the_guard_stands(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy()])
        nft.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-pi-x")),)))
        assert await nft.apply() == []
        assert "until all rules" not in listed(host, "chain", "filter-FORWARD")
        await nft._writer.rebuild()
        assert "until all rules" in listed(host, "chain", "filter-FORWARD")
        assert await nft.apply() == []
        assert "until all rules" not in listed(host, "chain", "filter-FORWARD")
        assert await nft.check() == []

    inside(host, body, guard=guard(["cali"]))


class Told:
    """What a filter was told, at random; and what must stand in the kernel then."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.members: dict[str, set[str]] = {}
        self.rules: dict[str, tuple[Rule, ...]] = {}
        self.map: dict[str, str] = {}

    def some_nets(self) -> set[str]:
        chosen = self.random.choices([8, 9, 16, 24, 31, 32], k=self.random.randrange(5))
        return {f"10.{self.random.randrange(4) << 6 if length > 9 else 0}.0.0/{length}" for length in chosen}

    def step(self, nft: NftablesFilter) -> None:
        match self.random.randrange(6):
            case 0:
                id = f"s:{self.random.randrange(4)}"
                self.members[id] = self.some_nets()
                nft.set_ip_set(id, "net", self.members[id])
            case 1 if self.members:
                id = self.random.choice(sorted(self.members))
                added, removed = self.some_nets(), self.some_nets()
                nft.change_ip_set(id, added, removed - added)
                self.members[id] = (self.members[id] | added) - (removed - added)
            case 2 | 3:
                name = f"cali-{self.random.randrange(6)}"
                rules = [self._rule() for _ in range(self.random.randrange(4))]
                self.rules[name] = tuple(rules)
                nft.set_chains("filter", [Chain(name, self.rules[name])])
            case 4 if self.rules:
                name = self.random.choice(sorted(self.rules))
                del self.rules[name]
                nft.remove_chains("filter", [name])
            case _:
                names = [f"cali-{n}" for n in range(6)]
                self.map = {f"if{self.random.randrange(9)}": self.random.choice(names) for _ in range(5)}
                nft.set_map("filter", "to", self.map)

    def _rule(self) -> Rule:
        port = self.random.randrange(1, 9)
        kinds: list[Callable[[], Rule]] = [
            lambda: Rule((), Jump(f"cali-{self.random.randrange(7)}")),
            lambda: Rule((Protocol(6), Ports("source", (PortRange(port, port), PortRange(90, 99)))), Accept()),
            lambda: Rule((InSet("source", f"s:{self.random.randrange(4)}", self.random.random() < 0.3),), Drop()),
            lambda: Rule((InInterface("eth+"), Conntrack(frozenset({"NEW"}))), Drop(), (f"port {port}",)),
        ]
        return self.random.choice(kinds)()


@pytest.mark.parametrize("seed", range(6))
def test_after_any_changes_the_kernel_has_what_a_fresh_table_would_have(host: Namespace, seed: int) -> None:
    """Jumps to chains that are not there, and in circles, are among them."""
    told = Told(seed)

    def compared() -> list[str]:
        found = host.run("nft", "-s", "list", "table", "ip", "calico")
        return sorted(line.strip(" \t,") for line in found.replace("}", "").replace("elements = {", "").splitlines())

    async def body(nft: NftablesFilter) -> None:
        for at in range(4):
            told.members[f"s:{at}"] = set()
            nft.set_ip_set(f"s:{at}", "net", ())
        for _ in range(40):
            for _ in range(told.random.randrange(1, 5)):
                told.step(nft)
            if told.random.random() < 0.2:
                nft.is_loaded = False  # as if it were another process
            await nft.apply()
            assert await nft.check() == []
        # In the end all can be done.
        for name in [*told.rules]:
            rules = tuple(rule for rule in told.rules[name] if not isinstance(rule.action, Jump))
            told.rules[name] = rules
            nft.set_chains("filter", [Chain(name, rules)])
        nft.set_map("filter", "to", {})
        assert await nft.apply() == []
        assert await nft.check() == []

    async def anew(nft: NftablesFilter) -> None:
        for id, members in told.members.items():
            if set_name(4, id) in former:  # it has had members
                nft.set_ip_set(id, "net", {"10.0.0.0/8"})
            nft.set_ip_set(id, "net", members)
        nft.set_chains("filter", [Chain(name, rules) for name, rules in told.rules.items()])
        nft.set_chains("filter", [Chain("catbird-closed", (Rule((), Drop(), ("x",)),))] if "closed" in former else [])
        nft.set_map("filter", "to", {})
        assert await nft.apply() == []

    inside(host, body)
    former = "".join(compared())
    before = [line for line in compared() if "catbird: what should decide" not in line]
    host.run("nft", "flush", "ruleset")
    inside(host, anew)
    assert [line for line in compared() if 'comment "x"' not in line] == before


def test_a_kernel_that_tells_of_a_rule_says_whose_socket_it_was() -> None:
    """On which the monitor relies."""
    with network_namespace() as host:
        watch = host.call(open_nfnetlink)
        watch.setblocking(False)
        watch.setsockopt(270, 1, 7)
        socket, encoder = host.call(lambda: NftSocket(4, "calico")), RuleEncoder(4, "calico")
        rule = encoder.rules("filter", Chain("cali-x", (Rule((), Accept()),)))
        assert rule[0][0] == NEW_RULE
        assert socket.transaction([encoder.new_table(), encoder.new_chain("filter-cali-x"), *rule]) == {}
        told = watch.recv(1 << 20)
        assert int.from_bytes(told[12:16], sys.byteorder) == socket.port_id
