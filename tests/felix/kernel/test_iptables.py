"""The iptables packet filter on a real kernel, with both backends, beside other people's rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from felix.filter_rules import Accept, Chain, Drop, HookRules, InPortSet, InSet, Jump, Masquerade, Rule
from felix.kernel.iptables import IptablesFilter
from tests.felix.kernel.filters import base, forward, inside, policy
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


@pytest.fixture(params=["nft", "legacy"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_wanted_stands_and_others_rules_stay(host: Namespace, backend: str) -> None:
    host.run(f"iptables-{backend}", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "ACCEPT")
    host.run(f"iptables-{backend}", "-N", "KUBE-FORWARD")

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        assert await rules.apply() == []
        assert await rules.check() == []

    inside(host, body, backend)
    first, foreign, *last = forward(host, backend)
    assert "-j cali-FORWARD" in first
    assert "cali:" in first
    assert "192.0.2.1/32" in foreign
    assert len(last) == 2
    assert "KUBE-FORWARD" in host.run(f"iptables-{backend}", "-S")
    assert set(host.run("ipset", "list", "cali40s:web").split("Members:\n")[1].split()) == {"10.0.0.1", "10.1.0.0/16"}


def test_a_chain_that_nothing_leads_to_is_not_written(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        rules.set_chains("filter", [Chain("cali-pi-idle", (Rule((), Drop()),))])
        await rules.apply()
        assert "cali-pi-idle" not in host.run("iptables-nft", "-S")
        rules.set_chains("filter", [Chain("cali-FORWARD", (Rule((), Jump("cali-pi-idle")),))])
        assert await rules.apply() == []

    inside(host, body)
    assert "cali-pi-idle" in host.run("iptables-nft", "-S")
    assert "cali-pi-x" not in host.run("iptables-nft", "-S")


def test_a_new_process_adopts_what_stands_and_keeps_its_counters(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        rules.set_chains("filter", [Chain("cali-OUTPUT", (Rule((), Accept()),))])
        rules.set_hook("filter", "OUTPUT", HookRules((Rule((), Jump("cali-OUTPUT")),)))
        assert await rules.apply() == []

    inside(host, body)
    host.run("ping", "-c1", "127.0.0.1")
    inside(host, body)

    async def look(rules: IptablesFilter) -> None:
        (count,) = await rules.counts("filter", ["cali-OUTPUT"])
        assert count.packets >= 1

    inside(host, look)


def test_what_the_former_process_alone_had_is_removed(host: Namespace) -> None:
    async def first(rules: IptablesFilter) -> None:
        base(rules)
        rules.set_ip_set("s:old", "net", {"10.9.0.0/16"})
        rules.set_chains(
            "filter", [Chain("cali-FORWARD", (Rule((), Jump("cali-pi-old")), Rule((), Jump("cali-pi-x"))))]
        )
        rules.set_chains("filter", [Chain("cali-pi-old", (Rule((InSet("source", "s:old"),), Drop()),))])
        await rules.apply()

    async def second(rules: IptablesFilter) -> None:
        base(rules)
        assert await rules.apply() == []
        assert await rules.apply() == []

    inside(host, first)
    inside(host, second)
    assert "cali-pi-old" not in host.run("iptables-nft", "-S")
    assert "cali40s:old" not in host.run("ipset", "list", "-name")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("iptables-nft -F", "hook FORWARD was altered"),
        ("iptables-nft -F cali-pi-x", "chain cali-pi-x was altered"),
        ("iptables-nft -D cali-pi-x 2", "chain cali-pi-x was altered"),
        ("iptables-nft -I FORWARD 1 -j ACCEPT", "hook FORWARD was altered"),
        ("ipset del cali40s:web 10.0.0.1", "members of set s:web were altered"),
        ("ipset add cali40s:web 10.7.0.1", "members of set s:web were altered"),
    ],
)
def test_what_others_alter_is_found_and_put_right(host: Namespace, command: str, said: str) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        await rules.apply()
        host.run(*command.split())
        assert said in " ".join(await rules.check())
        assert await rules.apply() == []
        assert await rules.check() == []

    inside(host, body)
    assert "-j cali-FORWARD" in forward(host)[0]


def test_one_refused_chain_is_closed_and_leaves_the_others_alone(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        # A set that is not there is what the program refuses.
        broken = Chain("cali-pi-broken", (Rule((InSet("source", "s:nobody"),), Accept()),))
        top = Chain("cali-FORWARD", (Rule((), Jump("cali-pi-broken")), Rule((), Jump("cali-pi-x"))))
        rules.set_chains("filter", [broken, top])
        (failure,) = await rules.apply()
        assert failure.what == "chain filter cali-pi-broken"
        assert "-j DROP" in host.run("iptables-nft", "-S", "cali-pi-broken")
        rules.set_ip_set("s:nobody", "net", ())
        rules.set_chains("filter", [broken])
        assert await rules.apply() == []

    inside(host, body)
    assert "s:nobody" in host.run("iptables-nft", "-S", "cali-pi-broken")
    assert host.run("iptables-nft", "-S", "cali-pi-x").count("-A") == 2


def test_a_set_of_that_name_and_another_type_is_replaced(host: Namespace) -> None:
    host.run("ipset", "create", "cali40s:web", "hash:ip,port")

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        assert await rules.apply() == []

    inside(host, body)
    assert "hash:net" in host.run("ipset", "list", "cali40s:web")


def test_a_set_may_change_its_type_while_rules_name_it(host: Namespace, backend: str) -> None:
    async def body(rules: IptablesFilter) -> None:
        base(rules)
        assert await rules.apply() == []
        rules.set_ip_set("s:web", "ip,port", {"10.0.0.1,tcp:80"})
        rules.set_chains("filter", [Chain("cali-pi-x", (Rule((InPortSet("source", "s:web"),), Accept()),))])
        assert await rules.apply() == []
        assert await rules.check() == []

    inside(host, body, backend)
    assert "10.0.0.1,tcp:80" in host.run("ipset", "save", "cali40s:web")
    assert "src,src" in host.run(f"iptables-{backend}", "-S", "cali-pi-x")


def test_everything_of_ours_can_be_removed_and_nothing_of_others(host: Namespace, backend: str) -> None:
    host.run(f"iptables-{backend}", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "ACCEPT")

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        rules.set_hook("nat", "POSTROUTING", HookRules((), (Rule((), Masquerade()),)))
        await rules.apply()
        await rules.remove_everything()

    inside(host, body, backend)
    assert "cali" not in host.run(f"iptables-{backend}-save")
    assert len(forward(host, backend)) == 1
    assert host.run("ipset", "list", "-name") == ""


def test_ipv6_sets_and_networks_of_length_zero(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        rules.set_ip_set("s:web", "net", {"::/0", "10.0.0.0/8"})
        rules.set_chains("filter", [policy(), Chain("cali-FORWARD", (Rule((), Jump("cali-pi-x")),))])
        rules.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-FORWARD")),)))
        assert await rules.apply() == []
        assert await rules.check() == []

    inside(host, body, version=6)
    assert set(host.run("ipset", "list", "cali60s:web").split("Members:\n")[1].split()) == {"::/1", "8000::/1"}
