"""The FIB adapter against a real kernel."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from bgp.config import KernelConfig, LearnRule
from bgp.families import IPV4, parse_address, parse_prefix
from bgp.ports import FibRoute, LearnedRoute
from tests.integration.node.fib_scene import Scene, play

pytestmark = pytest.mark.root

BLACKHOLE = FibRoute(())


# Programming


def test_routes_stand_in_the_kernel_as_they_were_wanted() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running():
            scene.want(
                {
                    "10.1.0.0/26": scene.via("10.9.0.2"),
                    "10.1.1.0/26": scene.via("10.9.0.2", "10.8.0.2"),
                    "10.1.2.0/26": BLACKHOLE,
                    "10.1.3.0/26": scene.via("fd09::2"),
                    "10.1.4.0/26": scene.via("172.16.0.1", on_link=True),
                    "fd10::/64": scene.via("fd09::2"),
                    "fd11::/64": scene.via("fd09::2", "fd08::2"),
                    "fd12::/64": BLACKHOLE,
                    "fd13::/64": scene.via("fe80::2"),
                }
            )
            await scene.settled()
            assert scene.events.told == []
            four, six = scene.ours(4), scene.ours(6)
            assert (four["10.1.0.0/26"]["gateway"], four["10.1.0.0/26"]["metric"]) == ("10.9.0.2", 32)
            assert {hop["gateway"] for hop in four["10.1.1.0/26"]["nexthops"]} == {"10.9.0.2", "10.8.0.2"}
            assert four["10.1.2.0/26"]["type"] == "blackhole"
            assert four["10.1.3.0/26"]["via"] == {"family": "inet6", "host": "fd09::2"}
            assert (four["10.1.4.0/26"]["gateway"], four["10.1.4.0/26"]["flags"]) == ("172.16.0.1", ["onlink"])
            assert (six["fd10::/64"]["gateway"], six["fd10::/64"]["metric"]) == ("fd09::2", 32)
            assert {hop["gateway"] for hop in six["fd11::/64"]["nexthops"]} == {"fd09::2", "fd08::2"}
            assert six["fd12::/64"]["type"] == "blackhole"
            assert six["fd13::/64"]["gateway"] == "fe80::2"
            assert scene.adapter.counters["routes"] == {"ipv4": 5, "ipv6": 4}

    play(scenario)


@pytest.mark.parametrize("family", [4, 6])
def test_a_route_may_become_any_other_and_go_again(family: int) -> None:
    """One gateway, several, none: the kernel replaces each by each."""

    async def scenario(scene: Scene) -> None:
        prefix = "10.1.0.0/26" if family == 4 else "fd10::/64"
        one, other = ("10.9.0.2", "10.8.0.2") if family == 4 else ("fd09::2", "fd08::2")
        forms = [scene.via(one), scene.via(one, other), BLACKHOLE, scene.via(other)]
        shown = [{one}, {one, other}, set(), {other}]
        async with scene.running():
            for place in (0, 1, 2, 3, 2, 1, 3, 0, 2, 0, 3, 1, 0):
                scene.want({prefix: forms[place]})
                await scene.settled()
                row = scene.ours(family)[prefix]
                hops = row.get("nexthops", [row])
                assert {hop["gateway"] for hop in hops if "gateway" in hop} == shown[place]
            scene.want({prefix: None})
            await scene.settled()
            assert scene.ours(family) == {}
            assert scene.events.told == []

    play(scenario)


def test_metric_table_and_protocol_are_as_configured_and_change_live() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running(KernelConfig(route_protocol=186, table=1000, metric=77)):
            scene.want({"10.1.0.0/26": scene.via("10.9.0.2"), "fd10::/64": scene.via("fd09::2")})
            await scene.settled()
            (row,) = scene.node.ip_json("route show table 1000")
            assert (row["dst"], row["protocol"], row["metric"]) == ("10.1.0.0/26", "bgp", 77)
            (row,) = scene.node.ip_json("-6 route show table 1000")
            assert (row["dst"], row["protocol"], row["metric"]) == ("fd10::/64", "bgp", 77)
            await scene.adapter.reconfigure(KernelConfig(route_protocol=12, table=254, metric=32))
            assert list(scene.ours(4)) == ["10.1.0.0/26"]
            assert list(scene.ours(6)) == ["fd10::/64"]
            assert scene.node.ip_json("-4 route show table 1000") == []
            await scene.adapter.reconfigure(KernelConfig(route_protocol=186))
            assert list(scene.ours(4, "bgp")) == ["10.1.0.0/26"]
            assert scene.events.told == []

    play(scenario)


def test_the_preferred_source_comes_and_goes_with_the_address() -> None:
    async def scenario(scene: Scene) -> None:
        sources = (ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1"))
        async with scene.running(KernelConfig(preferred_source=sources)):
            scene.want({"10.1.0.0/26": scene.via("10.9.0.2"), "fd10::/64": scene.via("fd09::2")})
            await scene.settled()
            assert "prefsrc" not in scene.ours(4)["10.1.0.0/26"]
            scene.node.ip("address add 10.0.0.1/32 dev lo")
            scene.node.ip("address add fd00::1/128 dev lo")
            await scene.until(lambda: scene.ours(4)["10.1.0.0/26"].get("prefsrc") == "10.0.0.1")
            await scene.until(lambda: scene.ours(6)["fd10::/64"].get("prefsrc") == "fd00::1")
            # The kernel takes the IPv4 route with the address away and tells nobody.
            scene.node.ip("address delete 10.0.0.1/32 dev lo")
            await scene.until(lambda: "prefsrc" not in scene.ours(4).get("10.1.0.0/26", {"prefsrc": ""}))

    play(scenario)


def test_a_route_that_the_kernel_refuses_harms_no_other() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running():
            scene.want({f"10.1.{number}.0/26": scene.via("10.9.0.2") for number in range(50)})
            scene.want({"10.2.0.0/26": scene.via("172.31.0.1"), "fd10::/64": scene.via("2001:db8::1")})
            scene.want({f"10.3.{number}.0/26": scene.via("10.8.0.2") for number in range(50)})
            await scene.settled()
            assert len(scene.ours(4)) == 100
            told = {fields["prefix"]: fields for fields in scene.events.named("fib_error")}
            assert set(told) == {"10.2.0.0/26", "fd10::/64"}
            assert told["10.2.0.0/26"]["error"] == "ENETUNREACH: Nexthop has invalid gateway"
            shown = scene.adapter.explain(*parse_prefix("10.2.0.0/26"))
            assert shown["state"] == "ENETUNREACH: Nexthop has invalid gateway"
            assert scene.adapter.counters["pending"] == 2
            scene.node.ip("address add 172.31.0.2/24 dev eth0")
            await scene.until(lambda: "10.2.0.0/26" in scene.ours(4), "the route whose gateway is there now")
            assert scene.adapter.explain(*parse_prefix("10.2.0.0/26"))["state"] == "programmed"

    play(scenario)


def test_with_programming_off_nothing_is_written_and_everything_else_works() -> None:
    async def scenario(scene: Scene) -> None:
        scene.node.ip("route add 10.1.9.0/26 via 10.9.0.2 proto bird metric 32")
        async with scene.running(KernelConfig(program=False)):
            scene.adapter.converged()
            scene.node.ip("route add blackhole 10.5.0.0/26 proto 80")
            await scene.until(lambda: scene.listener.has("10.5.0.0/26"))
            assert list(scene.ours(4)) == ["10.1.9.0/26"]

    play(scenario)


def test_at_the_end_routes_persist_or_go_as_configured() -> None:
    async def scenario(scene: Scene) -> None:
        for persist in (True, False):
            async with scene.running(KernelConfig(persist=persist)) as adapter:
                scene.want({"10.1.0.0/26": scene.via("10.9.0.2"), "fd10::/64": scene.via("fd09::2")})
                await scene.settled()
                adapter.freeze()
                scene.want({"10.1.0.0/26": None})  # what a speaker says of a peer that it leaves
                await adapter.close()
                await adapter.close()
            assert len(scene.ours(4)) == len(scene.ours(6)) == (1 if persist else 0)

    play(scenario)


# Other programs' routes


def test_other_programs_routes_stay_as_they_are_byte_for_byte() -> None:
    async def scenario(scene: Scene) -> None:
        scene.node.ip_batch(
            "route add 10.1.0.0/26 via 10.9.0.9 metric 32 proto 4\n"
            "route add 10.1.1.0/26 via 10.9.0.9 metric 5 proto 80\n"
            "route add blackhole 10.1.2.0/26 proto 80\n"
            "route add 10.1.0.0/26 via 10.9.0.9 metric 32 table 100\n"
            "route add fd10::/64 via fd09::9 metric 32 proto 4\n"
            "route add fd11::/64 via fd09::9 metric 1024 proto boot\n"
        )
        before = scene.foreign()
        async with scene.running() as adapter:
            prefixes = ["10.1.0.0/26", "10.1.1.0/26", "10.1.2.0/26", "fd10::/64", "fd11::/64"]
            for _ in range(3):
                scene.want({p: scene.via("fd09::2" if ":" in p else "10.9.0.2") for p in prefixes})
                await scene.settled()
                assert scene.foreign() == before
                scene.want(dict.fromkeys(prefixes))
                await scene.settled()
                assert scene.foreign() == before
            adapter.converged()
            await scene.settled()
            await adapter.close(remove=True)
        assert scene.foreign() == before
        assert scene.ours(4) == scene.ours(6) == {}
        conflicts = {fields["prefix"]: fields["protocol"] for fields in scene.events.named("fib_conflict")}
        assert conflicts == {"10.1.0.0/26": 4, "fd10::/64": 4}

    play(scenario)


@pytest.mark.parametrize(
    ("prefix", "one", "other"), [("10.1.0.0/26", "10.9.0.2", "10.9.0.9"), ("fd10::/64", "fd09::2", "fd09::9")]
)
def test_a_conflict_lasts_as_long_as_the_other_programs_route(prefix: str, one: str, other: str) -> None:
    async def scenario(scene: Scene) -> None:
        family = 6 if ":" in prefix else 4
        async with scene.running() as adapter:
            scene.want({prefix: scene.via(one)})
            await scene.settled()
            scene.node.ip(f"-{family} route replace {prefix} via {other} metric 32 proto static")
            await scene.until(lambda: scene.events.named("fib_conflict"), "the conflict")
            assert adapter.explain(*parse_prefix(prefix))["state"] == "foreign route there (protocol 4)"
            assert scene.ours(family) == {}
            scene.node.ip(f"-{family} route delete {prefix} metric 32 proto static")
            await scene.until(lambda: prefix in scene.ours(family), "our route")
            assert adapter.explain(*parse_prefix(prefix))["state"] == "programmed"

    play(scenario)


def test_a_route_of_ours_that_somebody_deletes_or_alters_is_put_back() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running():
            scene.want({"10.1.0.0/26": scene.via("10.9.0.2"), "fd10::/64": scene.via("fd09::2")})
            await scene.settled()
            scene.node.ip("route delete 10.1.0.0/26")
            scene.node.ip("-6 route replace fd10::/64 via fd09::66 proto bird metric 32")
            await scene.until(lambda: "10.1.0.0/26" in scene.ours(4))
            await scene.until(lambda: scene.ours(6)["fd10::/64"]["gateway"] == "fd09::2")
            assert scene.adapter.counters["put_back"] == 2
            # Whoever keeps at it is answered with pauses: the route is away for a second, the CPU idle.
            scene.node.ip("route delete 10.1.0.0/26")
            await scene.until(lambda: "10.1.0.0/26" not in scene.ours(4))
            writes = scene.adapter.counters["writes"]
            await asyncio.sleep(0.2)
            assert scene.adapter.counters["writes"] == writes
            assert "another program" in scene.adapter.explain(*parse_prefix("10.1.0.0/26"))["state"]
            await scene.until(lambda: "10.1.0.0/26" in scene.ours(4))

    play(scenario)


# Learning


def test_the_state_at_the_start_and_then_each_change_is_told() -> None:
    async def scenario(scene: Scene) -> None:
        node = scene.node
        node.ip_batch("link add cali1 type veth peer name w1\nlink set cali1 up\nlink set w1 up")
        node.ip_batch("route add 10.1.0.1/32 dev cali1 proto boot\nroute add blackhole 10.1.0.0/26 proto 80")
        node.ip("route add fd10::1/128 dev cali1 proto 80 metric 1024")
        async with scene.running():
            listener = scene.listener
            assert listener.learned[IPV4] == {
                parse_prefix("10.1.0.1/32")[1]: LearnedRoute(b"", "cali1", 3, 0),
                parse_prefix("10.1.0.0/26")[1]: LearnedRoute(b"", "", 80, 0),
            }
            assert listener.has("fd10::1/128")
            assert {parse_address(a) for a in ("10.9.0.1", "10.8.0.1", "fd09::1", "127.0.0.1")} <= listener.addresses
            node.ip("route add 10.1.0.2/32 dev cali1 proto boot")
            await scene.until(lambda: listener.has("10.1.0.2/32"))
            node.ip("route delete 10.1.0.1/32")
            await scene.until(lambda: not listener.has("10.1.0.1/32"))
            node.ip("link delete cali1")  # the kernel does not tell of 10.1.0.2/32
            await scene.until(lambda: not listener.has("10.1.0.2/32") and not listener.has("fd10::1/128"))
            assert listener.has("10.1.0.0/26")

    play(scenario)


def test_our_own_routes_are_not_told_to_us() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running(KernelConfig(learn=(LearnRule(),))):
            known = set(scene.listener.learned[IPV4])
            scene.want({"10.1.0.0/26": scene.via("10.9.0.2")})
            await scene.settled()
            scene.node.ip("route add 10.7.0.0/26 via 10.9.0.2")
            await scene.until(lambda: scene.listener.has("10.7.0.0/26"))
            assert set(scene.listener.learned[IPV4]) == known | {parse_prefix("10.7.0.0/26")[1]}
            assert scene.adapter.counters["notifications"] == 1, "the echo of our own writes stays in the kernel"

    play(scenario)


def test_other_rules_take_effect_live() -> None:
    async def scenario(scene: Scene) -> None:
        scene.node.ip("route add blackhole 10.1.0.0/26 proto 80")
        scene.node.ip("route add blackhole 10.2.0.0/26 proto 80 table 100")
        async with scene.running() as adapter:
            assert scene.listener.has("10.1.0.0/26")
            await adapter.reconfigure(KernelConfig(learn=(LearnRule(table=100),)))
            assert not scene.listener.has("10.1.0.0/26")
            assert scene.listener.has("10.2.0.0/26")
            scene.node.ip("route add blackhole 10.3.0.0/26 table 100")
            await scene.until(lambda: scene.listener.has("10.3.0.0/26"))

    play(scenario)


# Next hops


def test_a_change_of_the_way_to_a_next_hop_is_told() -> None:
    async def scenario(scene: Scene) -> None:
        node = scene.node
        node.ip("route add 192.0.2.0/24 via 10.9.0.2 metric 20")
        async with scene.running() as adapter:
            first = adapter.track(parse_address("192.0.2.1"))
            assert (first.reachable, first.metric, first.interface) == (True, 20, "eth0")
            assert not adapter.track(parse_address("203.0.113.1")).reachable
            node.ip("route add 192.0.2.0/24 via 10.8.0.2 metric 10")
            await scene.until(lambda: scene.resolved("192.0.2.1") == ["10.8.0.2"])
            node.ip("link set p1 down")  # the cable: eth1 stays up and loses its carrier
            await scene.until(lambda: scene.resolved("192.0.2.1") == ["10.9.0.2"])
            node.ip("route add default via 10.9.0.7")
            await scene.until(lambda: scene.resolved("203.0.113.1") == ["10.9.0.7"])
            node.ip("route add unreachable 203.0.113.0/24")
            await scene.until(lambda: not scene.listener.resolutions[parse_address("203.0.113.1")].reachable)

    play(scenario)


def test_a_next_hop_is_never_resolved_by_a_route_of_ours() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running() as adapter:
            scene.want({"192.0.2.0/24": scene.via("10.9.0.2")})
            await scene.settled()
            assert not adapter.track(parse_address("192.0.2.1")).reachable

    play(scenario)
