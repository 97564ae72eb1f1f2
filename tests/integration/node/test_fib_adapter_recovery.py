"""The FIB adapter and what goes wrong: killed processes, lost notifications, failing links, floods."""

from __future__ import annotations

import asyncio
import ctypes
import ipaddress
import os
import threading
import time

import pytest

from bgp.config import KernelConfig, LearnRule
from bgp.families import IPV4, IPV6, parse_address, parse_prefix
from bgp.ports import FibRoute
from felix.kernel.netlink import NLM_F_CREATE
from felix.kernel.rtnetlink import AF_INET, Hop, RouteEncoder, Via
from felix.kernel.sockets import RequestSocket
from integration.node.fib_adapter import FibAdapter
from tests.integration.node.fib_scene import Scene, play
from tests.netns import Namespace

pytestmark = pytest.mark.root

ROUTES = ("10.1.0.0/26", "10.1.1.0/26", "10.1.2.0/26", "fd10::/64", "fd11::/64", "fd12::/64")


def wanted(scene: Scene) -> dict[str, FibRoute | None]:
    """One gateway, several, none, in both families."""
    forms = [scene.via("10.9.0.2"), scene.via("10.9.0.2", "10.8.0.2"), FibRoute(())]
    forms += [scene.via("fd09::2"), scene.via("fd09::2", "fd08::2"), FibRoute(())]
    return dict(zip(ROUTES, forms, strict=True))


def shown(scene: Scene) -> str:
    return scene.node.ip("-4 route show proto bird") + scene.node.ip("-6 route show proto bird")


def burst(node: Namespace, count: int, via: Via, *, delete: bool = False) -> None:
    """Another program writes /32 routes under 20/8, all at once."""
    requests = RequestSocket(node.netlink)
    try:
        encoder, base = RouteEncoder(via), int(ipaddress.ip_address("20.0.0.0"))
        for start in range(0, count, 1000):
            first = requests.sequences(1000)
            prefixes = [bytes([32]) + (base + n).to_bytes(4, "big") for n in range(start, min(start + 1000, count))]
            if delete:
                messages = [encoder.delete(prefix, first + n) for n, prefix in enumerate(prefixes)]
            else:
                messages = [encoder.put(prefix, NLM_F_CREATE, first + n) for n, prefix in enumerate(prefixes)]
            assert requests.write(messages, first) == {}
    finally:
        requests.close()


# Restart


def test_after_a_kill_everything_is_adopted_without_a_write_and_nothing_goes_before_convergence() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running():
            scene.want(wanted(scene))
            scene.want({"10.66.0.0/26": scene.via("10.9.0.2"), "fd66::/64": scene.via("fd09::2")})
            await scene.settled()
        before = shown(scene)
        events = scene.node.netlink()  # an independent witness: any change would be told here
        events.bind((0, 0x440))
        events.setblocking(False)
        async with scene.running() as adapter:
            assert adapter.counters["stale"] == {"ipv4": 4, "ipv6": 4}
            scene.want(wanted(scene))
            await scene.settled()
            assert (adapter.counters["writes"], adapter.counters["deletes"], adapter.counters["adopted"]) == (0, 0, 6)
            assert shown(scene) == before
            with pytest.raises(BlockingIOError):
                events.recv(4096)
            events.close()
            adapter.converged()
            await scene.settled()
            assert set(scene.ours(4)) | set(scene.ours(6)) == set(ROUTES)
            assert adapter.counters["deletes"] == 2

    play(scenario)


def test_after_a_restart_with_other_paths_routes_change_in_place() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running():
            scene.want(wanted(scene))
            await scene.settled()
        async with scene.running() as adapter:
            scene.want({"10.1.0.0/26": scene.via("10.8.0.2"), "fd11::/64": scene.via("fd08::2")})
            await scene.settled()
            assert adapter.counters["deletes"] == 0
            assert scene.ours(4)["10.1.0.0/26"]["gateway"] == "10.8.0.2"
            assert scene.ours(6)["fd11::/64"]["gateway"] == "fd08::2"
            assert len(scene.ours(4)) == len(scene.ours(6)) == 3, "what has not been asked for yet still stands"

    play(scenario)


# Links and addresses


def test_routes_come_back_with_their_link() -> None:
    async def scenario(scene: Scene) -> None:
        scene.node.sysctl("net.ipv6.conf.eth0.keep_addr_on_down=1")
        async with scene.running() as adapter:
            scene.want(wanted(scene))
            await scene.settled()
            adapter.track(parse_address("10.9.0.2"))
            for _ in range(3):
                scene.node.ip("link set eth0 down")
                await scene.until(lambda: scene.is_reachable("10.9.0.2") is False)
                await scene.until(lambda: "10.1.0.0/26" not in scene.ours(4))
                await scene.until(lambda: "is down" in str(adapter.explain(*parse_prefix("10.1.0.0/26"))["state"]))
                await scene.until(lambda: "is down" in str(adapter.explain(*parse_prefix("fd10::/64"))["state"]))
                assert scene.events.named("fib_error") == [], "a link that is down is not a defect of each route"
                scene.node.ip("link set eth0 up")
                await scene.until(lambda: set(scene.ours(4)) | set(scene.ours(6)) == set(ROUTES), "all routes")
                await scene.until(lambda: scene.resolved("10.9.0.2") == ["10.9.0.2"])
                scene.events.told.clear()  # IPv6 addresses come back a little later, what was tried before them failed
                nexthops = scene.ours(4)["10.1.1.0/26"]["nexthops"]
                assert {hop["gateway"] for hop in nexthops} == {"10.9.0.2", "10.8.0.2"}

    play(scenario)


def test_routes_come_back_with_their_subnets_address() -> None:
    """With the last address the kernel drops all IPv4 routes over the interface, in silence."""

    async def scenario(scene: Scene) -> None:
        async with scene.running():
            scene.want({"10.1.0.0/26": scene.via("10.9.0.2"), "10.2.0.0/26": scene.via("10.8.0.2")})
            await scene.settled()
            scene.node.ip("address delete 10.9.0.1/24 dev eth0")
            await scene.until(lambda: scene.adapter.counters["routes"]["ipv4"] == 1, "the loss")
            assert parse_address("10.9.0.1") not in scene.listener.addresses
            scene.node.ip("address add 10.9.0.1/24 dev eth0")
            await scene.until(lambda: "10.1.0.0/26" in scene.ours(4), "our route")

    play(scenario)


def test_a_link_that_is_taken_away_for_good_takes_what_it_taught() -> None:
    async def scenario(scene: Scene) -> None:
        node = scene.node
        node.ip_batch("link add cali1 type veth peer name w1\nlink set cali1 up\nlink set w1 up")
        for number in range(1, 20):
            node.ip(f"route add 10.1.0.{number}/32 dev cali1 proto boot")
        async with scene.running():
            assert len(scene.listener.learned[IPV4]) == 19
            node.ip("link set cali1 down")  # the kernel says nothing of its 19 routes
            await scene.until(lambda: not scene.listener.learned[IPV4])
            node.ip("link set cali1 up")
            await asyncio.sleep(0.2)
            assert not scene.listener.learned[IPV4], "the routes did not come back with the link: nobody wrote them"

    play(scenario)


# Lost notifications


def test_lost_notifications_are_made_good_by_reading_everything_anew() -> None:
    async def scenario(scene: Scene) -> None:
        rules = KernelConfig(learn=(LearnRule(protocol=80),))
        via = Via(AF_INET, protocol=80, hops=(Hop(b"", scene.eth0),))
        async with scene.running(rules, monitor_buffer_octets=4096) as adapter:
            scene.want({"10.1.0.0/26": scene.via("10.9.0.2")})
            await scene.settled()
            burst(scene.node, 5000, via)
            scene.node.ip("route delete 10.1.0.0/26")
            await scene.until(lambda: len(scene.listener.learned[IPV4]) == 5000, "all 5,000 routes")
            await scene.until(lambda: "10.1.0.0/26" in scene.ours(4), "our route")
            assert adapter.counters["resyncs"] >= 1
            assert scene.events.named("fib_notifications_lost")
            burst(scene.node, 5000, via, delete=True)
            await scene.until(lambda: not scene.listener.learned[IPV4], "their withdrawal")
            scene.node.ip("route add blackhole 10.3.0.0/26 proto 80")
            await scene.until(lambda: scene.listener.has("10.3.0.0/26"), "a single change after all that")

    play(scenario)


def test_a_flood_of_other_programs_routes_delays_nobody_for_long() -> None:
    """60,000 changes that concern nobody: the loop keeps turning, and the CPU is not ours alone."""

    async def scenario(scene: Scene) -> None:
        via = Via(AF_INET, protocol=186, metric=20, hops=(Hop(parse_address("10.9.0.2"), scene.eth0),))
        async with scene.running():
            lags: list[float] = []

            async def watch() -> None:
                while True:
                    before = time.monotonic()
                    await asyncio.sleep(0.01)
                    lags.append(time.monotonic() - before - 0.01)

            watcher = asyncio.create_task(watch())
            for delete in (False, True, False):
                await asyncio.to_thread(burst, scene.node, 20000, via, delete=delete)
            scene.node.ip("route add blackhole 10.3.0.0/26 proto 80")
            await scene.until(lambda: scene.listener.has("10.3.0.0/26"), "the one change that matters")
            watcher.cancel()
            lags.sort()  # a busy machine keeps anybody waiting once
            assert lags[int(len(lags) * 0.98)] < 0.2
            assert lags[-1] < 2
            assert scene.adapter.counters["foreign"] >= 20000

    play(scenario)


def test_a_table_that_nobody_asked_about_is_not_even_heard_of() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running() as adapter:
            burst(scene.node, 1000, Via(AF_INET, table=99, protocol=186, hops=(Hop(b"", scene.eth0),)))
            scene.node.ip("route add blackhole 10.3.0.0/26 proto 80")
            await scene.until(lambda: scene.listener.has("10.3.0.0/26"))
            assert adapter.counters["notifications"] == 1

    play(scenario)


def test_tables_above_255_are_followed_too() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running(KernelConfig(learn=(LearnRule(table=70000),))):
            scene.node.ip("route add blackhole 10.3.0.0/26 table 70000")
            await scene.until(lambda: scene.listener.has("10.3.0.0/26"))
            scene.node.ip("route delete blackhole 10.3.0.0/26 table 70000")
            await scene.until(lambda: not scene.listener.has("10.3.0.0/26"))

    play(scenario)


def test_what_the_kernel_dropped_unseen_is_found_by_the_audit() -> None:
    async def scenario(scene: Scene) -> None:
        async with scene.running(audit_s=0.3) as adapter:
            scene.want({"10.1.0.0/26": scene.via("10.9.0.2")})
            await scene.settled()
            await scene.until(lambda: adapter.counters["resyncs"] >= 2)
            assert adapter.counters["writes"] == 1, "an audit that finds nothing changes nothing"

    play(scenario)


def test_without_the_right_to_write_the_start_says_so() -> None:
    """A process that was given the sockets but not the capability."""

    async def scenario(scene: Scene) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        failure: list[BaseException] = []

        def unprivileged() -> None:
            libc.syscall(117, 65534, 65534, 65534)  # setresuid of this thread alone
            try:
                asyncio.run(start())
            except BaseException as error:
                failure.append(error)

        async def start() -> None:
            await FibAdapter(KernelConfig(), scene.listener, scene.events).start()

        if os.uname().machine != "x86_64":
            pytest.skip("the number of setresuid is that of x86_64")
        thread = threading.Thread(target=unprivileged)
        thread.start()
        thread.join()
        assert [type(error) for error in failure] == [PermissionError]

    play(scenario)


def test_ipv6_routes_survive_a_flap_that_takes_their_subnet_with_it() -> None:
    """Without keep_addr_on_down the kernel removes the global address; somebody gives it back later."""

    async def scenario(scene: Scene) -> None:
        async with scene.running():
            scene.want({"fd10::/64": scene.via("fd09::2")})
            await scene.settled()
            scene.node.ip("link set eth0 down")
            await scene.until(lambda: not scene.ours(6))
            scene.node.ip("link set eth0 up")
            scene.node.ip("address add fd09::1/64 dev eth0")
            await scene.until(lambda: "fd10::/64" in scene.ours(6))
            assert scene.listener.learned[IPV6] == {}

    play(scenario)
