"""What iptables and ipset refuse costs the chain or the member alone, is told, and tried again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from felix.filter_rules import (
    Accept,
    Chain,
    Conntrack,
    HookRules,
    InSet,
    Jump,
    LimitPacketRate,
    Masquerade,
    Rule,
)
from felix.kernel import programs
from felix.kernel.iptables import IptablesFilter, ProgramMissing
from felix.ports import Failure
from tests.felix.kernel.filters import base, forward, inside
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root
TO_BOTH = Chain("cali-FORWARD", (Rule((), Jump("cali-pi-bad")), Rule((), Jump("cali-pi-x"))))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


@pytest.fixture(params=["nft", "legacy"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


BAD = {
    "a set that is not there": Rule((InSet("source", "s:nobody"),), Accept()),
    "what only the kernel refuses": Rule((), Masquerade()),  # in the filter table; legacy names no line
    "a chain that is not there": Rule((), Jump("cali-nobody")),
    "what iptables cannot say": Rule((), LimitPacketRate(1_000_000, 5, 1)),
}


@pytest.mark.parametrize("what", BAD)
def test_a_refused_chain_drops_and_the_others_are_written(host: Namespace, backend: str, what: str) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        others = [Chain(f"cali-pi-{n}", (Rule((Conntrack(frozenset({"NEW"})),), Accept()),)) for n in range(20)]
        top = Chain("cali-FORWARD", (*TO_BOTH.rules, *(Rule((), Jump(chain.name)) for chain in others)))
        rules.set_chains("filter", [*others, Chain("cali-pi-bad", (Rule((), Accept()), BAD[what])), top])
        (failure,) = await rules.apply()
        assert failure.what == "chain filter cali-pi-bad"
        assert await rules.check() == []

    inside(host, body, backend)
    saved = host.run(f"iptables-{backend}-save", "-t", "filter").splitlines()
    assert [line for line in saved if line.startswith("-A cali-pi-bad")] == [
        next(line for line in saved if "this chain was refused" in line and line.endswith("-j DROP"))
    ]
    assert sum(line.startswith("-A cali-pi-") for line in saved) == 1 + 2 + 20
    assert "cali-trial" not in "".join(saved)


def test_many_chains_refused_for_one_set_are_found_in_one_go(host: Namespace, backend: str) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        bad = [Chain(f"cali-pi-{n}", (Rule((InSet("source", "s:nobody"),), Accept()),)) for n in range(50)]
        rules.set_chains("filter", [*bad, Chain("cali-FORWARD", tuple(Rule((), Jump(one.name)) for one in bad))])
        failures = await rules.apply()
        assert len(failures) == 50
        assert all("nobody" in failure.reason for failure in failures)
        rules.set_ip_set("s:nobody", "net", ())
        assert await rules.apply() == []

    inside(host, body, backend)
    assert host.run(f"iptables-{backend}-save").count("cali40s:nobody") == 50


def test_a_refused_chain_is_tried_again_after_a_while_without_opening_it_before(host: Namespace) -> None:
    clock = Clock()

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        rules.set_chains("filter", [Chain("cali-pi-bad", (BAD["a set that is not there"],)), TO_BOTH])
        assert len(await rules.apply()) == 1
        host.run("ipset", "create", "cali40s:nobody", "hash:net")
        assert len(await rules.apply()) == 1
        assert "DROP" in host.run("iptables-nft", "-S", "cali-pi-bad")
        clock.now = 1.0
        assert await rules.apply() == []

    inside(host, body, clock=clock)
    assert "s:nobody" in host.run("iptables-nft", "-S", "cali-pi-bad")


def test_a_refused_chain_that_everybody_passes_does_not_cut_the_host_off(host: Namespace, backend: str) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        bad = (Rule((), Jump("cali-pi-x")), BAD["what only the kernel refuses"])
        for hook in ("INPUT", "FORWARD"):
            rules.set_chains("filter", [Chain(f"cali-{hook}", (Rule((), Accept()),))])
            rules.set_hook("filter", hook, HookRules((Rule((), Jump(f"cali-{hook}")),)))
        assert await rules.apply() == []
        rules.set_chains("filter", [Chain("cali-INPUT", bad), Chain("cali-OUTPUT", bad)])
        rules.set_hook("filter", "OUTPUT", HookRules((Rule((), Jump("cali-OUTPUT")),)))
        assert [one.what for one in await rules.apply()] == ["chain filter cali-INPUT", "chain filter cali-OUTPUT"]

    inside(host, body, backend)
    assert host.run(f"iptables-{backend}", "-S", "cali-INPUT").splitlines()[1].endswith("-j ACCEPT")
    assert len(host.run(f"iptables-{backend}", "-S", "cali-OUTPUT").splitlines()) == 1
    host.run("ping", "-c1", "127.0.0.1")


def test_a_refused_translation_leaves_packets_as_they_are(host: Namespace, backend: str) -> None:
    async def body(rules: IptablesFilter) -> None:
        rules.set_chains("nat", [Chain("cali-fip-snat", (Rule((InSet("source", "s:nobody"),), Masquerade()),))])
        rules.set_chains("nat", [Chain("cali-POSTROUTING", (Rule((), Jump("cali-fip-snat")),))])
        rules.set_hook("nat", "POSTROUTING", HookRules((), (Rule((), Jump("cali-POSTROUTING")),)))
        (failure,) = await rules.apply()
        assert failure.what == "chain nat cali-fip-snat"

    inside(host, body, backend)
    assert host.run(f"iptables-{backend}", "-t", "nat", "-S", "cali-fip-snat") == "-N cali-fip-snat\n"


def test_a_hook_that_would_lead_to_nothing_is_told_and_stays(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        rules.set_hook("filter", "OUTPUT", HookRules((Rule((), Jump("cali-OUTPUT")),)))
        (failure,) = await rules.apply()
        assert failure == Failure("hook filter OUTPUT", "leads to cali-OUTPUT, and there is no such chain")
        rules.set_chains("filter", [Chain("cali-OUTPUT", (Rule((), Accept()),))])
        assert await rules.apply() == []

    inside(host, body)
    assert len(forward(host)) == 3


def test_a_table_that_iptables_cannot_show_is_told_and_the_others_are_written(host: Namespace) -> None:
    host.run("iptables-nft", "-t", "filter", "-A", "OUTPUT", "-j", "ACCEPT")
    host.run("nft", "add rule ip filter OUTPUT numgen inc mod 3 vmap { 0 : accept }")

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        rules.set_chains("mangle", [Chain("cali-PREROUTING", (Rule((), Accept()),))])
        rules.set_hook("mangle", "PREROUTING", HookRules((Rule((), Jump("cali-PREROUTING")),)))
        (failure,) = await rules.apply()
        assert failure.what == "table filter"
        assert "nft" in failure.reason

    inside(host, body)
    assert "cali-PREROUTING" in host.run("iptables-nft-save", "-t", "mangle")


def test_a_member_that_ipset_refuses_costs_itself_alone(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        rules.set_ip_set("s:web", "net", {"fe80::1%eth0/128", "fd00::1/128", "fd00::2/128", "rubbish"})
        book = rules._sets._books["s:web"]
        book.wanted.add("fd00::1%eth0")  # as if ipset knew better what a member is than we
        book.to_add.add("fd00::1%eth0")
        told = sorted((failure.what, failure.reason) for failure in await rules.apply())
        assert [what for what, _ in told] == ["member fd00::1%eth0 of set s:web", *["member of set s:web"] * 2]
        assert "cannot parse" in told[0][1]
        book.wanted.discard("fd00::1%eth0")
        rules.change_ip_set("s:web", ["fd00::3/128"], ["fe80::1%eth0/128", "rubbish"])
        await rules.apply()
        assert await rules.check() == []
        assert await rules.apply() == []

    inside(host, body, version=6)
    there = host.run("ipset", "list", "cali60s:web").split("Members:\n")[1].split()
    assert set(there) == {"fd00::1", "fd00::2", "fd00::3"}


def test_a_set_that_others_have_filled_is_told_and_replaced(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        assert await rules.apply() == []
        for number in range(8):
            host.run("ipset", "add", "cali40s:web", f"192.0.2.{number}")
        rules.change_ip_set("s:web", ["10.0.0.2/32", "10.0.0.3/32"], [])
        (failure,) = await rules.apply()
        assert failure.what == "set s:web"
        assert "full" in failure.reason
        assert await rules.apply() == []
        assert await rules.check() == []

    inside(host, body, max_set_size=10)
    assert host.run("ipset", "save", "cali40s:web").count("add ") == 4


def test_a_full_set_is_replaced_by_a_larger_one_while_rules_name_it(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        assert await rules.apply() == []
        rules.change_ip_set("s:web", [f"10.2.0.{n}/32" for n in range(100)], ["10.0.0.1/32"])
        assert await rules.apply() == []
        assert await rules.check() == []

    inside(host, body, max_set_size=4)
    assert "maxelem 102" in host.run("ipset", "save", "cali40s:web")
    assert host.run("ipset", "save", "cali40s:web").count("add ") == 101
    assert host.run("ipset", "list", "-name") == "cali40s:web\n"


def test_a_set_that_rules_of_others_hold_in_another_type_closes_what_needs_it(host: Namespace) -> None:
    host.run("ipset", "create", "cali40s:web", "hash:ip,port")
    mine = ("INPUT", "-m", "set", "--match-set", "cali40s:web", "src,src", "-j", "ACCEPT")
    host.run("iptables-nft", "-A", *mine)

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        (failure,) = await rules.apply()
        assert failure.what == "chain filter cali-pi-x"
        assert "another type" in failure.reason
        host.run("iptables-nft", "-D", *mine)
        assert await rules.apply() == []

    inside(host, body)
    assert "hash:net" in host.run("ipset", "save", "cali40s:web")
    assert "cali40s:web" in host.run("iptables-nft", "-S", "cali-pi-x")


def test_a_rule_of_others_that_holds_a_chain_of_ours_goes_with_it_as_with_calico(host: Namespace, backend: str) -> None:
    async def first(rules: IptablesFilter) -> None:
        base(rules)
        await rules.apply()

    inside(host, first, backend)
    host.run(f"iptables-{backend}", "-N", "MINE")
    host.run(f"iptables-{backend}", "-A", "MINE", "-j", "cali-pi-x")

    async def second(rules: IptablesFilter) -> None:
        assert await rules.apply() == []

    inside(host, second, backend)
    assert "cali" not in host.run(f"iptables-{backend}-save")
    assert "-N MINE" in host.run(f"iptables-{backend}", "-S")


@pytest.mark.parametrize(
    ("there", "said"), [((), "apt-get install iptables"), (("save", "restore"), "apt-get install ipset")]
)
def test_a_program_that_is_not_installed_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: tuple[str, ...], said: str
) -> None:
    for name in there:
        (tmp_path / f"iptables-{name}").touch(mode=0o755)
    monkeypatch.setattr(programs, "_PATH", str(tmp_path))
    programs.find.cache_clear()
    try:
        with pytest.raises(ProgramMissing, match=said):
            IptablesFilter(4)
    finally:
        programs.find.cache_clear()
