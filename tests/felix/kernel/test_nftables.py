"""The nftables packet filter on a real kernel: what is wanted stands there, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from felix.desired import PortRange
from felix.filter_rules import (
    Accept,
    Chain,
    Drop,
    GoToByInterface,
    HookRules,
    InPortSet,
    InSet,
    Jump,
    Masquerade,
    Ports,
    Protocol,
    Rule,
)
from felix.kernel.nftables import NftablesFilter
from tests.felix.kernel.nft_scene import chains, handle_of, inside, listed, policy, ruleset
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


def test_what_is_wanted_stands_in_the_kernel(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32", "10.1.0.0/16", "fd00::1/128"})
        nft.set_ip_set("n:http", "ip,port", {"10.0.0.1,tcp:80"})
        by_name = Chain("cali-pi-y", (Rule((InPortSet("destination", "n:http"),), Accept()),))
        nft.set_chains("filter", [policy(), by_name, Chain("cali-tw-cali1", (Rule((), Jump("cali-pi-x")),))])
        nft.set_chains(
            "filter", [Chain("cali-to-wl-dispatch", (Rule((), GoToByInterface("to", "out")), Rule((), Drop())))]
        )
        nft.set_map("filter", "to", {"cali1": "cali-tw-cali1"})
        nft.set_hook("filter", "FORWARD", HookRules((Rule((), Jump("cali-to-wl-dispatch")),), (Rule((), Accept()),)))
        nft.set_hook("nat", "POSTROUTING", HookRules((), (Rule((), Masquerade()),)))
        assert await nft.apply() == []
        assert await nft.check() == []

    inside(host, body)
    assert "10.0.0.1, 10.1.0.0/16" in listed(host, "set", "cali40s-web")
    assert "10.0.0.1 . tcp . 80" in listed(host, "set", "cali40n-http")
    assert '"cali1" : goto filter-cali-tw-cali1' in listed(host, "map", "filter-to")
    assert "priority srcnat + 10" in listed(host, "chain", "nat-POSTROUTING")
    assert chains(host)["filter-FORWARD"] == 2


def test_a_rule_that_asks_for_members_of_a_set_is_written_once_the_set_has_one(host: Namespace) -> None:
    rules = (Rule((InSet("source", "s:web"),), Accept(), ("Policy x",)), Rule((), Drop()), Rule((), Accept()))

    def want(nft: NftablesFilter) -> None:
        nft.set_chains("filter", [Chain("cali-pi-x", rules)])
        nft.set_ip_set("s:web", "net", ())

    async def body(nft: NftablesFilter) -> None:
        want(nft)
        assert await nft.apply() == []
        assert chains(host)["filter-cali-pi-x"] == 2
        assert [one.position for one in await nft.counts("filter", ["cali-pi-x"])] == [1, 2]
        handles = nft.handles("filter-cali-pi-x")
        assert list(handles.values()) == [1, 2]

        heir = NftablesFilter(4)
        want(heir)
        assert await heir.apply() == []
        assert heir.handles("filter-cali-pi-x") == handles  # nothing was written
        heir.close()

        nft.change_ip_set("s:web", {"10.0.0.1/32"}, ())
        assert nft.handles("filter-cali-pi-x") == {}
        assert await nft.counts("filter", ["cali-pi-x"]) == []
        assert await nft.apply() == []
        assert await nft.check() == []
        assert [one.position for one in await nft.counts("filter", ["cali-pi-x"])] == [0, 1, 2]
        assert list(nft.handles("filter-cali-pi-x").values()) == [0, 1, 2]

    inside(host, body)
    assert "@cali40s-web" in listed(host, "chain", "filter-cali-pi-x")


def test_changes_touch_what_has_changed_and_leave_counters_of_the_rest(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy(), policy("cali-pi-z")])
        nft.set_map("filter", "to", {"cali1": "cali-pi-x"})
        assert await nft.apply() == []
        before = nft._socket.rule_handles("filter-cali-pi-z")
        nft.change_ip_set("s:web", {"10.0.0.2/32"}, {"10.0.0.1/32"})
        nft.set_ip_set("s:new", "net", {"10.9.0.0/24"})
        nft.set_chains("filter", [policy(id="s:new")])
        nft.set_map("filter", "to", {"cali1": "cali-pi-z", "cali2": "cali-pi-x"})
        assert await nft.apply() == []
        assert await nft.check() == []
        assert nft._socket.rule_handles("filter-cali-pi-z") == before
        nft.change_ip_set("s:web", {"10.0.0.0/8"}, ())
        nft.remove_ip_set("s:new")
        nft.set_chains("filter", [policy()])
        nft.set_map("filter", "to", {})
        nft.remove_chains("filter", ["cali-pi-z"])
        assert await nft.apply() == []
        assert await nft.check() == []

    inside(host, body)
    assert "10.0.0.0/8" in listed(host, "set", "cali40s-web")
    assert "filter-cali-pi-z" not in chains(host)
    assert "cali40s-new" not in host.run("nft", "list", "ruleset")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("flush ruleset", "was removed or flushed"),
        ("flush chain ip calico filter-cali-pi-x", "chain filter cali-pi-x was altered"),
        ("add rule ip calico filter-FORWARD accept", "hook filter FORWARD was altered"),
        ("delete element ip calico cali40s-web { 10.0.0.1 }", "members of set s:web were altered"),
        ("add element ip calico cali40s-web { 10.7.0.1 }", "members of set s:web were altered"),
        (
            "delete element ip calico cali40s-web { 10.1.0.0/16 }; add element ip calico cali40s-web { 10.1.0.0/17 }",
            "members of set s:web were altered",
        ),
        ('delete element ip calico filter-to { "cali1" }', "map filter-to was altered"),
        ("add chain ip calico intruder", "not ours: intruder"),
    ],
)
def test_what_others_alter_is_found_and_put_right(host: Namespace, command: str, said: str) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32", "10.1.0.0/16"})
        nft.set_chains("filter", [policy()])
        nft.set_map("filter", "to", {"cali1": "cali-pi-x"})
        await nft.apply()
        host.run("nft", command)
        assert said in " ".join(await nft.check())
        assert await nft.apply() == []
        assert await nft.check() == []

    inside(host, body)
    assert chains(host)["filter-cali-pi-x"] == 2
    assert "intruder" not in chains(host)


def test_a_new_process_takes_over_without_a_moment_of_nothing(host: Namespace) -> None:
    """The former process's rules stand until one transaction replaces them, and what it alone had is gone."""

    async def first(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy(), policy("cali-pi-old")])
        await nft.apply()

    async def second(nft: NftablesFilter) -> None:
        assert "filter-cali-pi-old" in chains(host)
        nft.set_ip_set("s:web", "net", {"10.0.0.2/32"})
        nft.set_chains("filter", [policy()])
        await nft.apply()

    inside(host, first)
    inside(host, second)
    assert "filter-cali-pi-old" not in chains(host)
    assert "10.0.0.2" in listed(host, "set", "cali40s-web")


@pytest.mark.parametrize(
    ("former", "wanted"),
    [
        ("10.0.0.0/8", "10.0.0.0/16"),  # begin alike
        ("10.0.0.0/16", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.1.0.0/16"),  # one within the other
        ("10.1.0.0/16", "10.0.0.0/8"),
        ("10.0.0.0/9", "10.128.0.0/9"),  # one begins where the other ends
        ("10.128.0.0/9", "10.0.0.0/9"),
        ("0.0.0.0/0", "255.255.255.255/32"),
        ("128.0.0.0/1", "0.0.0.0/1"),
    ],
)
def test_a_former_process_s_set_gets_exactly_the_members_wanted_now(host: Namespace, former: str, wanted: str) -> None:
    async def write(nft: NftablesFilter, member: str) -> None:
        nft.set_ip_set("s:web", "net", {member, "192.0.2.7/32"} if member != "0.0.0.0/0" else {member})
        nft.set_chains("filter", [policy()])
        assert await nft.apply() == []
        assert await nft.check() == []

    inside(host, lambda nft: write(nft, former))
    handle = handle_of(host, "filter-FORWARD")
    inside(host, lambda nft: write(nft, wanted))
    assert handle_of(host, "filter-FORWARD") == handle, "the table was not made anew"
    found = listed(host, "set", "cali40s-web").partition("elements = ")[2].partition("}")[0].strip(" {}")
    text = wanted.removesuffix("/32")
    assert sorted(found.split(", ")) == sorted([text, "192.0.2.7"] if text != "0.0.0.0/0" else [text])


def test_one_refused_chain_is_closed_and_leaves_the_others_alone(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        # A jump to a chain that is not there is what the kernel refuses.
        broken = Chain("cali-pi-broken", (Rule((), Jump("cali-nobody")),))
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy(), broken])
        (failure,) = await nft.apply()
        assert failure.what == "chain filter cali-pi-broken"
        assert failure.reason
        later = Chain("cali-pi-later", (Rule((), Jump("cali-nobody")),))
        nft.set_chains("filter", [policy("cali-pi-z"), later])
        failures = await nft.apply()
        assert [one.what for one in failures] == ["chain filter cali-pi-broken", "chain filter cali-pi-later"]
        nft.set_chains("filter", [Chain("cali-nobody", ())])
        assert await nft.apply() == []

    inside(host, body)
    assert chains(host)["filter-cali-pi-z"] == 2
    assert "jump filter-cali-nobody" in listed(host, "chain", "filter-cali-pi-broken")


def test_a_member_that_is_none_is_reported_and_left_out(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32", "10.0.0.999"})
        nft.set_chains("filter", [policy()])
        (failure,) = await nft.apply()
        assert failure.what == "member of set s:web"

    inside(host, body)
    assert "10.0.0.1" in listed(host, "set", "cali40s-web")


def test_a_set_may_change_its_type(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32"})
        nft.set_chains("filter", [policy()])
        await nft.apply()
        nft.set_ip_set("s:web", "ip,port", {"10.0.0.1,udp:53"})
        nft.set_chains("filter", [Chain("cali-pi-x", (Rule((InPortSet("source", "s:web"),), Drop()),))])
        assert await nft.apply() == []

    inside(host, body)
    assert "10.0.0.1 . udp . 53" in listed(host, "set", "cali40s-web")


def test_counters_are_read_by_place(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        rules = (Rule((Protocol(17), Ports("destination", (PortRange(9, 9),)))), Rule((), Accept()))
        nft.set_chains("filter", [Chain("cali-OUTPUT", rules)])
        nft.set_hook("filter", "OUTPUT", HookRules((Rule((), Jump("cali-OUTPUT")),)))
        await nft.apply()
        host.run("ping", "-c2", "-i0.01", "127.0.0.1")
        counts = await nft.counts("filter", ["cali-OUTPUT", "cali-unknown"])
        assert [(one.position, one.packets) for one in counts] == [(0, 0), (1, 4)]

    inside(host, body)


def test_ipv6_has_a_table_of_its_own(host: Namespace) -> None:
    async def body(nft: NftablesFilter) -> None:
        nft.set_ip_set("s:web", "net", {"10.0.0.1/32", "fd00::/64"})
        nft.set_ip_set("n:http", "ip,port", {"fd00::1,sctp:80"})
        nft.set_chains("filter", [policy()])
        assert await nft.apply() == []
        nft.change_ip_set("n:http", {"fd00::2,tcp:81"}, ())
        assert await nft.apply() == []
        assert await nft.check() == []
        await nft.remove_everything()

    async def keep(nft: NftablesFilter) -> None:
        nft.set_ip_set("n:http", "ip,port", {"fd00::1,sctp:80"})
        await nft.apply()

    inside(host, body, 6)
    assert ruleset(host)[1:] == []
    inside(host, keep, 6)
    assert "fd00::1 . sctp . 80" in listed(host, "set", "cali60n-http", "ip6")
